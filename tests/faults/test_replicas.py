"""Several replicas of the API on one database: they share a run, one dies, all are replaced."""

from __future__ import annotations

import asyncio
import copy
import statistics
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import httpx
import numpy as np
import pytest
from pydantic import SecretStr

from gaitfleet.batch import decode_batches
from gaitfleet.client import ReplayClient
from gaitfleet.errors import ApiUnavailableError, LimitedError
from gaitfleet.wire import BatchRequest
from replay_api.errors import UnavailableError
from replay_api.metrics import Metrics
from replay_api.services.recent import RecentKeys
from replay_api.settings import Settings
from replay_api.storage.episodes import EpisodeStore
from replay_api.storage.group_insert import GroupInsert
from replay_api.storage.mongo import Database, DatabaseClock, connect
from tests.conftest import serve
from tests.faults.observed import until
from tests.relay import Relay, Service
from tests.replay_api.fleet import Fleet, experiment_of
from tests.replay_api.test_durability import Posters, check
from tests.servers import ApiServer


def through(fleet: Fleet, url: str) -> Fleet:
    """The same run through another replica."""
    other = copy.copy(fleet)
    other.url, other.http = url, httpx.Client(base_url=url, timeout=30)
    return other


def test_what_was_stored_while_a_replica_could_not_look_is_found_afterwards(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long that was: here it is longer than both searches look back."""
    monkeypatch.setattr("replay_api.services.registry.FOLLOW_OVERLAP_SECONDS", 0.1)
    monkeypatch.setattr("replay_api.services.registry.LATE_OVERLAP_SECONDS", 0.2)
    monkeypatch.setattr("replay_api.services.registry.LATE_INTERVAL_SECONDS", 0.1)
    port, away = int(settings.mongodb_uri.get_secret_value().rpartition(":")[2]), False
    with Relay(lambda: None if away else port) as relay:
        uri = SecretStr(f"mongodb://127.0.0.1:{relay.port}/?directConnection=true")
        behind = settings.model_copy(update={"mongodb_uri": uri})
        with serve(settings) as first, serve(behind) as second, Fleet(first) as fleet:
            other = through(fleet, second)
            fleet.post(fleet.play(seed=1))
            until(lambda: other.status()["limits"]["inserted"] == 30, "the other replica does not follow")
            away = True
            relay.cut()
            for seed in range(2, 5):
                assert fleet.post(fleet.play(seed=seed)).status_code == 201
            time.sleep(2.0)
            away = False
            until(lambda: other.status()["limits"]["inserted"] == 120, "episodes were missed")
            assert other.status()["transitions_held"] == 120
            other.http.close()


def test_an_episode_that_a_majority_has_late_is_learned_from_all_the_same(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replica set whose secondaries lag for longer than both searches look back: the primary keeps an episode, says
    that it could not be acknowledged, and shows it when the secondaries have caught up."""
    monkeypatch.setattr("replay_api.services.registry.FOLLOW_OVERLAP_SECONDS", 0.1)
    monkeypatch.setattr("replay_api.services.registry.LATE_OVERLAP_SECONDS", 0.5)
    monkeypatch.setattr("replay_api.services.registry.LATE_INTERVAL_SECONDS", 0.1)
    monkeypatch.setattr("replay_api.storage.mongo.CLOCK_SECONDS", 0.0)
    lagging, behind = threading.Event(), datetime.now(UTC)
    write, keys_since, ask = GroupInsert._write, EpisodeStore.keys_since, DatabaseClock.ask

    async def unacknowledged(self: GroupInsert, group: list[Any]) -> dict[int, Exception]:
        failures = await write(self, group)
        if lagging.is_set():
            raise UnavailableError("the database did not store the episode (WTimeoutError)", reason="database")
        return failures

    async def of_the_majority(self: EpisodeStore, *arguments: Any) -> list[str]:
        return [] if lagging.is_set() else await keys_since(self, *arguments)

    async def told(self: DatabaseClock) -> None:
        await ask(self)
        self._settled = behind if lagging.is_set() else self.now()

    monkeypatch.setattr(GroupInsert, "_write", unacknowledged)
    monkeypatch.setattr(EpisodeStore, "keys_since", of_the_majority)
    monkeypatch.setattr(DatabaseClock, "ask", told)
    with serve(settings) as url, Fleet(url) as fleet:
        assert fleet.post(fleet.play(seed=1)).status_code == 201
        behind = datetime.now(UTC)
        lagging.set()
        episode = fleet.play(seed=2)
        assert fleet.post(episode).status_code == 503
        time.sleep(2.0)
        lagging.clear()
        assert fleet.post(episode).status_code == 200
        until(lambda: fleet.status()["limits"]["inserted"] == 60, "it never comes to memory", seconds=20.0)
        assert fleet.status()["transitions_held"] == 60


async def test_the_clock_does_not_go_beyond_what_a_majority_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replay_api.storage.mongo.CLOCK_SECONDS", 0.0)
    began = datetime.now(UTC).replace(microsecond=0)

    class ReplicaSet:
        answer: dict[str, Any] = {}  # noqa: RUF012

        async def command(self, name: str) -> dict[str, Any]:
            return {"localTime": datetime.now(UTC)} | self.answer

    server = ReplicaSet()
    clock = DatabaseClock(cast(Database, server))
    for server.answer, earliest in (
        ({}, None),
        ({"lastWrite": {"majorityWriteDate": began - timedelta(minutes=9)}}, began - timedelta(minutes=9)),
        ({"lastWrite": {"majorityWriteDate": began + timedelta(minutes=9)}}, None),
    ):
        await clock.ask()
        assert abs(clock.earliest() - (earliest or datetime.now(UTC))) < timedelta(seconds=5)
        assert abs(clock.now() - datetime.now(UTC)) < timedelta(seconds=5)


def test_a_key_is_known_for_as_long_as_it_is_found() -> None:
    """A clock that is set back makes stored episodes new again and again."""
    recent = RecentKeys(seconds=0.0)
    assert recent.add("a")
    assert recent.add("b")
    assert recent.keep(["a", "c"]) == ["c"]
    recent.expire(time.monotonic())
    assert recent.keep(["a", "b"]) == ["a", "b"]
    lasting = RecentKeys(seconds=0.2)
    lasting.add("a")
    for _ in range(5):
        time.sleep(0.1)
        assert lasting.keep(["a"]) == []
        lasting.expire(time.monotonic())


async def test_after_a_jump_of_the_databases_clock_both_times_are_searched_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Some replicas have not noticed, and still write the time of before."""
    monkeypatch.setattr("replay_api.storage.mongo.CLOCK_SECONDS", 0.0)
    true = datetime.now(UTC)

    class Set:
        ahead = timedelta(0)

        async def command(self, name: str) -> dict[str, Any]:
            return {"localTime": datetime.now(UTC) + self.ahead}

    server = Set()
    clock = DatabaseClock(cast(Database, server))
    await clock.ask()
    assert abs(clock.now() - true) < timedelta(minutes=1)
    for ahead, earliest in ((timedelta(hours=1), timedelta(0)), (timedelta(hours=-1), timedelta(hours=-1))):
        server.ahead = ahead
        await clock.ask()
        assert abs(clock.now() - true - ahead) < timedelta(minutes=1)
        assert abs(clock.earliest() - true - earliest) < timedelta(minutes=1)
    server.ahead = timedelta(hours=1)
    for _ in range(3):
        await clock.ask()
    assert abs(clock.earliest() - clock.now()) < timedelta(minutes=1)


async def test_the_clock_is_right_in_any_time_zone(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        clock = DatabaseClock(connect(settings, Metrics())["test"])
        await clock.ask()
        assert abs(clock.now() - datetime.now(UTC)) < timedelta(minutes=1)
        assert abs(clock.earliest() - datetime.now(UTC)) < timedelta(minutes=1)
    finally:
        monkeypatch.undo()
        time.tzset()


async def test_slow_answers_do_not_move_the_databases_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replay_api.storage.mongo.CLOCK_SECONDS", 0.0)

    class Busy:
        seconds = 0.0

        async def command(self, name: str) -> dict[str, Any]:
            told = datetime.now(UTC)
            await asyncio.sleep(self.seconds)
            return {"localTime": told}

    server = Busy()
    clock = DatabaseClock(cast(Database, server))
    for server.seconds in (0.0, 0.4, 0.2):
        await clock.ask()
        assert abs(clock.now() - datetime.now(UTC)) < timedelta(milliseconds=50)


@pytest.mark.faults
def test_an_episode_posted_to_one_is_sampled_from_the_other_within_a_second(settings: Settings) -> None:
    experiment = experiment_of(replay={"error_buffer": 1e9})
    with serve(settings) as first, serve(settings) as second, Fleet(first, experiment) as fleet:
        other = through(fleet, second)
        seconds = []
        for seed in range(1, 9):
            episode = fleet.play(seed=seed)
            assert fleet.post(episode).status_code == 201
            began, rewards = time.monotonic(), episode.trajectory.reward
            while True:
                answer = other.sample(batch_size=512)
                if answer.status_code == 200 and np.isin(rewards, decode_batches(answer.content)[0].reward).any():
                    break
                assert time.monotonic() < began + 30, "it is never sampled"
            seconds.append(time.monotonic() - began)
        other.http.close()
    assert statistics.median(seconds) < 1.0, seconds


@pytest.mark.faults
def test_the_limiter_holds_across_replicas(settings: Settings) -> None:
    """Each knows of the other's samples within two seconds; what both granted meanwhile is owed, not forgotten."""
    experiment = experiment_of(replay={"samples_per_insert": 8, "error_buffer": 512, "capacity": 100_000})
    with serve(settings) as first, serve(settings) as second, Fleet(first, experiment) as fleet:
        other = through(fleet, second)
        stop, granted = threading.Event(), [0, 0]

        def sample(number: int, url: str) -> None:
            request = BatchRequest(batch_size=16, discount=0.9, wait_seconds=0.2)
            with ReplayClient(url, run=fleet.run) as client:
                while not stop.is_set():
                    try:
                        granted[number] += 16 * len(decode_batches(client.sample_batches(request)))
                    except LimitedError:
                        stop.wait(0.1)

        samplers = [threading.Thread(target=sample, args=pair) for pair in enumerate((first, second))]
        for sampler in samplers:
            sampler.start()
        for seed in range(40):
            assert (fleet if seed % 2 else other).post(fleet.play(seed=seed)).status_code == 201
            time.sleep(0.2)
        time.sleep(4.0)
        stop.set()
        for sampler in samplers:
            sampler.join()
        inserted = 40 * 30
        allowed = (inserted - experiment.replay.min_size) * 8 + 512
        of_two_seconds = 2.5 / 0.2 * 30 * 8
        assert allowed - 16 <= sum(granted) <= allowed + of_two_seconds
        assert min(granted) > 0

        def counted() -> list[tuple[int, int]]:
            limits = [one.get("/limits").json() for one in (fleet, other)]
            return [(one["inserted"], one["sampled"]) for one in limits]

        deadline = time.monotonic() + 30
        while counted() != [(inserted, sum(granted))] * 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert counted() == [(inserted, sum(granted))] * 2
        assert fleet.sample().status_code == other.sample().status_code == 429
        other.http.close()


@pytest.mark.faults
def test_the_lease_holds_across_replicas(settings: Settings) -> None:
    with serve(settings) as first, serve(settings) as second, Fleet(first) as fleet:
        other = through(fleet, second)
        epoch = fleet.lease("trainer-a", ttl_seconds=3).json()["epoch"]
        assert other.lease("trainer-b").status_code == 409
        assert other.publish(10, epoch).status_code == 201
        assert fleet.publish(10, epoch, fleet.checkpoint(10, seed=1)).status_code == 409
        until(lambda: other.lease("trainer-b").status_code == 200, "a lease that was not renewed does not end")
        assert fleet.lease("trainer-a").status_code == 409
        assert fleet.publish(20, epoch).status_code == 409
        assert fleet.publish(20, epoch + 1).status_code == 201
        until(lambda: other.get("/policy").headers["x-policy-version"] == "20", "the head is not followed")
        other.http.close()


@pytest.fixture
def replicas(mongodb_uri: str, tmp_path: Path) -> Iterator[tuple[Service, list[ApiServer]]]:
    """Two processes behind a Service."""
    settings = {"mongodb_uri": mongodb_uri, "mongodb_database": f"test-{uuid.uuid4().hex[:12]}"}
    with ExitStack() as stack:
        apis = []
        for _ in range(2):
            apis.append(ApiServer(tmp_path, settings))
            stack.callback(apis[-1].kill)
        yield stack.enter_context(Service([api.port for api in apis])), apis


class Samplers(threading.Thread):
    """One trainer that samples, and counts what arrived whole."""

    def __init__(self, url: str, run: str) -> None:
        super().__init__()
        self.sampled = self.requests = self.failed = 0
        self.stopping = threading.Event()
        self._client = ReplayClient(url, run=run, attempts=1, timeout_seconds=15)
        self.start()

    def run(self) -> None:
        request = BatchRequest(batches=4, batch_size=64, discount=0.9, wait_seconds=0.5)
        with self._client as client:
            while not self.stopping.is_set():
                try:
                    self.sampled += 64 * len(decode_batches(client.sample_batches(request)))
                    self.requests += 1
                except LimitedError:
                    self.stopping.wait(0.05)
                except ApiUnavailableError:
                    self.failed += 1
                    self.stopping.wait(0.05)

    def stop(self) -> None:
        self.stopping.set()
        self.join(60)


@pytest.mark.faults
def test_when_a_replica_dies_its_clients_go_on_with_the_other(replicas: tuple[Service, list[ApiServer]]) -> None:
    service, apis = replicas
    until(lambda: len(service.ready) == 2, "the replicas are not ready")
    with Fleet(service.url, experiment_of(replay={"capacity": 200_000, "error_buffer": 1e9})) as fleet:
        posters, samplers = Posters(fleet), Samplers(service.url, fleet.run)
        until(lambda: len(posters.acknowledged) > 40 and samplers.requests > 20, "nothing goes on")
        apis[0].kill()
        acknowledged, requests = len(posters.acknowledged), samplers.requests
        until(
            lambda: len(posters.acknowledged) > acknowledged + 40 and samplers.requests > requests + 20,
            "clients do not go on",
        )
        posters.stop()
        samplers.stop()
        fleet.reconnect(apis[1].url)
        check(fleet, posters)


@pytest.mark.faults
def test_a_rolling_restart_under_load_loses_nothing(replicas: tuple[Service, list[ApiServer]]) -> None:
    """Each replica leaves the Service, then gets SIGTERM, as on Kubernetes; counts are exact, for nothing crashed."""
    service, apis = replicas
    until(lambda: len(service.ready) == 2, "the replicas are not ready")
    with Fleet(service.url, experiment_of(replay={"capacity": 200_000, "error_buffer": 1e9})) as fleet:
        posters, samplers = Posters(fleet), Samplers(service.url, fleet.run)
        until(lambda: len(posters.acknowledged) > 20 and samplers.requests > 20, "nothing goes on")
        for api in apis * 2:
            service.leave(api.port)
            assert api.process is not None
            api.process.terminate()
            assert api.process.wait(30) == 0
            api.start()
            service.join(api.port)
            acknowledged, requests = len(posters.acknowledged), samplers.requests
            until(lambda: len(posters.acknowledged) > acknowledged, "posts do not go on")  # noqa: B023
            until(lambda: samplers.requests > requests, "samples do not go on")  # noqa: B023
        posters.stop()
        samplers.stop()
        assert samplers.failed <= len(apis) * 2  # a connection that was idle when it was closed
        for api in apis:
            fleet.reconnect(api.url)
            check(fleet, posters)
            until(lambda: fleet.get("/limits").json()["sampled"] == samplers.sampled, "samples are not counted exactly")
