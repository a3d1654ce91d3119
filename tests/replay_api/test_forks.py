"""A fork learns from the stored episodes of another run, with its own observation, reward and ending."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from gaitfleet.batch import Batch
from gaitfleet.command import app
from gaitfleet.episode import Episode
from gaitfleet.experiment import Experiment
from gaitfleet.task import Task, make_task
from replay_api.services.transitions import transitions_of
from tests.conftest import serve
from tests.replay_api.fleet import Fleet, experiment_of

WALKER: dict[str, Any] = {
    "environment": "prosthetics",
    "model": "2D",
    "round": 1,
    "reward": {"preset": "walk"},
    "ending": {"fall_height": 0.7},
}
REPLAY = {"min_size": 5, "samples_per_insert": 8}


def walker(**task: Any) -> Experiment:
    return experiment_of(task=WALKER | task, replay=REPLAY)


def upright(fleet: Fleet, *, seed: int = 0, steps: int = 42, lowest_m: float = 0.9, **metadata: Any) -> Episode:
    """Rows of noise, but the pelvis sinks evenly from 0.95 m to `lowest_m`."""
    episode = fleet.play(seed=seed, steps=steps, **metadata)
    state = episode.trajectory.state.copy()
    column = fleet.task.description.state_layout.index("body_pos/pelvis/y")
    state[:, column] = np.linspace(0.95, lowest_m, steps + 1)
    return replace(episode, trajectory=replace(episode.trajectory, state=state))


def fork(fleet: Fleet, experiment: Experiment, *, run: str | None = None, **more: Any) -> httpx.Response:
    name = run or f"{fleet.run}-fork"
    body = {"run": name, "experiment": experiment.model_dump(mode="json")} | more
    return fleet.http.post(f"{fleet.path}/forks", json=body)


def forked(fleet: Fleet, experiment: Experiment, **more: Any) -> Fleet:
    """A fork that was accepted, on the same connection."""
    answer = fork(fleet, experiment, **more)
    assert answer.status_code == 201, answer.text
    child = Fleet.__new__(Fleet)
    run = answer.json()["run"]
    child.__dict__.update(fleet.__dict__ | {"run": run, "path": f"/v1/runs/{run}", "experiment": experiment})
    child.task = make_task(experiment.task)
    wait_until_loaded(child)
    return child


def wait_until_loaded(fleet: Fleet) -> None:
    deadline = time.monotonic() + 60
    while fleet.status()["loading"]:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def rows(batches: list[Batch]) -> dict[bytes, tuple[bytes, ...]]:
    """Sampled transitions by their observation."""
    names = ("action", "reward", "next_observation", "discount")
    return {
        batch.observation[i].tobytes(): tuple(getattr(batch, name)[i].tobytes() for name in names)
        for batch in batches
        for i in range(len(batch.index))
    }


def computed(episode: Episode, task: Task, discount: float = 0.5) -> dict[bytes, tuple[bytes, ...]]:
    """The same, computed from the raw states alone."""
    made = transitions_of(episode, task)
    rest = np.full(len(made), discount, np.float32)
    rest[-1] = 0 if made.terminated else discount
    return {
        made.observation[i].tobytes(): (
            made.action[i].tobytes(),
            made.reward[i].tobytes(),
            made.observation[i + 1].tobytes(),
            rest[i].tobytes(),
        )
        for i in range(len(made))
    }


@pytest.fixture
def fleet(api: str) -> Iterator[Fleet]:
    with Fleet(api, walker()) as fleet:
        yield fleet


def test_a_fork_samples_old_episodes_with_the_new_observation_and_reward(fleet: Fleet) -> None:
    """Bit for bit what the new task makes of the raw states; also after a generation more, and beside own episodes."""
    episode = upright(fleet, seed=1)
    fleet.post(episode)
    fleet.post(upright(fleet, seed=9, role="evaluate", exploration="none"))
    child = forked(fleet, walker(observation={"preset": "official-160"}, reward={"preset": "run_fastest", "scale": 1}))
    expected = computed(episode, child.task)
    assert rows(child.batches(batch_size=256)) == expected
    assert expected.keys().isdisjoint(computed(episode, fleet.task))

    own = upright(child, seed=2)
    assert child.post(own).status_code == 201
    grandchild = forked(child, walker(reward={"preset": "mattias"}))
    sampled = rows(grandchild.batches(batch_size=512))
    assert sampled == computed(episode, grandchild.task) | computed(own, grandchild.task)
    assert [parent["run"] for parent in grandchild.get("").json()["parents"]] == [child.run, fleet.run]

    fleet.post(upright(fleet, seed=3))  # stored after the forks were made: not theirs
    assert child.status()["transitions_held"] == 22
    assert child.get("/episodes").json()["episodes"][0]["episode_id"] == str(own.metadata.episode_id)
    kinds = [event["kind"] for event in child.events() if event["kind"] != "episode_finding"]  # rows of noise
    assert kinds == ["run_started", "episodes_inherited", "run_forked"]
    (event,) = fleet.events("run_forked")
    assert event["data"]["into"] == child.run


def test_the_ending_is_judged_by_the_new_rules(fleet: Fleet) -> None:
    """What was a fall at 0.7 m goes on at 0.6 m; at 0.8 m the episode ends where it sinks below that."""
    fell = upright(fleet, seed=4, lowest_m=0.69, ending="terminated", ending_reason="fall", role="random")
    fleet.post(fell)
    lower = forked(fleet, walker(ending={"fall_height": 0.6}), run=f"{fleet.run}-lower")
    (batch,) = lower.batches(batch_size=256)
    assert set(batch.discount.tolist()) == {0.5}
    higher = forked(fleet, walker(ending={"fall_height": 0.8}), run=f"{fleet.run}-higher")
    sampled = rows(higher.batches(batch_size=256))
    heights = fell.trajectory.state[:, fleet.task.description.state_layout.index("body_pos/pelvis/y")]
    steps = int(np.argmax(heights < 0.8))  # steps until the first row below
    cut = replace(
        fell.trajectory,
        state=fell.trajectory.state[: steps + 1],
        **{name: getattr(fell.trajectory, name)[:steps] for name in ("action", "reward", "decision")},
    )
    assert steps < 30
    assert sampled == computed(replace(fell, trajectory=cut), higher.task)


def test_an_episode_without_a_target_gets_that_of_its_seed(fleet: Fleet) -> None:
    episode = upright(fleet, seed=5)
    fleet.post(episode)
    child = forked(fleet, walker(round=2, reward={"preset": "round2"}))
    targets = child.task.target_velocities(5)
    assert targets is not None
    with_targets = replace(episode, trajectory=replace(episode.trajectory, target_velocity=targets[:43]))
    assert rows(child.batches(batch_size=256)) == computed(with_targets, child.task)


def test_the_pace_follows_new_experience_unless_samples_are_allowed_for_the_old(fleet: Fleet) -> None:
    for seed in range(3):
        fleet.post(upright(fleet, seed=seed))  # 33 decisions
    quiet = experiment_of(task=WALKER, replay=REPLAY | {"error_buffer": 32}, algorithm={"batch_size": 32})
    child = forked(fleet, quiet, run=f"{fleet.run}-a")
    limits = child.get("/limits").json()
    assert (limits["inserted"], limits["inherited"], limits["samples_allowed"]) == (0, 33, 32)
    child.post(upright(child))
    assert child.get("/limits").json()["samples_allowed"] == 32 + 11 * 8
    eager = forked(fleet, quiet, run=f"{fleet.run}-b", samples_per_inherited=4)
    assert eager.get("/limits").json()["samples_allowed"] == 32 + 33 * 4


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ({"prosthetic": False}, "the state layout was 412 columns"),
        ({"action": {"limits": {"vasti_l": [0.1, 0.9]}}}, "vasti_l could be 0 when it was recorded"),
        ({"action": {"bins": 3}}, "no decision gives that, the nearest gives 0.5"),
        ({"action": {"repeat": 5}}, "decisions were held for 4 steps, here for 5"),
        ({"environment": "gymnasium:Pendulum-v1"}, "it was prosthetics, here it is gymnasium:Pendulum-v1"),
        ({"reward": {"weights": {"aliev": 1}}}, "aliev"),
    ],
)
def test_a_fork_that_could_not_be_learned_from_is_refused(fleet: Fleet, task: dict[str, Any], words: str) -> None:
    other = task if "environment" in task else WALKER | task
    answer = fork(fleet, experiment_of(task=other))
    assert answer.status_code == 422
    assert words in answer.json()["detail"]
    assert fleet.http.get(f"/v1/runs/{fleet.run}-fork").status_code == 404


def test_a_name_that_is_taken_and_a_run_that_is_not_there_are_refused(fleet: Fleet) -> None:
    assert fork(fleet, walker(), run=fleet.run).status_code == 409
    assert fork(fleet, walker()).status_code == 201
    assert fork(fleet, walker()).status_code == 200  # the same again: an attempt whose answer was lost
    assert fork(fleet, walker(round=2)).status_code == 409
    missing = fleet.http.post("/v1/runs/nowhere/forks", json={"run": "x", "experiment": {}})
    assert missing.json()["type"] == "urn:gaitfleet:problem:run-not-found"


def test_a_fork_is_the_same_after_a_restart(settings: Any) -> None:
    with serve(settings) as url:
        fleet = Fleet(url, walker())
        fleet.post(upright(fleet, seed=1))
        child = forked(fleet, walker(reward={"preset": "round1"}), samples_per_inherited=2)
        before, limits = rows(child.batches(batch_size=256)), child.get("/limits").json()
    with serve(settings) as url:
        child.reconnect(url)
        wait_until_loaded(child)
        again = child.get("/limits").json()
        assert (again["inherited"], again["credit"]) == (limits["inherited"], limits["credit"]) == (11, 62.0)
        assert rows(child.batches(batch_size=256)) == before
        child.http.close()
    fleet.http.close()


def test_the_command_creates_forks_lists_and_shows_runs(fleet: Fleet, tmp_path: Path) -> None:
    fleet.post(upright(fleet))

    def gaitfleet(*arguments: str) -> str:
        result = CliRunner().invoke(app, ["run", *arguments, "--url", fleet.url], env={"COLUMNS": "250"})
        assert result.exit_code == 0, result.output
        return result.output

    file = tmp_path / "new.yaml"
    file.write_text("task: {model: 2D, reward: {preset: round1}}")
    new = f"{fleet.run}-new"
    assert gaitfleet("fork", fleet.run, new, "--experiment", str(file)).endswith("with 11 inherited transitions\n")
    assert f"created {new}-b (experiment " in gaitfleet("create", f"{new}-b", "--experiment", "pendulum")
    (line,) = [line for line in gaitfleet("list").splitlines() if line.startswith(f"{new} ")]
    assert line.split()[-1] == fleet.run
    shown = yaml.safe_load(gaitfleet("show", new))
    assert shown["experiment"]["task"]["reward"]["preset"] == "round1"
    assert shown["parents"][0]["run"] == fleet.run
    taken = CliRunner().invoke(app, ["run", "fork", new, fleet.run, "--experiment", str(file), "--url", fleet.url])
    assert (taken.exit_code, "choose another id" in taken.output) == (1, True)
