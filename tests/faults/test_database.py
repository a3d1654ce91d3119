"""A database that is slow, full, read-only, silent, or whose primary steps down, while workers post.

The errors are the server's own: MongoDB's `configureFailPoint` and `replSetStepDown`, which SecantusDB has as well.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from pymongo import MongoClient

from tests.faults.observed import Observed, until
from tests.replay_api.fleet import Fleet, experiment_of
from tests.replay_api.test_durability import Posters, check, stored
from tests.servers import ApiServer, Database

pytestmark = pytest.mark.faults

Client = MongoClient[dict[str, Any]]

FAULT_SECONDS = 6.0


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    made = Database(tmp_path_factory.mktemp("database"), None, "--enable-test-commands")
    yield made
    made.kill()


@pytest.fixture(scope="module")
def api(database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """One process for all faults: it must survive them."""
    made = ApiServer(tmp_path_factory.mktemp("api"), {"mongodb_uri": database.uri})
    yield made
    made.kill()


@dataclass(frozen=True)
class Fault:
    """How it begins and ends, and what is seen of it.

    Parameters
    ----------
    told
        Whether requests are answered 503 meanwhile.
    said
        What the log says, with the fields of the line.
    """

    begin: Callable[[Client], None]
    told: bool
    said: tuple[str, dict[str, str]] | None = None


def failing(commands: list[str], mode: Any = "alwaysOn", **data: Any) -> Callable[[Client], None]:
    """The server fails these commands of the API."""

    def begin(client: Client) -> None:
        data["failCommands"], data["appName"] = commands, "gaitfleet-replay-api"
        client.admin.command("configureFailPoint", "failCommand", mode=mode, data=data)

    return begin


def step_down(client: Client) -> None:
    """The server's own stepping down: it is a secondary, and reads go on."""
    client.admin.command("replSetStepDown", FAULT_SECONDS, force=True)


def end(client: Client) -> None:
    """No command fails any more."""
    client.admin.command("configureFailPoint", "failCommand", mode="off")


STORING = {"operation": "store the episode"}
UNANSWERED = "the database did not answer"
WRITES = ["insert", "update", "findAndModify"]

FAULTS = {
    "slow": Fault(failing(["insert", "find"], blockConnection=True, blockTimeMS=700), told=False),
    "silent": Fault(
        failing(["insert"], blockConnection=True, blockTimeMS=15_000),
        told=True,
        said=(UNANSWERED, STORING),
    ),
    "closing every connection": Fault(failing(["insert"], closeConnection=True), told=True, said=(UNANSWERED, STORING)),
    "full": Fault(failing(WRITES, errorCode=14031), told=True, said=("the database refused", STORING)),
    "read-only": Fault(failing(WRITES, errorCode=20), told=True, said=("the database refused", STORING)),
    "no primary": Fault(failing(WRITES, errorCode=10107), told=True, said=(UNANSWERED, STORING)),
    "stepping down": Fault(step_down, told=True, said=(UNANSWERED, STORING)),
    "shutting down": Fault(failing(WRITES, errorCode=91), told=True, said=(UNANSWERED, STORING)),
    "interrupted": Fault(failing(WRITES, errorCode=11602), told=True, said=(UNANSWERED, STORING)),
    "not enough replicas": Fault(
        failing(["insert"], writeConcernError={"code": 64, "errmsg": "waiting for replication timed out"}),
        told=True,
        said=(UNANSWERED, STORING),
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_nothing_is_lost_or_doubled_and_the_api_goes_on_by_itself(
    name: str, api: ApiServer, database: Database
) -> None:
    fault = FAULTS[name]
    with Fleet(api.url, experiment_of(replay={"capacity": 200_000})) as fleet, MongoClient(database.uri) as client:
        first = fleet.post(fleet.play(seed=9)).json()["episode_id"]
        seen = Observed(api)
        posters = Posters(fleet, threads=6)
        posters.acknowledged[first] = 30
        try:
            until(lambda: len(posters.acknowledged) > 10, "nothing is acknowledged before the fault")
            fault.begin(client)
            time.sleep(FAULT_SECONDS if name != "silent" else 12.0)
            assert fleet.http.get("/health/live").status_code == 200
        finally:
            end(client)
        acknowledged = len(posters.acknowledged)
        until(lambda: len(posters.acknowledged) > acknowledged + 20, "it does not go on after the fault")
        posters.stop()
        refused = seen.counted("rl_api_requests_total", route="/v1/runs/{run}/episodes", method="POST", code="503")
        if fault.told:
            assert refused > 0
            assert seen.counted("rl_mongo_errors_total") + (name == "not enough replicas") > 0
        else:
            assert refused == 0
        if fault.said is not None:
            assert seen.logged(fault.said[0], **fault.said[1]), api.said()[-20:]
        if name == "slow":
            inserts = "rl_mongo_command_duration_seconds"
            quick = seen.counted(f"{inserts}_bucket", command="insert", le="0.5")
            assert seen.counted(f"{inserts}_count", command="insert") - quick >= 5
        check(fleet, posters)
        assert seen.growth_mib < 100
        assert not seen.restarted


def test_samples_are_counted_once_though_answers_are_lost(api: ApiServer, database: Database) -> None:
    """The server adds them and answers an error: to add them again with every attempt would starve the trainer."""
    with Fleet(api.url) as fleet, MongoClient[dict[str, Any]](database.uri) as client:
        assert fleet.post(fleet.play()).status_code == 201
        try:
            failing(["findAndModify"], writeConcernError={"code": 64, "errmsg": "waiting for replication"})(client)
            for _ in range(4):
                fleet.batches(batches=2)
                time.sleep(0.8)
        finally:
            end(client)
        runs = client["gaitfleet"]["runs"]
        until(
            lambda: runs.find_one({"_id": fleet.run})["counters"]["sampled"] >= 128,  # type: ignore[index]
            "samples are not counted",
        )
        time.sleep(1.5)
        assert runs.find_one({"_id": fleet.run})["counters"]["sampled"] == 128  # type: ignore[index]
        assert fleet.get("/limits").json()["sampled"] == 128


def test_the_api_waits_for_indexes_that_take_longer_than_its_other_commands_may(
    database: Database, tmp_path: Path
) -> None:
    """Given up, a build would begin anew, for ever."""
    with MongoClient[dict[str, Any]](database.uri) as client:
        failing(["createIndexes"], {"times": 1}, blockConnection=True, blockTimeMS=12_000)(client)
    api = ApiServer(tmp_path, {"mongodb_uri": database.uri, "mongodb_database": "test-slow-indexes"})
    try:
        metrics = httpx.get(f"{api.url}/metrics").text
        assert 'rl_mongo_command_duration_seconds_count{command="createIndexes"} 4.0' in metrics
        assert 'rl_mongo_errors_total{command="createIndexes"}' not in metrics
    finally:
        api.kill()


def test_indexes_that_are_being_built_do_not_hold_up_the_end_of_the_process(database: Database, tmp_path: Path) -> None:
    class Unready(ApiServer):
        def wait_until_ready(self, seconds: float = 60.0) -> None:
            until(lambda: answers(f"{self.url}/health/live"), "it is not alive", seconds)

    with MongoClient[dict[str, Any]](database.uri) as client:
        failing(["createIndexes"], blockConnection=True, blockTimeMS=30_000)(client)
        api = Unready(tmp_path, {"mongodb_uri": database.uri, "mongodb_database": "test-endless-indexes"})
        try:
            parts = httpx.get(f"{api.url}/health/ready", timeout=10).json()["parts"]
            assert parts["database"] == "indexes are being created"
            assert api.process is not None
            api.process.terminate()
            assert api.process.wait(15) == 0
        finally:
            end(client)
            api.kill()


def answers(url: str) -> bool:
    with suppress(httpx.TransportError):
        return httpx.get(url).is_success
    return False


def test_the_api_answers_while_a_deletion_waits_for_the_database(api: ApiServer, database: Database) -> None:
    """The driver would abort a transaction that was given up on the event loop, and wait there for the answer."""
    experiment = experiment_of(retention={"max_transitions": 1000}, replay={"capacity": 1000})
    with Fleet(api.url, experiment) as fleet, MongoClient[dict[str, Any]](database.uri) as client:
        seen = Observed(api)
        try:
            failing(["delete", "abortTransaction"], blockConnection=True, blockTimeMS=15_000)(client)
            for seed in range(6):
                assert fleet.post(fleet.play(seed=seed, steps=200)).status_code == 201
            silence_ends = time.monotonic() + 25.0  # the deletion is given up after 8 s, its transaction 8 s later
            while time.monotonic() < silence_ends:
                assert httpx.get(f"{api.url}/health/live", timeout=2).is_success
                time.sleep(0.2)
            assert seen.logged(UNANSWERED, operation="delete old episodes")
        finally:
            end(client)
        posted = 6

        def deleted() -> int:
            counters = client["gaitfleet"]["runs"].find_one({"_id": fleet.run})["counters"]  # type: ignore[index]
            return int(counters.get("deleted", {}).get("random", {}).get("episodes", 0))

        while not deleted():
            assert fleet.post(fleet.play(seed=posted, steps=200)).status_code == 201
            posted += 1
            assert posted < 200, "nothing is deleted after the fault"
            time.sleep(0.2)
        until(lambda: deleted() == posted - len(stored(fleet)), "what is deleted is not what is counted")
