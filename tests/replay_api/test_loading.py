"""What the database holds comes into the memory once, and what cannot be learned from keeps nothing else out."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from replay_api.services.memory import Memory
from replay_api.settings import Settings
from tests.conftest import serve
from tests.faults.observed import until
from tests.replay_api.fleet import Fleet, experiment_of
from tests.replay_api.test_forks import wait_until_loaded

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
