"""Every transition is counted and remembered once, whatever happens at the same time."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest

from replay_api.services import registry
from replay_api.services.following import Following
from replay_api.services.opening import Stores
from replay_api.services.recent import RecentKeys
from replay_api.settings import Settings
from replay_api.storage.episodes import EpisodeStore
from replay_api.storage.runs import RunRecord
from tests.conftest import serve
from tests.faults.observed import until
from tests.replay_api.fleet import Fleet, experiment_of

STEPS = 30


def counts(fleet: Fleet) -> tuple[int, int]:
    """Transitions that the limiter counts as inserted, and those in memory."""
    status = fleet.http.get(f"{fleet.path}/status").json()
    return status["limits"]["inserted"], status["transitions_held"]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replicas look far back all the time."""
    monkeypatch.setattr(registry, "LATE_INTERVAL_SECONDS", 0.0)


@pytest.mark.usefixtures("quick")
def test_an_episode_that_is_posted_twice_at_a_time_is_taken_in_once(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert, calls = EpisodeStore.insert, 0

    async def slow_at_first(store: EpisodeStore, *arguments: Any) -> bool:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0.5 if calls == 1 else 0.0)  # the second is the first to be stored
        return await insert(store, *arguments)

    monkeypatch.setattr(EpisodeStore, "insert", slow_at_first)
    with serve(settings) as url, Fleet(url) as fleet, ThreadPoolExecutor(2) as threads:
        episode = fleet.play(seed=1)
        answers = list(threads.map(lambda _: fleet.post(episode), range(2)))
        assert sorted(answer.json()["stored"] for answer in answers) == [False, True]
        time.sleep(1.0)
        assert counts(fleet) == (STEPS, STEPS)


@pytest.mark.usefixtures("quick")
def test_a_replica_that_opens_a_run_does_not_take_in_what_was_stored_before_it_fits(settings: Settings) -> None:
    small = experiment_of(replay={"capacity": 100, "min_size": 10})
    with serve(settings) as first, Fleet(first, small) as fleet:
        for seed in range(6):
            assert fleet.post(fleet.play(seed=seed)).status_code == 201
        with serve(settings) as second:
            fleet.reconnect(second)
            assert counts(fleet)[0] == 6 * STEPS
            time.sleep(1.0)
            assert counts(fleet) == (6 * STEPS, 3 * STEPS)


def test_what_is_deleted_while_a_run_is_opened_stays_counted(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = registry.prepared

    async def after_retention(record: RunRecord, stores: Stores, *others: Any) -> Any:
        if not record.deleted_transitions:  # another replica's
            run = record.description.run
            await stores.episodes.delete(run, await stores.episodes.oldest_training(run, 2))
        return await prepared(record, stores, *others)

    with serve(settings) as url, Fleet(url) as fleet:
        for seed in range(5):
            assert fleet.post(fleet.play(seed=seed)).status_code == 201
        monkeypatch.setattr(registry, "prepared", after_retention)
        with serve(settings) as second:
            fleet.reconnect(second)
            assert counts(fleet)[0] == 5 * STEPS


def test_a_run_that_is_opened_again_remembers_what_retention_has_deleted(settings: Settings) -> None:
    stages = {"curriculum": {"stages": [{"name": "first", "gate": {"mean_return": 1e6}}, {"name": "second"}]}}
    course = experiment_of(retention={"max_transitions": 1000}, replay={"capacity": 500}, **stages)
    with serve(settings) as first, Fleet(first, course) as fleet:
        for seed in range(40):
            assert fleet.post(fleet.play(seed=seed, stage="first")).status_code == 201
        until(lambda: len(fleet.get("/episodes", params={"limit": 100}).json()["episodes"]) <= 33, "none was deleted")
        with serve(settings) as second:
            before = fleet.status()
            fleet.reconnect(second)
            after = fleet.status()
    for name in ("episodes", "environment_steps", "stage"):
        assert after[name] == before[name]
    assert after["environment_steps"] == 40 * STEPS


def test_a_key_is_known_until_the_next_search_has_looked_back_however_long_the_last_one_took() -> None:
    recent = RecentKeys(seconds=0.1)
    began = time.monotonic()
    recent.add("taken in while a search ran")
    time.sleep(0.2)
    recent.expire(began)
    assert recent.keep(["taken in while a search ran"]) == []


async def test_a_replica_says_that_it_lives_while_it_waits_for_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replay_api.services.following.BEAT_SECONDS", 0.05)
    beats = 0

    class Replicas:
        async def beat(self, name: str) -> None:
            nonlocal beats
            beats += 1

    class Clock:
        async def ask(self) -> None:
            await asyncio.sleep(3600)

        def earliest(self) -> datetime:
            return datetime.now(UTC)

    unused: Any = None
    following = Following(Replicas(), unused, Clock(), 0)  # type: ignore[arg-type]
    tasks = [
        asyncio.ensure_future(following.search(unused, "new", 0)),
        asyncio.ensure_future(following.keep_announcing()),
    ]
    await asyncio.sleep(0.5)
    for task in tasks:
        task.cancel()
    assert beats >= 3
