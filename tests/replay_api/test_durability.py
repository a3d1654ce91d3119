"""What is acknowledged survives kill -9, of the API and of the database: real processes, concurrent posts."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pymongo import MongoClient

from gaitfleet.episode import encode_episode
from gaitfleet.experiment import Experiment
from replay_api.services import following, loading
from replay_api.settings import Settings
from tests.conftest import serve
from tests.faults.observed import until
from tests.replay_api.fleet import Fleet, experiment_of
from tests.replay_api.test_forks import wait_until_loaded
from tests.servers import ApiServer, Database


class Posters:
    """Threads that post episodes and, as a worker does, post the same again until it is answered."""

    def __init__(self, fleet: Fleet, threads: int = 4) -> None:
        self.acknowledged: dict[str, int] = {}
        self.refused: list[str] = []
        self._fleet = fleet
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._post, args=(number,)) for number in range(threads)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def _post(self, number: int) -> None:
        seed = number * 100_000
        with httpx.Client(base_url=self._fleet.url, timeout=15) as client:
            while not self._stop.is_set():
                seed += 1
                episode = self._fleet.play(seed=seed, steps=1 + seed % 50, worker=f"poster-{number}")
                body = encode_episode(episode)
                while True:  # also after the stop: what was sent is seen through
                    try:
                        answer = client.post(f"{self._fleet.path}/episodes", content=body)
                    except httpx.TransportError:
                        time.sleep(0.05)
                        continue
                    if answer.status_code in (200, 201):
                        self.acknowledged[str(episode.metadata.episode_id)] = answer.json()["transitions"]
                        break
                    if answer.status_code != 503:
                        self.refused.append(answer.text)
                        break
                    time.sleep(0.1)


@pytest.fixture
def large() -> Experiment:
    return experiment_of(replay={"capacity": 200_000})


def stored(fleet: Fleet) -> list[dict[str, object]]:
    """Every stored episode."""
    found: list[dict[str, object]] = []
    before: dict[str, str] = {}
    while True:
        page = fleet.get("/episodes", params={"limit": 1000} | before).json()
        found += page["episodes"]
        if page["next_before"] is None:
            return found
        before = {"before": page["next_before"]}


def check(fleet: Fleet, posters: Posters) -> None:
    """Nothing acknowledged is lost, nothing is there twice, and what can be sampled is what is stored."""
    assert posters.refused == []
    assert len(posters.acknowledged) > 20
    episodes = stored(fleet)
    ids = [str(episode["episode_id"]) for episode in episodes]
    assert len(ids) == len(set(ids))
    assert posters.acknowledged.keys() <= set(ids)
    assert len(ids) - len(posters.acknowledged) <= 0  # every post was seen through, so no other can be there
    transitions = sum(posters.acknowledged.values())
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        status = fleet.status()
        if not status["loading"] and status["transitions_held"] == transitions:
            break
        time.sleep(0.2)
    assert status["transitions_held"] == transitions
    assert status["limits"]["inserted"] == transitions
    assert status["episodes"] == {"random": len(ids)}


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(tmp_path)
    yield made
    made.kill()


def test_kill_9_of_the_api_loses_and_doubles_nothing(tmp_path: Path, database: Database, large: Experiment) -> None:
    api = ApiServer(tmp_path, {"mongodb_uri": database.uri, "mongodb_database": "durability"})
    try:
        with Fleet(api.url, large) as fleet:
            posters = Posters(fleet)
            for _ in range(3):
                time.sleep(1.0)
                api.kill()
                api.start()
            time.sleep(0.5)
            posters.stop()
            check(fleet, posters)
            api.kill()
            api.start()  # and once more from nothing but the database
            check(fleet, posters)
    finally:
        api.kill()


def test_kill_9_of_the_database_loses_and_doubles_nothing(
    tmp_path: Path, database: Database, large: Experiment
) -> None:
    api = ApiServer(tmp_path, {"mongodb_uri": database.uri, "mongodb_database": "durability"})
    try:
        with Fleet(api.url, large) as fleet:
            posters = Posters(fleet)
            for _ in range(3):
                time.sleep(1.0)
                database.kill()
                time.sleep(0.2)
                database.start()
                api.wait_until_ready()
            time.sleep(0.5)
            posters.stop()
            check(fleet, posters)
    finally:
        api.kill()


def test_a_database_that_is_away_is_told_within_ten_seconds(settings: Settings, tmp_path: Path) -> None:
    database = Database(tmp_path)
    with serve(settings.model_copy(update={"mongodb_uri": _secret(database.uri)})) as url, Fleet(url) as fleet:
        fleet.post(fleet.play(seed=1))
        database.kill()
        calls: dict[str, Callable[[], httpx.Response]] = {
            "post": lambda: fleet.post(fleet.play(seed=2)),
            "list": lambda: fleet.get("/episodes"),
            "lease": fleet.lease,
        }
        for name, call in calls.items():
            began = time.monotonic()
            answer = call()
            assert answer.status_code == 503, name
            assert answer.json()["type"] == "urn:gaitfleet:problem:unavailable"
            assert answer.headers["retry-after"] == "2"
            assert time.monotonic() - began < 10
        assert fleet.http.get("/health/live").status_code == 200
        assert fleet.http.get("/health/ready").status_code == 503
        assert fleet.sample().status_code == 200  # what is in memory can be learned from meanwhile


def _secret(text: str) -> object:
    from pydantic import SecretStr

    return SecretStr(text)


def test_counters_and_transitions_survive_a_restart(settings: Settings) -> None:
    """The rebuilt memory gives the same transitions as the one before it."""
    with serve(settings) as url:
        fleet = Fleet(url)
        for seed in range(6):
            assert fleet.post(fleet.play(seed=seed, steps=20 + seed)).status_code == 201
        (before,) = fleet.batches(batch_size=4096, n_step=3)
        limits = fleet.get("/limits").json()
    with serve(settings) as url:
        fleet.reconnect(url)
        wait_until_loaded(fleet)
        (after,) = fleet.batches(batch_size=4096, n_step=3)
        again = fleet.get("/limits").json()
        status = fleet.status()
    fleet.http.close()
    assert (again["inserted"], again["sampled"]) == (limits["inserted"], limits["sampled"] + 4096)
    assert status["episodes"] == {"random": 6}
    assert status["environment_steps"] == 135
    assert status["returns"]["random"]["episodes"] == 6
    assert after.index.min() > before.index.max()  # an index of before the restart cannot be mistaken
    names = ("observation", "action", "reward", "discount", "next_observation", "policy_version")
    rows = [
        {tuple(bytes(getattr(batch, name)[i].tobytes()) for name in names) for i in range(4096)}
        for batch in (before, after)
    ]
    assert len(rows[0]) == 135
    assert rows[0] == rows[1]


def test_a_run_of_a_version_that_knew_fewer_settings_goes_on_with_its_file(settings: Settings) -> None:
    with serve(settings) as url, Fleet(url) as fleet:
        run = fleet.run
    with MongoClient[dict[str, Any]](settings.mongodb_uri.get_secret_value()) as client:
        runs = client[settings.mongodb_database]["runs"]
        document = runs.find_one({"_id": run})
        assert document is not None
        experiment = json.loads(document["experiment"])
        del experiment["exploration"], experiment["replay"]["sampling"]
        runs.update_one({"_id": run}, {"$set": {"experiment": json.dumps(experiment)}})
    with serve(settings) as url:
        fleet.reconnect(url)
        assert fleet.create().status_code == 200
        assert fleet.http.put(fleet.path, json={"seed": 7}).status_code == 409
        fleet.http.close()


def test_a_run_that_another_version_has_made_takes_no_other_along(settings: Settings) -> None:
    with serve(settings) as url, Fleet(url) as readable, Fleet(url) as other:
        runs: Any = MongoClient(settings.mongodb_uri.get_secret_value())[settings.mongodb_database]["runs"]
        runs.update_one({"_id": other.run}, {"$set": {"experiment": '{"of": "tomorrow"}'}})
        listed = [run["run"] for run in readable.http.get("/v1/runs").json()]
        assert (readable.run in listed, other.run in listed) == (True, False)
        assert other.get("").status_code == 500


def test_two_replicas_share_one_run(settings: Settings) -> None:
    """Episodes, heads, limits and counters of one are seen by the other within seconds."""
    with serve(settings) as first, serve(settings) as second, Fleet(first) as fleet:
        other = Fleet.__new__(Fleet)
        other.__dict__.update(fleet.__dict__)
        other.http = httpx.Client(base_url=second, timeout=30)
        assert other.status()["transitions_held"] == 0
        fleet.post(fleet.play())
        epoch = fleet.lease().json()["epoch"]
        fleet.publish(10, epoch)
        assert other.post(fleet.play(seed=5, role="train", policy_version=10)).status_code == 201  # asks the database
        etag = other.get("/policy", params={"wait": 10}).headers["etag"]
        assert etag == fleet.get("/policy").headers["etag"]
        fleet.http.patch(f"{fleet.path}/limits", json={"min_size": 20})
        fleet.batches(batches=3)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            seen = other.status()
            if seen["transitions_held"] == 60 and seen["limits"]["sampled"] == 48:
                break
            time.sleep(0.2)
        assert seen["transitions_held"] == 60
        assert seen["episodes"] == {"random": 1, "train": 1}
        assert seen["limits"]["min_size"] == 20
        assert (seen["limits"]["inserted"], seen["limits"]["sampled"]) == (60, 48)
        other.http.close()


def test_limits_that_two_replicas_change_at_a_time_go_together(settings: Settings) -> None:
    """The second is held against what the first has changed, however lately, and what is owed changes once."""
    few = experiment_of(replay={"error_buffer": 2000, "samples_per_insert": 8})
    with (
        serve(settings) as first,
        serve(settings) as second,
        Fleet(first, few) as fleet,
        httpx.Client(base_url=second, timeout=30) as other,
    ):
        assert other.get(f"{fleet.path}/limits").json()["samples_per_insert"] == 8
        fleet.post(fleet.play())
        until(lambda: other.get(f"{fleet.path}/limits").json()["inserted"] == 30, "the other does not follow")
        allowed = fleet.get("/limits").json()["samples_allowed"]
        assert fleet.http.patch(f"{fleet.path}/limits", json={"samples_per_insert": 500}).status_code == 200
        refused = other.patch(f"{fleet.path}/limits", json={"error_buffer": 200})
        assert refused.status_code == 422
        assert "below 500" in refused.json()["detail"]
        for seen in (fleet.get("/limits"), other.get(f"{fleet.path}/limits")):
            assert (seen.json()["samples_per_insert"], seen.json()["samples_allowed"]) == (500, allowed)


def test_a_replica_searches_for_the_episodes_of_others_only_while_there_are_others(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched: list[float] = []
    follow = loading.follow

    async def noted(*arguments: Any) -> None:
        searched.append(time.monotonic())
        await follow(*arguments)

    def quiet() -> bool:
        return time.monotonic() - searched[-1] > 3

    monkeypatch.setattr(loading, "follow", noted)
    monkeypatch.setattr(following, "REPLICA_SECONDS", 4.0)
    with serve(settings) as first, Fleet(first) as fleet:
        fleet.post(fleet.play())
        with serve(settings) as second:
            status = f"{second}{fleet.path}/status"
            until(lambda: httpx.get(status, timeout=30).json()["transitions_held"] == 30, "it is not loaded")
            until(lambda: bool(searched), "nobody searches")
        until(quiet, "it searches still though the other has gone")
        with serve(settings) as third:
            body = encode_episode(fleet.play(seed=5))
            assert httpx.post(f"{third}{fleet.path}/episodes", content=body, timeout=30).status_code == 201
            until(lambda: fleet.status()["transitions_held"] == 60, "what a new replica has stored is not found")


def test_sigterm_ends_waits_at_once_and_forgets_no_count(tmp_path: Path, database: Database) -> None:
    api = ApiServer(tmp_path, {"mongodb_uri": database.uri, "mongodb_database": "durability"})
    try:
        with Fleet(api.url) as fleet:
            fleet.post(fleet.play())
            epoch = fleet.lease().json()["epoch"]
            fleet.publish(10, epoch)
            etag = fleet.get("/policy").headers["etag"]
            fleet.batches(batches=4)
            answers: list[int] = []

            def poll() -> None:
                known = {"If-None-Match": etag}
                answer = httpx.get(f"{api.url}{fleet.path}/policy", params={"wait": 60}, headers=known, timeout=70)
                answers.append(answer.status_code)

            waiting = threading.Thread(target=poll)
            waiting.start()
            time.sleep(0.3)
            began = time.monotonic()
            assert api.process is not None
            api.process.terminate()
            assert api.process.wait(20) == 0
            assert time.monotonic() - began < 8
            waiting.join()
            assert answers == [304]
            api.start()
            assert fleet.get("/limits").json()["sampled"] == 64
    finally:
        api.kill()


@pytest.mark.parametrize("created_by", ["this replica", "another"])
def test_a_run_that_the_database_has_lost_is_forgotten_and_begins_anew_when_it_is_created_again(
    created_by: str, settings: Settings
) -> None:
    with serve(settings) as url, serve(settings) as other, Fleet(url) as fleet:
        for seed in range(3):
            assert fleet.post(fleet.play(seed=seed)).status_code == 201
        fleet.batches()
        with MongoClient[dict[str, Any]](settings.mongodb_uri.get_secret_value()) as client:
            database = client[settings.mongodb_database]
            for collection in ("runs", "episodes", "events"):
                database[collection].delete_many({"_id" if collection == "runs" else "run": fleet.run})
        if created_by == "this replica":
            assert fleet.create().status_code == 201
        else:
            until(lambda: fleet.get("/status").status_code == 404, f"{fleet.run} is still answered")
            assert fleet.post(fleet.play(seed=7)).status_code == 404
            assert httpx.put(f"{other}{fleet.path}", json=fleet.experiment.model_dump(mode="json")).status_code == 201
        assert fleet.post(fleet.play(seed=8)).status_code == 201
        status = fleet.status()
        assert (status["episodes"], status["transitions_held"]) == ({"random": 1}, 30)
        assert (status["limits"]["inserted"], status["limits"]["sampled"]) == (30, 0)
