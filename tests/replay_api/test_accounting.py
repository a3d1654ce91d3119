"""Every transition is counted and remembered once, whatever happens at the same time."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import urlsplit

import httpx
import pytest
from pymongo import MongoClient

from gaitfleet.wire import WorkerReport
from replay_api.constants import DATABASE_SECONDS
from replay_api.errors import UnavailableError
from replay_api.metrics import Metrics
from replay_api.services import loading, registry
from replay_api.services import tally as tally_module
from replay_api.services.counting import flush, flush_often
from replay_api.services.following import Following
from replay_api.services.open_run import Additions
from replay_api.services.opening import Stores
from replay_api.services.recent import RecentKeys
from replay_api.services.workers import WorkerBook
from replay_api.settings import Settings
from replay_api.storage import episodes
from replay_api.storage.episodes import EpisodeStore
from replay_api.storage.mongo import asking, connect
from replay_api.storage.runs import RunRecord, RunStore
from tests.conftest import serve
from tests.faults.observed import until
from tests.replay_api.fleet import Fleet, experiment_of

STEPS = 30


def counts(fleet: Fleet) -> tuple[int, int]:
    """Transitions that the limiter counts as inserted, and those in memory."""
    status = fleet.status()
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


def test_a_run_is_opened_though_another_replica_deletes_all_the_time(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = registry.prepared

    async def after_retention(record: RunRecord, stores: Stores, *others: Any) -> Any:
        run = record.description.run
        await stores.episodes.delete(run, await stores.episodes.oldest_training(run, 1))
        return await prepared(record, stores, *others)

    stages = {"curriculum": {"stages": [{"name": "first", "gate": {"mean_return": 1e6}}, {"name": "second"}]}}
    with serve(settings) as url, Fleet(url, experiment_of(**stages)) as fleet:
        for seed in range(20):
            assert fleet.post(fleet.play(seed=seed, stage="first")).status_code == 201
        before = fleet.status()
        monkeypatch.setattr(registry, "prepared", after_retention)
        with serve(settings) as second:
            fleet.reconnect(second)
            after = fleet.status()
            left = len(fleet.get("/episodes", params={"limit": 100}).json()["episodes"])
    assert left == 20 - registry.PREPARATIONS
    for name in ("episodes", "environment_steps", "stage"):
        assert after[name] == before[name]
    assert after["limits"]["inserted"] == 20 * STEPS


def test_a_run_is_opened_though_to_read_what_it_has_played_takes_longer_than_a_request_may_wait(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    @asynccontextmanager
    async def slow(what: str, *, seconds: float = DATABASE_SECONDS) -> AsyncIterator[None]:
        if seconds <= DATABASE_SECONDS and what != "read episodes":
            raise UnavailableError("it takes longer", reason="database", retry_after_seconds=1)
        async with asking(what, seconds=seconds):
            yield

    with serve(settings) as url, Fleet(url) as fleet:
        assert fleet.publish(10, fleet.lease().json()["epoch"]).status_code == 201
        for seed in range(3):
            assert fleet.post(fleet.play(seed=seed)).status_code == 201
        assert fleet.post(fleet.play(role="evaluate", policy_version=10, exploration="none")).status_code == 201
        before = fleet.status()
        monkeypatch.setattr(episodes, "asking", slow)
        with serve(settings) as second:
            fleet.reconnect(second)
            after = fleet.status()
    for name in ("episodes", "environment_steps", "environment_steps_per_second", "returns"):
        assert after[name] == before[name]


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


async def test_what_is_taken_in_while_a_long_search_runs_is_known_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    recent = RecentKeys(seconds=0.1)
    opened: Any = SimpleNamespace(recent=recent, unsettled=True, followed={}, planned_at=datetime.now(UTC))

    async def slow(*_: object) -> None:
        recent.add("taken in meanwhile")
        await asyncio.sleep(0.3)

    class Clock:
        async def ask(self) -> None:
            pass

        def earliest(self) -> datetime:
            return datetime.now(UTC)

    class Replicas:
        async def beats(self) -> dict[str, int]:
            return {}

    monkeypatch.setattr(loading, "follow", slow)
    unused: Any = None
    await Following(Replicas(), unused, Clock(), 0).search(opened, "new", 0)  # type: ignore[arg-type]
    assert recent.keep(["taken in meanwhile"]) == []


def test_a_replica_whose_look_at_a_run_hangs_goes_on_saying_that_it_lives(
    settings: Settings, mongodb_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hung = threading.Event()

    async def hang(*_: object) -> None:
        hung.set()
        await asyncio.sleep(3600)

    monkeypatch.setattr(registry.RunRegistry, "look", hang)
    with serve(settings) as url, Fleet(url) as fleet, MongoClient[dict[str, Any]](mongodb_uri) as client:
        assert fleet.post(fleet.play()).status_code == 201
        assert hung.wait(30)
        replicas = client[settings.mongodb_database]["replicas"]

        def beats() -> int:
            (replica,) = replicas.find()
            return int(replica["beats"])

        before = beats()
        until(lambda: beats() >= before + 2, "it is silent")


async def test_samples_are_counted_once_however_late_an_attempt_is_carried_out(settings: Settings) -> None:
    """A command may lie in a server that stands still while later ones are carried out."""
    client = connect(settings, Metrics())
    try:
        runs = RunStore(client[settings.mongodb_database])
        await client[settings.mongodb_database]["runs"].insert_one({"_id": "late", "counters": {"sampled": 0}})
        totals = [await runs.add_sampled("late", 100, by="a1", number=number) for number in (5, 5, 6, 5, 7)]
        totals += [await runs.add_sampled("late", 1, by="b2", number=number) for number in (1, 1)]
    finally:
        await client.drop_database(settings.mongodb_database)
        client.close()
    assert totals == [100, 100, 200, 200, 300, 301, 301]


def test_a_rate_that_nobody_asks_for_takes_no_memory() -> None:
    tally, began = tally_module.Tally({}), datetime.now(UTC)
    tracemalloc.start()
    for second in range(20_000):
        stored: Any = SimpleNamespace(role="train", stage="", steps=300, stored_at=began + timedelta(seconds=second))
        tally.count(stored)
    taken = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, tally_module.__file__)])
    tracemalloc.stop()
    assert 0 < sum(line.size for line in taken.statistics("lineno")) < 100_000
    assert tally.steps_per_second(stored.stored_at.timestamp()) == pytest.approx(300, rel=0.05)


def test_batches_that_are_granted_to_somebody_who_has_left_are_given_back(fleet: Fleet) -> None:
    request = json.dumps({"batches": 4, "batch_size": 16, "discount": 0.5, "wait_seconds": 20}).encode()
    with socket.create_connection(urlsplit(fleet.url).netloc.split(":")) as left:
        lines = f"POST {fleet.path}/batches HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json"
        left.sendall("\r\n".join([*lines, f"Content-Length: {len(request)}", "\r\n"]).encode() + request)
        until(lambda: fleet.get("/limits").json()["waiting_samplers"] == 1, "it does not wait")
    assert fleet.post(fleet.play()).status_code == 201
    until(lambda: fleet.get("/limits").json()["waiting_samplers"] == 0, "it waits still")
    until(lambda: fleet.get("/limits").json()["sampled"] == 0, "its samples are counted")
    assert fleet.batches(batches=2)
    assert fleet.get("/limits").json()["sampled"] == 32


async def test_what_was_sampled_is_written_to_the_end_when_a_run_closes(settings: Settings) -> None:
    """Also what was sampled while the database was away, after the addition whose outcome is not known."""

    class Runs:
        away = True
        total = 0

        async def add_sampled(self, run: str, transitions: int, *, by: str, number: int) -> int:
            if self.away:
                raise UnavailableError("the database did not answer", reason="database", retry_after_seconds=1)
            self.total += transitions
            return self.total

    runs, opened = (
        Runs(),
        SimpleNamespace(
            run="r",
            closing=asyncio.Event(),
            additions=Additions(),
            flushed=0,
            limiter=SimpleNamespace(sampled=100),
        ),
    )
    with pytest.raises(UnavailableError):
        await flush(cast(Any, opened), cast(Any, runs))
    opened.limiter.sampled += 5000
    runs.away = False
    opened.closing.set()
    await flush_often(cast(Any, opened), cast(Any, runs))
    assert runs.total == 5100


def test_replicas_count_each_episode_once_together(settings: Settings) -> None:
    def counted(url: str, run: str) -> dict[str, float]:
        lines = [line for line in httpx.get(f"{url}/metrics").text.splitlines() if f'run_id="{run}"' in line]
        named = ("rl_replay_inserted_", "rl_replay_insert_policy_lag_steps_count")
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line.startswith(named))}

    with serve(settings) as one, serve(settings) as other, Fleet(one) as fleet:
        for seed, url in enumerate((one, one, other)):
            fleet.reconnect(url)
            assert fleet.post(fleet.play(seed=seed)).status_code == 201
        for url in (one, other):
            fleet.reconnect(url)
            until(lambda: fleet.get("/limits").json()["inserted"] == 90, "the other's episodes are not followed")
        sums = Counter(counted(one, fleet.run)) + Counter(counted(other, fleet.run))
        run = f'run_id="{fleet.run}"'
        assert sums == {
            f"rl_replay_inserted_items_total{{{run}}}": 90,
            f'rl_replay_inserted_episodes_total{{role="random",{run}}}': 3,
            f'rl_replay_inserted_steps_total{{role="random",{run}}}': 90,
            f"rl_replay_insert_policy_lag_steps_count{{{run}}}": 3,
        }


def test_a_worker_that_was_frozen_and_comes_back_has_failed_no_more_often() -> None:
    book = WorkerBook()
    counts = dict.fromkeys(("policy_version", "environment_steps", "episodes", "spooled"), 0)
    report = WorkerReport(role="train", simulators=1, failures={"process_died": 3}, **counts)
    assert book.report("w", report)
    book.leave("w")
    assert book.report("w", report), "it joins again"
    assert book.failures == {"process_died": 3}


def test_a_scrape_counts_workers_and_describes_none(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    report = dict.fromkeys(("simulators", "policy_version", "environment_steps", "episodes", "spooled"), 1)
    for worker, role in (("a", "train"), ("b", "train"), ("c", "evaluate")):
        answer = fleet.http.put(f"{fleet.path}/workers/{worker}", json=report | {"role": role})
        assert answer.status_code == 200
    monkeypatch.delattr(WorkerBook, "statuses")  # some 50 microseconds each
    text = fleet.http.get("/metrics").text
    for role, workers in (("train", 2), ("evaluate", 1), ("random", 0)):
        assert f'rl_replay_workers{{role="{role}",run_id="{fleet.run}"}} {workers}.0' in text


def test_an_episode_whose_insertion_was_not_answered_counts_once(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert, failures = EpisodeStore.insert, [UnavailableError("no answer", reason="database", retry_after_seconds=1)]

    async def lose_first_answer(self: EpisodeStore, *arguments: Any) -> bool:
        stored = await insert(self, *arguments)
        if failures:
            raise failures.pop()
        return stored

    monkeypatch.setattr(EpisodeStore, "insert", lose_first_answer)
    with serve(settings) as url, Fleet(url) as fleet:
        episode = fleet.play()
        assert [fleet.post(episode).status_code for _ in range(3)] == [503, 200, 200]
        lines = fleet.http.get("/metrics").text.splitlines()
        assert f'rl_replay_inserted_episodes_total{{role="random",run_id="{fleet.run}"}} 1.0' in lines


def test_a_run_that_cannot_be_opened_in_advance_keeps_no_other_closed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve(settings) as url, Fleet(url) as small, Fleet(url) as huge:
        for fleet in (small, huge):  # listed newest first
            assert fleet.post(fleet.play()).status_code == 201
    plan = EpisodeStore.plan

    async def too_slow(self: EpisodeStore, run: str, *arguments: Any, **named: Any) -> Any:
        if run == huge.run:
            raise UnavailableError("the database did not answer", reason="database", retry_after_seconds=1)
        return await plan(self, run, *arguments, **named)

    monkeypatch.setattr(EpisodeStore, "plan", too_slow)
    with serve(settings) as url:
        ready = f'rl_replay_ready{{run_id="{small.run}"}} 1.0'
        until(lambda: ready in httpx.get(f"{url}/metrics").text, "it is not opened")
