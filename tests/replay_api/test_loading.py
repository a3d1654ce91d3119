"""What the database holds comes into the memory once, and what cannot be learned from keeps nothing else out."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from replay_api.services import loading
from replay_api.services.memory import Memory
from replay_api.settings import Settings
from tests.conftest import serve
from tests.faults.observed import until
from tests.replay_api.fleet import Fleet, experiment_of
from tests.replay_api.test_forks import forked, wait_until_loaded

STEPS = 30


def test_an_episode_of_the_stage_before_that_arrives_while_a_run_is_opened_is_held_once(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = [
        {"name": "a", "gate": {"max_environment_steps": 30}},
        {"name": "b", "replay": "restart", "former": {"share": 0.25, "environment_steps": 1000}},
    ]
    sources = Memory.sources
    with serve(settings) as url, Fleet(url, experiment_of(curriculum={"stages": stages})) as fleet:
        assert fleet.post(fleet.play(seed=1, stage="a")).status_code == 201
        until(lambda: fleet.status()["stage"]["name"] == "b", "the stage did not begin")
        late = [fleet.play(seed=2, stage="a")]

        async def after_another(*arguments: Any) -> Any:
            """Between the listing of the run's own episodes and that of the stage before."""
            if late:
                assert (await asyncio.to_thread(fleet.post, late.pop())).status_code == 201
            return await sources(*arguments)

        monkeypatch.setattr(Memory, "sources", after_another)
        with serve(settings) as second, Fleet(second) as other:
            other.run, other.path = fleet.run, fleet.path
            wait_until_loaded(other)
            until(lambda: other.status()["episodes"] == {"random": 2}, "the late one is not counted")
            (source,) = other.status()["sources"]
            assert source["transitions_held"] == 2 * STEPS


def test_a_stored_episode_that_becomes_infinite_in_another_task_is_not_sampled(api: str) -> None:
    with Fleet(api) as fleet:
        episodes = [fleet.play(seed=seed) for seed in range(3)]
        episodes[1].trajectory.reward[4] = 10.0
        for episode in episodes:
            assert fleet.post(episode).status_code == 201
        child = forked(fleet, experiment_of(task={"reward_scale": 5e37}))
        assert child.status()["transitions_held"] == 2 * STEPS
        (batch,) = child.batches(batch_size=256)
        assert np.isfinite(batch.reward).all()
        assert corrupt(child) == 1


def test_an_episode_of_another_replica_that_cannot_be_read_is_counted_and_keeps_no_other_out(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve(settings) as first, Fleet(first) as fleet, serve(settings) as second, Fleet(second) as other:
        other.run, other.path = fleet.run, fleet.path
        wait_until_loaded(other)
        fail_once(monkeypatch)
        for seed in range(3):
            assert fleet.post(fleet.play(seed=seed)).status_code == 201
        until(lambda: other.status()["transitions_held"] == 2 * STEPS, "the others are not in memory")
        status = other.status()
        assert (status["episodes"], status["limits"]["inserted"]) == ({"random": 3}, 3 * STEPS)
        assert corrupt(other) == 1


def test_a_stored_episode_that_cannot_be_loaded_keeps_no_other_out(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve(settings) as url, Fleet(url) as fleet:
        for seed in range(3):
            assert fleet.post(fleet.play(seed=seed)).status_code == 201
    fail_once(monkeypatch)
    with serve(settings) as url:
        fleet.reconnect(url)
        wait_until_loaded(fleet)
        assert fleet.status()["transitions_held"] == 2 * STEPS
        assert corrupt(fleet) == 1
        fleet.http.close()


def fail_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the next stored episode that is read fail."""
    read, failures = loading.read_transitions, [RuntimeError("nobody has thought of this")]

    def fail_first(*arguments: Any) -> Any:
        if failures:
            raise failures.pop()
        return read(*arguments)

    monkeypatch.setattr(loading, "read_transitions", fail_first)


def corrupt(fleet: Fleet) -> float:
    """Stored episodes that could not be learned from, as this replica counts them."""
    name = f'rl_replay_corrupt_episodes_total{{run_id="{fleet.run}"}} '
    (line,) = [line for line in fleet.http.get("/metrics").text.splitlines() if line.startswith(name)]
    return float(line.removeprefix(name))
