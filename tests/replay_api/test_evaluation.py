"""An evaluation counts once: every seed of it, and its end."""

from __future__ import annotations

from typing import Any

import pytest

from replay_api.errors import UnavailableError
from replay_api.services.evaluation import Evaluations
from replay_api.settings import Settings
from tests.conftest import serve
from tests.faults.observed import until
from tests.replay_api.fleet import Fleet


def evaluated(fleet: Fleet) -> tuple[int, int]:
    """Evaluation episodes of the newest checkpoint, and how often its evaluation has ended."""
    (newest,) = fleet.get("/checkpoints").json()["checkpoints"]
    return newest["evaluation_episodes"], len(fleet.events("evaluation_finished"))


def evaluation(fleet: Fleet, seed: int, policy_version: int = 10) -> Any:
    return fleet.play(seed=seed, role="evaluate", policy_version=policy_version, exploration="none")


def test_seeds_that_an_evaluator_plays_again_are_not_counted_again(fleet: Fleet) -> None:
    fleet.publish(10, fleet.lease().json()["epoch"])
    for _ in range(3):  # it was started again
        assert fleet.post(evaluation(fleet, seed=5)).status_code == 201
    assert evaluated(fleet) == (1, 0)
    assert fleet.post(evaluation(fleet, seed=6)).status_code == 201
    assert evaluated(fleet) == (2, 1)
    assert fleet.post(evaluation(fleet, seed=6)).status_code == 201
    assert evaluated(fleet) == (2, 1)


def test_the_evaluation_of_a_policy_that_is_no_longer_kept_ends_once(fleet: Fleet) -> None:
    def kept() -> set[int]:
        return {checkpoint["step"] for checkpoint in fleet.get("/checkpoints").json()["checkpoints"]}

    epoch = fleet.lease().json()["epoch"]
    for step in (10, 20, 30, 40):
        fleet.publish(step, epoch)
    until(lambda: 20 not in kept(), "none was deleted")
    last = evaluation(fleet, seed=6, policy_version=20)
    repeated = [last, last, evaluation(fleet, seed=6, policy_version=20)]
    for episode in (evaluation(fleet, seed=5, policy_version=20), *repeated):
        assert fleet.post(episode).is_success
    (ended,) = fleet.events("evaluation_finished")
    assert (ended["data"]["policy_version"], ended["data"]["episodes"]) == (20, 2)


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
