"""An evaluation counts once: every seed of it, and its end."""

from __future__ import annotations

from typing import Any

import pytest

from replay_api.errors import UnavailableError
from replay_api.services.evaluation import Evaluations
from replay_api.settings import Settings
from tests.conftest import serve
from tests.replay_api.fleet import Fleet


def evaluated(fleet: Fleet) -> tuple[int, int]:
    """Evaluation episodes of the newest checkpoint, and how often its evaluation has ended."""
    (newest,) = fleet.http.get(f"{fleet.path}/checkpoints").json()["checkpoints"]
    return newest["evaluation_episodes"], len(fleet.events("evaluation_finished"))


def evaluation(fleet: Fleet, seed: int) -> Any:
    return fleet.play(seed=seed, role="evaluate", policy_version=10, exploration="none")


def test_seeds_that_an_evaluator_plays_again_are_not_counted_again(fleet: Fleet) -> None:
    fleet.publish(10, fleet.lease().json()["epoch"])
    for _ in range(3):  # it was started again
        assert fleet.post(evaluation(fleet, seed=5)).status_code == 201
    assert evaluated(fleet) == (1, 0)
    assert fleet.post(evaluation(fleet, seed=6)).status_code == 201
    assert evaluated(fleet) == (2, 1)
    assert fleet.post(evaluation(fleet, seed=6)).status_code == 201
    assert evaluated(fleet) == (2, 1)


def test_an_episode_that_was_stored_but_not_noted_is_noted_when_it_is_posted_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    note, failures = Evaluations.note, 1

    async def fail_first(self: Evaluations, *arguments: Any) -> None:
        nonlocal failures
        if failures:
            failures -= 1
            raise UnavailableError("the database did not answer", reason="database", retry_after_seconds=1)
        await note(self, *arguments)

    with serve(settings) as url, Fleet(url) as fleet:
        fleet.publish(10, fleet.lease().json()["epoch"])
        assert fleet.post(evaluation(fleet, seed=5)).status_code == 201
        monkeypatch.setattr(Evaluations, "note", fail_first)
        last = evaluation(fleet, seed=6)
        assert fleet.post(last).status_code == 503
        assert evaluated(fleet) == (1, 0)
        assert fleet.post(last).status_code == 200
        assert evaluated(fleet) == (2, 1)
        assert fleet.post(last).status_code == 200
        assert evaluated(fleet) == (2, 1)
