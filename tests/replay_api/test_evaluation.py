"""An evaluation counts once: every seed of it, and its end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pymongo import MongoClient

from replay_api.errors import UnavailableError
from replay_api.services.evaluation import Evaluations
from replay_api.settings import Settings
from replay_api.storage.episodes import EpisodeStore
from replay_api.storage.runs import RunStore
from tests.conftest import serve
from tests.faults.observed import until
from tests.faults.test_replicas import through
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

    async def fail_first(self: Evaluations, *arguments: Any, **named: Any) -> None:
        nonlocal failures
        if failures:
            failures -= 1
            raise UnavailableError("the database did not answer", reason="database", retry_after_seconds=1)
        await note(self, *arguments, **named)

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


def slowed(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, *, before: bool) -> Callable[[], bool]:
    """Let the first call of a coroutine method take a second more, before or after its work; whether it waits."""
    method, calls, waits = getattr(owner, name), 0, threading.Event()

    async def pause() -> None:
        waits.set()
        await asyncio.sleep(1.0)

    async def slow(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        first = calls == 1
        if first and before:
            await pause()
        result = await method(*arguments)
        if first and not before:
            await pause()
        return result

    monkeypatch.setattr(owner, name, slow)
    return waits.is_set


def test_a_replica_that_has_counted_fewer_episodes_undoes_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve(settings) as first, serve(settings) as second, Fleet(first) as fleet, ThreadPoolExecutor() as threads:
        fleet.publish(10, fleet.lease().json()["epoch"])
        other = through(fleet, second)
        assert other.status()["checkpoint"]["step"] == 10
        reads = slowed(monkeypatch, EpisodeStore, "evaluated", before=False)
        late = threads.submit(fleet.post, evaluation(fleet, seed=5))
        until(reads, "the first is not noted")
        assert other.post(evaluation(fleet, seed=6)).status_code == 201
        assert late.result().status_code == 201
        assert evaluated(fleet) == (2, 1)
        assert fleet.get("/checkpoints").json()["best"] == 10
        with MongoClient[dict[str, Any]](settings.mongodb_uri.get_secret_value()) as client:
            (run,) = client[settings.mongodb_database]["runs"].find({"_id": fleet.run})
        assert run["head"]["evaluation_episodes"] == 2
        other.http.close()


def test_a_choice_of_the_best_that_comes_late_does_not_last(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve(settings) as first, serve(settings) as second, Fleet(first) as fleet, ThreadPoolExecutor() as threads:
        epoch = fleet.lease().json()["epoch"]
        for step in (10, 20):
            assert fleet.publish(step, epoch).status_code == 201
        other = through(fleet, second)
        assert other.status()["checkpoint"]["step"] == 20
        scores = {seed: float(fleet.play(seed=seed).trajectory.reward.sum()) for seed in range(4)}
        by_score = sorted(scores, key=lambda seed: scores[seed])
        worse, better = by_score[:2], by_score[2:]
        assert fleet.post(evaluation(fleet, worse[0])).status_code == 201
        chooses = slowed(monkeypatch, RunStore, "set_best", before=True)
        late = threads.submit(fleet.post, evaluation(fleet, worse[1]))
        until(chooses, "10 does not become the best")
        for seed in better:
            assert other.post(evaluation(fleet, seed, policy_version=20)).status_code == 201
        assert fleet.get("/checkpoints").json()["best"] == 20
        assert late.result().status_code == 201
        assert fleet.get("/checkpoints").json()["best"] == 20
        other.http.close()
