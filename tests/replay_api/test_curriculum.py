"""A run goes from stage to stage when its gate is passed: once, with the evidence, and seen by all."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest

from gaitfleet.batch import FIELDS, Batch
from gaitfleet.episode import Episode
from gaitfleet.experiment import Experiment
from gaitfleet.task.stages import stage_tasks
from replay_api.errors import UnavailableError
from replay_api.services.event_log import EventLog
from replay_api.services.retelling import retold
from replay_api.services.transitions import transitions_of
from replay_api.settings import Settings
from tests.conftest import serve
from tests.replay_api.fleet import Fleet, experiment_of
from tests.replay_api.test_forks import WALKER, computed, rows, upright, wait_until_loaded

STAGES: list[dict[str, Any]] = [
    {
        "name": "planar",
        "gate": {"survival": {"share": 0.5, "steps": 40}, "mean_distance": 0.5, "max_environment_steps": 100_000},
    },
    {"name": "spatial", "task": {"model": "3D", "round": 2, "reward": {"preset": "mattias"}}},
]


def curriculum(*stages: dict[str, Any], **blocks: Any) -> Experiment:
    replay = {"min_size": 5, "samples_per_insert": 8} | blocks.pop("replay", {})
    chosen = list(stages or STAGES)
    return experiment_of(task=WALKER, replay=replay, curriculum={"stages": chosen}, **blocks)


class Walk(Fleet):
    """A run with a curriculum."""

    def __init__(self, url: str, experiment: Experiment | None = None) -> None:
        super().__init__(url, experiment or curriculum())
        self.tasks = stage_tasks(self.experiment)

    def episode(self, stage: str, *, distance_m: float = 0.0, **more: Any) -> Episode:
        """An upright episode of a stage, in which the pelvis goes so far."""
        playing = copy.copy(self)  # threads play in different stages
        playing.task = self.tasks[self.experiment.stage_names.index(stage)]
        episode = upright(playing, stage=stage, **more)
        x = playing.task.description.state_layout.index("body_pos/pelvis/x")
        episode.trajectory.state[:, x] = np.linspace(0, distance_m, episode.trajectory.steps + 1)
        return episode

    def evaluate(
        self, distance_m: float, *, version: int, stage: str = "planar", steps: int = 42, seed: int = 0
    ) -> int:
        known = {"role": "evaluate", "exploration": "none", "policy_version": version}
        return self.post(self.episode(stage, distance_m=distance_m, steps=steps, seed=seed, **known)).status_code

    def publish_step(self, step: int) -> None:
        assert self.publish(step, self.lease().json()["epoch"]).status_code == 201

    def stage(self) -> str:
        wait_until_loaded(self)
        return self.status()["stage"]["name"]

    def reports(self) -> dict[str, Any]:
        report = {"role": "train", "simulators": 1, "policy_version": 0, "environment_steps": 0, "episodes": 0}
        return self.http.put(f"{self.path}/workers/w", json=report | {"spooled": 0}).json()


@pytest.fixture
def walk(api: str) -> Iterator[Walk]:
    with Walk(api) as walk:
        yield walk


def test_evaluations_below_the_gate_do_not_move_the_run(walk: Walk) -> None:
    for version, (way, steps) in enumerate([(0.4, 42), (0.6, 39)], start=1):
        walk.publish_step(version)
        for seed in range(2):
            assert walk.evaluate(way, version=version, steps=steps, seed=seed) == 201
    walk.publish_step(3)
    walk.evaluate(2.0, version=3)  # an evaluation has two episodes
    assert walk.stage() == "planar"
    assert walk.reports()["stage"] == 0
    assert [event["data"]["stage"] for event in walk.events("stage_entered")] == ["planar"]


def test_what_policies_of_other_runs_can_do_passes_no_gate(walk: Walk) -> None:
    for seed in range(2):  # imported: of no policy of this run
        assert walk.evaluate(2.0, version=0, seed=seed) == 201
    assert walk.stage() == "planar"
    assert walk.events("evaluation_finished") == []


def test_a_gate_that_could_not_be_judged_is_when_the_episode_comes_again(
    walk: Walk, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest, failures = EventLog.newest, [UnavailableError("no answer", reason="database", retry_after_seconds=1)]

    async def fail_first(self: EventLog, *arguments: Any) -> Any:
        if failures:
            raise failures.pop()
        return await newest(self, *arguments)

    walk.publish_step(1)
    assert walk.evaluate(0.6, version=1, seed=0) == 201
    monkeypatch.setattr(EventLog, "newest", fail_first)
    known = {"role": "evaluate", "exploration": "none", "policy_version": 1}
    last = walk.episode("planar", distance_m=0.6, steps=42, seed=1, **known)
    assert [walk.post(last).status_code for _ in range(2)] == [503, 200]
    assert walk.stage() == "spatial"


def test_passing_the_gate_moves_the_run_and_samples_have_the_new_observation_and_reward(walk: Walk) -> None:
    """Old episodes are kept: cut, given targets and rewarded as the new stage would have done."""
    old = walk.episode("planar", seed=1)
    assert walk.post(old).status_code == 201
    before = rows(walk.batches(batch_size=256))
    assert before == computed(old, walk.tasks[0])
    walk.publish_step(1)
    for seed in range(2):
        assert walk.evaluate(0.6, version=1, seed=seed) == 201
    assert walk.stage() == "spatial"
    assert walk.reports()["stage"] == 1
    assert walk.lease().json()["stage"] == 1
    assert walk.get("").json()["stage"] == 1
    assert f'rl_curriculum_stage{{run_id="{walk.run}"}} 1.0' in walk.http.get("/metrics").text
    assert rows(walk.batches(batch_size=256)) == computed(retold(old, walk.tasks[1]), walk.tasks[1])

    late = walk.episode("planar", seed=2)  # was under way when the stage began
    new = walk.episode("spatial", seed=3)
    assert [walk.post(episode).status_code for episode in (late, new)] == [201, 201]
    expected = [computed(retold(episode, walk.tasks[1]), walk.tasks[1]) for episode in (old, late, new)]
    assert rows(walk.batches(batch_size=1024)) == expected[0] | expected[1] | expected[2]

    entered = walk.events("stage_entered")
    assert [event["data"]["stage"] for event in entered] == ["planar", "spatial"]
    evidence = entered[1]["data"]["evidence"]
    assert evidence["mean_distance"] == {"asked": 0.5, "measured": pytest.approx(0.6)}
    assert evidence["survival"] == {"asked": {"share": 0.5, "steps": 40}, "measured": 1.0}
    assert (evidence["policies"], evidence["episodes"]) == ([1], 2)
    summary = walk.get(f"/episodes/{new.metadata.episode_id}").json()
    assert (summary["stage"], summary["drift_m"] is None) == ("spatial", False)
    table = walk.get(f"/episodes/{late.metadata.episode_id}/timesteps", params={"columns": "reward_term/*"})
    assert table.status_code == 200  # by the task that it was played in


def test_scores_of_another_stage_do_not_make_the_best_checkpoint(walk: Walk) -> None:
    walk.publish_step(1)
    for seed in range(2):
        walk.evaluate(0.6, version=1, seed=seed)
    assert walk.stage() == "spatial"
    best = walk.get("/checkpoints").json()["best"]
    walk.publish_step(2)
    for seed in range(2):
        assert walk.evaluate(0.1, version=2, stage="spatial", seed=seed) == 201
    listed = walk.get("/checkpoints").json()
    assert (best, listed["best"]) == (1, 2)
    assert [info["evaluation_stage"] for info in listed["checkpoints"]] == ["spatial", "planar"]


def test_a_stage_may_end_by_its_steps_and_the_next_begin_with_an_empty_memory(api: str) -> None:
    """Nothing may be sampled before `min_size` new transitions, and nothing is owed for them then."""
    first = {"name": "a", "gate": {"max_environment_steps": 84}}
    experiment = curriculum(
        first,
        {"name": "b", "replay": "restart", "gate": {"max_environment_steps": 42}},
        {"name": "c", "task": {"reward": {"preset": "round1"}}},
        replay={"min_size": 15, "samples_per_insert": 8, "error_buffer": 32, "limit_inserts": True},
    )
    with Walk(api, experiment) as walk:
        for seed in range(2):
            walk.post(walk.episode("a", seed=seed))  # 22 decisions
        assert walk.stage() == "b"
        status = walk.status()
        assert (status["transitions_held"], status["limits"]["inserted"]) == (0, 22)
        assert "too few transitions" in walk.sample().json()["detail"]
        assert walk.post(walk.episode("a", seed=5)).status_code == 201  # a late one: counted, and not learned from
        new = [walk.episode("b", seed=seed, steps=20) for seed in (6, 7, 8)]
        for episode in new[:2]:
            assert walk.post(episode).status_code == 201  # 10 decisions
        assert walk.status()["limits"]["samples_allowed"] == 0
        assert walk.post(new[2]).status_code == 201
        assert walk.stage() == "c"  # 60 steps
        assert rows(walk.batches(batches=5, batch_size=32)).keys() == {
            key for episode in new for key in computed(episode, walk.tasks[2])
        }
        assert [event["data"]["index"] for event in walk.events("stage_entered")] == [0, 1, 2]


def test_a_share_of_every_batch_comes_from_the_stage_before_until_its_steps_are_over(settings: Settings) -> None:
    """Retold by the new stage; also what arrives late, in another replica, and after a restart."""
    stages = [
        {"name": "a", "gate": {"max_environment_steps": 42}},
        {"name": "b", "replay": "restart", "former": {"share": 0.25, "environment_steps": 80}, "task": {"model": "3D"}},
    ]
    stages[1]["task"]["ending"] = {"fall_height": 0.8}
    experiment = curriculum(*stages, replay={"min_size": 10})
    with serve(settings) as url, serve(settings) as second, Walk(url, experiment) as walk:
        old = [walk.episode("a", seed=1, lowest_m=0.75), walk.episode("a", seed=2)]  # the first one would have fallen
        assert walk.post(old[0]).status_code == 201
        assert walk.stage() == "b"
        assert walk.post(old[1]).status_code == 201  # a late one
        assert "too few transitions" in walk.sample().json()["detail"]  # `min_size` is of the new stage
        new = [walk.episode("b", seed=3)]
        assert walk.post(new[0]).status_code == 201
        other = copy.copy(walk)
        other.http = httpx.Client(base_url=second, timeout=30)
        wait_for(lambda: other.stage() == "b" and other.status()["transitions_held"] == 11)
        for at in (walk, other):
            source = at.status()["sources"][0]
            assert (source["name"], source["share"]) == ("former", 0.25)
            wait_for(lambda at=at: at.status()["sources"][0]["transitions_held"] > 11)
            batches = at.batches(batches=8, batch_size=128)
            assert all(batch.sources == {"run": 96, "former": 32} for batch in batches)
            own, beside = (rows([part(batch, where) for batch in batches]) for where in (slice(96), slice(96, None)))
            assert own == computed(new[0], walk.tasks[1])
            retold_rows = [computed(retold(episode, walk.tasks[1]), walk.tasks[1]) for episode in old]
            assert len(retold_rows[0]) < 11
            assert beside == retold_rows[0] | retold_rows[1]
            text = at.http.get("/metrics").text
            assert f'rl_replay_batch_share_ratio{{run_id="{walk.run}",source="former"}} 0.25' in text
        other.http.close()
    with serve(settings) as url:
        walk.reconnect(url)
        wait_until_loaded(walk)
        (batch,) = walk.batches(batch_size=128)
        assert batch.sources == {"run": 96, "former": 32}
        assert walk.post(walk.episode("b", seed=4)).status_code == 201  # 84 steps
        assert walk.status()["sources"] == []
        (batch,) = walk.batches(batch_size=128)
        assert batch.sources == {}
        assert rows([batch]).keys().isdisjoint(retold_rows[1])
    with serve(settings) as url:
        walk.reconnect(url)
        wait_until_loaded(walk)
        assert (walk.status()["sources"], walk.status()["transitions_held"]) == ([], 22)
        walk.http.close()


def part(batch: Batch, where: slice) -> Batch:
    return replace(batch, **{name: getattr(batch, name)[where] for name in FIELDS}, sources={})


def test_the_reward_goes_linearly_from_one_stage_into_the_next_by_its_steps(settings: Settings) -> None:
    """Of every transition that is held, whenever it was recorded; and the gate waits until it is there."""
    stages = [
        {"name": "a", "gate": {"max_environment_steps": 42}},
        {
            "name": "b",
            "task": {"round": 2, "reward": {"preset": "mattias", "scale": 1}},
            "blend_environment_steps": 160,
            "gate": {"mean_distance": 0.5},
        },
        {"name": "c"},
    ]

    def expected(walk: Walk, episodes: list[Episode], weight: float) -> dict[bytes, float]:
        blended = {}
        for episode in episodes:
            told = retold(episode, walk.tasks[1])
            made = transitions_of(told, walk.tasks[1])
            before = transitions_of(
                replace(told, trajectory=replace(told.trajectory, target_velocity=None)), walk.tasks[0]
            )
            mixed = np.float32(weight) * made.reward + np.float32(1 - weight) * before.reward
            blended |= {row.tobytes(): float(r) for row, r in zip(made.observation, mixed, strict=False)}
        return blended

    def sampled(walk: Walk) -> dict[bytes, float]:
        (batch,) = walk.batches(batch_size=1024)
        return {row.tobytes(): float(r) for row, r in zip(batch.observation, batch.reward, strict=True)}

    with serve(settings) as url:
        walk = Walk(url, curriculum(*stages))
        episodes = [walk.episode("a", seed=1)]
        assert walk.post(episodes[0]).status_code == 201
        assert walk.stage() == "b"
        assert sampled(walk) == expected(walk, episodes, 0.0)
        episodes.append(walk.episode("b", seed=2, steps=40))
        assert walk.post(episodes[1]).status_code == 201
        assert walk.status()["stage"]["reward_weight"] == 0.25
        assert sampled(walk) == expected(walk, episodes, 0.25)
        walk.publish_step(1)
        for seed in range(2):
            walk.evaluate(0.6, version=1, stage="b", seed=seed)
        assert walk.stage() == "b"
    with serve(settings) as url:
        walk.reconnect(url)
        wait_until_loaded(walk)
        assert sampled(walk) == expected(walk, episodes, 0.25)
        for seed in (3, 4, 5):
            episodes.append(walk.episode("b", seed=seed, steps=40))
            assert walk.post(episodes[-1]).status_code == 201
        assert sampled(walk) == expected(walk, episodes, 1.0)
        walk.evaluate(0.6, version=1, stage="b", seed=9)
        assert walk.stage() == "c"
        walk.http.close()


@pytest.mark.parametrize("gate", [{"min_environment_steps": 50}, {"policies": 2}])
def test_a_gate_can_ask_for_more_steps_or_more_policies(api: str, gate: dict[str, Any]) -> None:
    stages = [STAGES[0] | {"gate": {"mean_distance": 0.5} | gate}, STAGES[1]]
    with Walk(api, curriculum(*stages)) as walk:
        for version in (1, 2):
            assert walk.stage() == "planar"
            walk.post(walk.episode("planar", seed=version))
            walk.publish_step(version)
            for seed in range(2):
                walk.evaluate(0.6, version=version, seed=seed)
        assert walk.stage() == "spatial"


@pytest.mark.parametrize(
    ("stage", "words"),
    [("spatial", "the run is in 'planar': it cannot be from the future"), ("lunar", "the run has 'planar', 'spatial'")],
)
def test_an_episode_of_a_stage_that_is_not_there_is_refused(walk: Walk, stage: str, words: str) -> None:
    episode = walk.episode("planar" if stage == "lunar" else stage)
    metadata = episode.metadata.model_copy(update={"stage": stage})
    answer = walk.post(Episode(metadata, episode.trajectory))
    assert (answer.status_code, answer.json()["field"]) == (422, "stage")
    assert words in answer.json()["detail"]


def test_two_replicas_move_a_run_once_and_both_sample_the_new_stage(settings: Settings) -> None:
    with serve(settings) as first, serve(settings) as second, Walk(first) as walk:
        other = copy.copy(walk)
        other.http = httpx.Client(base_url=second, timeout=30)
        old = walk.episode("planar", seed=1)
        walk.post(old)
        walk.publish_step(1)
        posts = [
            threading.Thread(target=lambda at=at, seed=seed: at.evaluate(0.6, version=1, seed=seed))
            for seed, at in enumerate([walk, other] * 4)
        ]
        for post in posts:
            post.start()
        for post in posts:
            post.join()
        wait_for(lambda: walk.stage() == other.stage() == "spatial")
        expected = computed(retold(old, walk.tasks[1]), walk.tasks[1])
        assert rows(walk.batches(batch_size=256)) == rows(other.batches(batch_size=256)) == expected
        assert [event["data"]["stage"] for event in walk.events("stage_entered")] == ["planar", "spatial"]
        assert other.post(other.episode("spatial", seed=4)).status_code == 201
        wait_for(lambda: walk.status()["transitions_held"] == 22)
        other.http.close()


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_posts_while_the_stage_changes_are_neither_lost_nor_doubled(settings: Settings) -> None:
    """And a restart afterwards finds the same."""
    stages = [{"name": name, "gate": {"max_environment_steps": 200}} for name in ("a", "b", "c")]
    experiment = curriculum(*stages, {"name": "d", "task": {"reward": {"preset": "round1"}}}, replay={"capacity": 5000})
    with serve(settings) as url:
        walk = Walk(url, experiment)
        kept: list[int] = []

        def post(number: int) -> None:
            with httpx.Client(base_url=url, timeout=30) as client:
                for seed in range(12):
                    stage = client.get(walk.path).json()["stage"]
                    episode = walk.episode(experiment.stage_names[stage], seed=1000 * number + seed, steps=20)
                    mine = copy.copy(walk)
                    mine.http = client
                    assert mine.post(episode).status_code == 201
                    kept.append(5)

        threads = [threading.Thread(target=post, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(kept) == 48

        def whole() -> bool:
            status = walk.status()
            held = status["transitions_held"] == status["limits"]["inserted"] == sum(kept)
            return bool(held and status["episodes"] == {"random": 48} and status["stage"]["name"] == "d")

        wait_for(whole, 40)
    with serve(settings) as url:
        walk.reconnect(url)
        wait_until_loaded(walk)
        assert whole()
        walk.http.close()
