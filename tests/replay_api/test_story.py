"""User stories over HTTP against a served application and a real database, comparing whole bodies."""

from __future__ import annotations

import csv
import io
import json
import math
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest

from gaitfleet import codec
from gaitfleet.episode import content_digest, encode_episode
from gaitfleet.policy import NumpyPolicy
from gaitfleet.task import make_task
from gaitfleet.wire import RunStatus
from replay_api.services.timesteps import encode_table
from tests.replay_api.fleet import Fleet, experiment_of, play


def test_a_run_is_created_once_and_keeps_its_experiment(fleet: Fleet) -> None:
    description = fleet.get("").json()
    assert description == {
        "run": fleet.run,
        "experiment": fleet.experiment.model_dump(mode="json"),
        "experiment_hash": fleet.experiment.hash,
        "layout_hash": fleet.task.description.state_layout.hash,
        "observation_hash": fleet.task.description.observation_hash,
        "created_at": description["created_at"],
        "stage": 0,
        "parents": [],
        "demonstrations": [],
    }
    again = fleet.create()
    assert (again.status_code, again.json()) == (200, description)
    other = fleet.http.put(fleet.path, json=experiment_of(seed=5).model_dump(mode="json"))
    assert other.status_code == 409
    assert other.json()["type"] == "urn:gaitfleet:problem:experiment-differs"
    assert fleet.http.get("/v1/runs").json()[0] == description
    assert [event["kind"] for event in fleet.events()] == ["run_started"]


def test_an_episode_is_posted_listed_and_read_back(fleet: Fleet) -> None:
    episode = fleet.play(seed=3)
    body = encode_episode(episode)
    metadata, trajectory = episode.metadata, episode.trajectory
    receipt = {"episode_id": str(metadata.episode_id), "stored": True, "transitions": 30}

    first = fleet.post(body)
    assert (first.status_code, first.json()) == (201, receipt)
    again = fleet.post(body, compressed=True)
    assert (again.status_code, again.json()) == (200, receipt | {"stored": False})

    summary = fleet.get(f"/episodes/{metadata.episode_id}").json()
    total = float(trajectory.reward.sum(dtype=np.float64))
    started = metadata.started_at.replace(microsecond=metadata.started_at.microsecond // 1000 * 1000)
    assert summary == {
        "episode_id": str(metadata.episode_id),
        "run": fleet.run,
        "worker": "worker-0",
        "role": "random",
        "policy_version": 0,
        "seed": 3,
        "ending": "truncated",
        "ending_reason": "time_limit",
        "exploration": "uniform",
        "stage": "",
        "drift_m": None,
        "integrator": "",
        "accuracy": 0.0,
        "steps": 30,
        "transitions": 30,
        "simulator_return": total,
        "learned_return": pytest.approx(total, rel=1e-6),
        "reward_terms": {"environment": pytest.approx(total)},
        "action_minimum": float(trajectory.action.min()),
        "action_maximum": float(trajectory.action.max()),
        "distance_m": None,
        "mean_speed_m_per_s": None,
        "initial_pose": None,
        "lowest_pelvis_m": None,
        "foot_contacts": None,
        "walked": None,
        "findings": [],
        "started_at": started.isoformat().replace("+00:00", "Z"),
        "stored_at": summary["stored_at"],
        "wall_seconds": 1.5,
        "content_bytes": len(body),
        "content_digest": content_digest(body),
        "origin": None,
    }
    assert fleet.get("/episodes").json() == {"episodes": [summary], "next_before": None}
    content = fleet.get(f"/episodes/{metadata.episode_id}/content", headers={"Accept-Encoding": "identity"})
    assert content.content == body
    packed = fleet.http.build_request("GET", f"{fleet.path}/episodes/{metadata.episode_id}/content")
    packed.headers["Accept-Encoding"] = "zstd"
    answer = fleet.http.send(packed, stream=True)
    assert codec.decompress(b"".join(answer.iter_raw()), limit_bytes=1 << 20) == body


def test_the_same_id_with_other_bytes_is_a_conflict(fleet: Fleet) -> None:
    episode = fleet.play(seed=1)
    assert fleet.post(episode).status_code == 201
    other = fleet.post(fleet.play(seed=2, episode_id=episode.metadata.episode_id))
    assert other.status_code == 409
    assert other.headers["content-type"] == "application/problem+json"
    assert other.json()["type"] == "urn:gaitfleet:problem:episode-differs"
    assert fleet.status()["episodes"] == {"random": 1}


def test_episodes_posted_at_once_are_each_answered_for_themselves(fleet: Fleet) -> None:
    stored = fleet.play()
    assert fleet.post(stored).status_code == 201
    other_bytes = fleet.play(seed=1, episode_id=stored.metadata.episode_id)
    new = [fleet.play(seed=2 + i) for i in range(30)]
    with ThreadPoolExecutor(len(new) + 2) as threads:
        answers = list(threads.map(fleet.post, [*new, stored, other_bytes]))
    assert [answer.status_code for answer in answers] == [201] * len(new) + [200, 409]
    held = {episode["episode_id"] for episode in fleet.get("/episodes").json()["episodes"]}
    assert held == {str(episode.metadata.episode_id) for episode in [stored, *new]}


def test_listing_is_filtered_and_paged_newest_first(fleet: Fleet) -> None:
    ids = []
    for seed in range(5):
        episode = fleet.play(seed=seed, worker=f"worker-{seed % 2}")
        ids.append(str(episode.metadata.episode_id))
        assert fleet.post(episode).status_code == 201
    page = fleet.get("/episodes", params={"limit": 3}).json()
    assert [episode["episode_id"] for episode in page["episodes"]] == ids[:1:-1]
    rest = fleet.get("/episodes", params={"limit": 3, "before": page["next_before"]}).json()
    assert [episode["episode_id"] for episode in rest["episodes"]] == ids[1::-1]
    assert rest["next_before"] is None
    odd = fleet.get("/episodes", params={"worker": "worker-1", "role": "random", "ending": "truncated"}).json()
    assert [episode["seed"] for episode in odd["episodes"]] == [3, 1]
    for alone, seeds in (({"worker": "worker-1"}, [3, 1]), ({"ending": "truncated"}, [4, 3, 2, 1, 0])):
        assert [episode["seed"] for episode in fleet.get("/episodes", params=alone).json()["episodes"]] == seeds
    assert fleet.get("/episodes", params={"policy_version": 7}).json()["episodes"] == []


def test_a_table_that_is_written_in_slices_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    table = {"step": np.arange(7), "reward": np.linspace(0, 1, 7), "a": np.full(7, 1 / 3, np.float32)}
    whole = [encode_table(table, form) for form in ("json", "csv")]
    rows = [list(row) for row in zip(*(column.tolist() for column in table.values()), strict=True)]
    assert json.loads(whole[0]) == {"columns": ["step", "reward", "a"], "rows": rows}
    monkeypatch.setattr("replay_api.services.timesteps.SLICE_VALUES", 6)
    assert [encode_table(table, form) for form in ("json", "csv")] == whole


def test_timesteps_come_as_json_csv_and_parquet(fleet: Fleet) -> None:
    episode = fleet.play(steps=5)
    fleet.post(episode)
    path = f"/episodes/{episode.metadata.episode_id}/timesteps"
    columns = ["step", "observation/0", "observation/1", "observation/2", "reward", "action/0"]
    asked = {"columns": "observation/*,reward,action/0"}
    state, action = episode.trajectory.state, episode.trajectory.action
    expected = [[t, *state[t].tolist(), float(episode.trajectory.reward[t]), float(action[t, 0])] for t in range(5)]

    assert fleet.get(path, params=asked).json() == {"columns": columns, "rows": expected}
    text = fleet.get(path, params=asked | {"format": "csv"}).text
    rows = list(csv.reader(io.StringIO(text)))
    assert rows[0] == columns
    assert [[float(value) for value in row] for row in rows[1:]] == expected
    parquet = fleet.get(path, params=asked | {"format": "parquet"}).content
    table = pyarrow.parquet.read_table(io.BytesIO(parquet))
    assert table.column_names == columns
    assert table["reward"].to_pylist() == [row[4] for row in expected]
    unknown = fleet.get(path, params={"columns": "speed"})
    assert (unknown.status_code, unknown.json()["detail"]) == (422, "no column fits 'speed'")


@pytest.mark.parametrize("observation", [{}, {"history": 2}, {"preset": "seed-1260"}], ids=str)
def test_a_prosthetics_episode_is_measured_sampled_and_tabulated(api: str, observation: dict[str, Any]) -> None:
    """412 state columns; decisions are held for 4 steps, so 42 steps are 11 decisions. Everything sampled and tabulated
    is what a worker would have seen, who knows only the steps until then."""
    experiment = experiment_of(task={"environment": "prosthetics", "round": 2, "observation": observation})
    with Fleet(api, experiment) as fleet:
        episode = fleet.play(steps=42)
        assert fleet.post(episode, compressed=True).json()["transitions"] == 11
        summary = fleet.get(f"/episodes/{episode.metadata.episode_id}").json()
        measured = fleet.task.measures(episode.trajectory)
        assert {name: summary[name] for name in measured} == measured
        terms = fleet.task.reward_terms(episode.trajectory)
        assert summary["reward_terms"] == {name: float(term.sum()) for name, term in terms.items()}
        (batch,) = fleet.batches(batch_size=64)
        decided = [*range(0, 42, 4)]
        task = make_task(experiment.task)
        state, target = episode.trajectory.state, episode.trajectory.target_velocity
        assert target is not None
        seen = [task.observe(state[: t + 1], target[: t + 1], np.array([t]))[0] for t in range(43)]
        observed = np.stack([seen[t] for t in (*decided, 42)])
        at = batch.index - batch.index.min()
        assert set(at) <= set(range(11))
        np.testing.assert_array_equal(batch.observation, observed[at])
        np.testing.assert_array_equal(batch.next_observation, observed[at + 1])
        path = f"/episodes/{episode.metadata.episode_id}/timesteps"
        table = fleet.get(path, params={"columns": "reward_term/*,learned_reward,observation/*"}).json()
        rows = np.array(table["rows"])
        expected = np.column_stack([range(42), *terms.values(), task.reward(episode.trajectory), np.stack(seen[:42])])
        np.testing.assert_array_equal(rows, expected)
        assert table["columns"][1 : 1 + len(terms)] == [f"reward_term/{name}" for name in terms]
        assert summary["learned_return"] == pytest.approx(rows[:, 1 + len(terms)].sum(), rel=1e-6)


def test_status_tells_what_is_stored_held_sampled_and_trained(fleet: Fleet) -> None:
    epoch = fleet.lease(progress={"updates": 5, "updates_per_second": 2.5}).json()["epoch"]
    fleet.post(fleet.play(seed=0))
    published = fleet.publish(7, epoch).json()
    train = [fleet.play(seed=seed, role="train", policy_version=7, exploration="sampled") for seed in (1, 2)]
    for episode in train:
        assert fleet.post(episode).status_code == 201
    fleet.batches(batches=2)
    report = {
        "role": "train",
        "simulators": 2,
        "policy_version": 7,
        "environment_steps": 60,
        "episodes": 2,
        "spooled": 0,
        "failures": {"watchdog": 1},
    }
    orders = {"stage": 0, "training_episodes": 3}
    assert fleet.http.put(f"{fleet.path}/workers/host-1", json=report).json() == orders

    status = fleet.status()
    RunStatus.model_validate(status)
    scores = [float(episode.trajectory.reward.sum(dtype=np.float64)) for episode in train]
    assert status["returns"]["train"] == {
        "episodes": 2,
        "mean_simulator_return": pytest.approx(sum(scores) / 2),
        "best_simulator_return": pytest.approx(max(scores)),
        "mean_learned_return": pytest.approx(sum(scores) / 2, rel=1e-5),
        "mean_steps": 30.0,
        "policy_version": 7,
        "walked_episodes": None,
    }
    expected = {
        "run": fleet.run,
        "episodes": {"random": 1, "train": 2},
        "environment_steps": 90,
        "environment_steps_per_second": 1.5,
        "transitions_held": 90,
        "transitions_capacity": 1000,
        "loading": False,
        "samples_per_insert": 32 / 80,
        "trainer": {"updates": 5, "updates_per_second": 2.5, "losses": {}, "device": "cpu"},
        "checkpoint": published,
        "checkpoints_published": 1,
        "failures": {"watchdog": 1},
        "rejected": {},
        "findings": {},
    }
    assert {name: status[name] for name in expected} == expected
    assert status["lease"]["epoch"] == epoch
    assert status["workers"][0] == report | {
        "worker": "host-1",
        "seconds_since_report": status["workers"][0]["seconds_since_report"],
    }
    assert status["limits"]["inserted"] == 90
    assert status["limits"]["sampled"] == 32


@pytest.mark.parametrize(
    "failures", [{"[/x]": 1}, {"\x1b[2J": 1}, {"process_died": -1}, {"process_died": 10**30}, {"x" * 51: 1}]
)
def test_a_worker_cannot_name_or_count_failures_so_that_a_status_cannot_be_shown(
    fleet: Fleet, failures: dict[str, int]
) -> None:
    counts = dict.fromkeys(("policy_version", "environment_steps", "episodes", "spooled"), 0)
    report = counts | {"role": "train", "simulators": 1, "failures": failures}
    answer = fleet.http.put(f"{fleet.path}/workers/w", json=report)
    assert (answer.status_code, answer.json()["field"].split(".")[0]) == (422, "failures")
    assert fleet.status()["failures"] == {}


def test_workers_join_leave_and_count_failures_over_restarts(fleet: Fleet) -> None:
    report = {
        "role": "train",
        "simulators": 1,
        "policy_version": 0,
        "environment_steps": 0,
        "episodes": 0,
        "spooled": 0,
    }
    for crashes in (2, 3, 1):  # the third report is of a worker that began anew
        fleet.http.put(f"{fleet.path}/workers/w", json=report | {"failures": {"exception": crashes}})
    assert fleet.status()["failures"] == {"exception": 4}
    for kind in map("".join, product("abcdefg", repeat=3)):  # whatever a worker calls its failures, they are bounded
        fleet.http.put(f"{fleet.path}/workers/w", json=report | {"failures": {kind: 1}})
    failures = fleet.status()["failures"]
    assert len(failures) <= 101
    assert sum(failures.values()) == 4 + 7**3
    assert fleet.http.delete(f"{fleet.path}/workers/w").status_code == 204
    assert fleet.status()["workers"] == []
    kinds = [event["kind"] for event in fleet.events()]
    assert kinds == ["run_started", "worker_joined", "worker_left"]


def test_events_are_read_on_from_a_sequence(fleet: Fleet) -> None:
    fleet.lease()
    events = fleet.events()
    assert [event["kind"] for event in events] == ["run_started", "lease_acquired"]
    later = fleet.get("/events", params={"after": events[0]["sequence"]}).json()["events"]
    assert later == events[1:]
    assert fleet.events("lease_acquired") == events[1:]


def test_evaluation_chooses_the_best_checkpoint(fleet: Fleet) -> None:
    epoch = fleet.lease().json()["epoch"]
    means = {}
    for step in (10, 20):
        assert fleet.publish(step, epoch).status_code == 201
        played = [fleet.play(seed=step + i, role="evaluate", policy_version=step) for i in range(2)]
        assert all(fleet.post(episode).status_code == 201 for episode in played)
        means[step] = float(np.mean([episode.trajectory.reward.sum(dtype=np.float64) for episode in played]))
    best = max(means, key=lambda step: means[step])
    listed = fleet.get("/checkpoints").json()
    assert (listed["newest"], listed["best"]) == (20, best)
    assert {info["step"]: info["evaluation_return"] for info in listed["checkpoints"]} == pytest.approx(means)
    policy = fleet.get("/policy", params={"head": "best"})
    assert policy.headers["x-policy-version"] == str(best)
    assert NumpyPolicy.from_bytes(policy.content).description.version == best
    finished = fleet.events("evaluation_finished")
    assert [event["data"]["policy_version"] for event in finished] == [10, 20]
    scores = [episode.trajectory.reward.sum(dtype=np.float64) for episode in played]
    assert finished[1]["data"] == pytest.approx(
        {
            "policy_version": 20,
            "episodes": 2,
            "mean_simulator_return": np.mean(scores),
            "deviation_simulator_return": np.std(scores),
            "mean_steps": 30,
        }
    )
    assert fleet.sample().status_code == 429  # evaluation episodes are never sampled


def test_limits_change_while_it_runs_and_for_good(fleet: Fleet) -> None:
    changed = fleet.http.patch(f"{fleet.path}/limits", json={"samples_per_insert": 2, "min_size": 40})
    assert changed.status_code == 200
    fleet.post(fleet.play())
    refused = fleet.sample()
    assert refused.status_code == 429
    assert refused.json()["detail"] == "30 transitions are inserted, min_size is 40"
    assert float(refused.headers["retry-after"]) >= 1
    fleet.post(fleet.play(seed=1))
    assert fleet.sample().status_code == 200
    wrong = fleet.http.patch(f"{fleet.path}/limits", json={"error_buffer": 3})
    assert (wrong.status_code, wrong.json()["field"]) == (422, "error_buffer")
    (event,) = fleet.events("limits_changed")
    assert event["data"] == {"samples_per_insert": 2.0, "min_size": 40}
    assert math.isclose(fleet.get("/limits").json()["error_buffer"], 100_000)


def test_priorities_are_set_and_foreign_ones_ignored(api: str) -> None:
    with Fleet(api, experiment_of(replay={"sampling": "prioritized"})) as fleet:
        fleet.post(fleet.play())
        (batch,) = fleet.batches(sampling="prioritized")
        index = [int(i) for i in dict.fromkeys(batch.index.tolist())]
        update = {"index": [*index, 5, index[0] - 10_000], "priority": [1.0] * (len(index) + 2)}
        answer = fleet.http.post(f"{fleet.path}/priorities", json=update)
        assert answer.json() == {"updated": len(index), "evicted": 2}
        for bad in (-1.0, "NaN"):
            refused = fleet.http.post(f"{fleet.path}/priorities", json={"index": [index[0]], "priority": [bad]})
            assert refused.status_code == 422
    with Fleet(api) as uniform:
        uniform.post(uniform.play())
        refused = uniform.sample(sampling="prioritized")
        assert (refused.status_code, refused.json()["field"]) == (422, "sampling")


def test_play_makes_episodes_that_keep_every_rule() -> None:
    """Guards the guards: the tests of refusals each break exactly one rule of such an episode."""
    for task in ({"environment": "gymnasium:Pendulum-v1"}, {"environment": "prosthetics", "round": 2}):
        made = make_task(experiment_of(task=task).task)
        assert play(made, "run").trajectory.steps == 30


def test_rollouts_wait_for_the_trainer_where_inserts_are_limited(api: str) -> None:
    """offset 80, error buffer 100: above a balance of 180 samples, which are 22 transitions, inserts are refused."""
    limited = {"limit_inserts": True, "error_buffer": 100}
    with Fleet(api, experiment_of(replay=limited)) as fleet:
        assert fleet.post(fleet.play(steps=30)).status_code == 201
        refused = fleet.post(fleet.play(seed=1))
        assert (refused.status_code, refused.json()["reason"]) == (429, "inserts_limited")
        assert float(refused.headers["retry-after"]) > 0
        fleet.batches(batches=10)
        assert fleet.post(fleet.play(seed=1)).status_code == 201
        evaluation = fleet.play(seed=2, role="evaluate")
        assert fleet.post(evaluation).status_code == 201  # evaluation does not count
