"""How the API connects to its database, and the indexes it makes there."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from pymongo import MongoClient, ReadPreference
from pymongo.monitoring import CommandStartedEvent

from gaitfleet.command.processes import free_port
from replay_api.errors import UnavailableError
from replay_api.main import create_app
from replay_api.metrics import Metrics
from replay_api.services import upkeep
from replay_api.settings import Settings
from replay_api.storage import mongo
from replay_api.storage.indexes import INDEXES, build_indexes


@pytest.mark.parametrize(
    "options",
    ["readPreference=secondary", "readPreference=nearest&readPreferenceTags=dc:east&maxStalenessSeconds=120"],
)
async def test_reads_go_to_the_primary_whatever_the_address_says(settings: Settings, options: str) -> None:
    address = f"{settings.mongodb_uri.get_secret_value()}/?{options}"
    client = mongo.connect(Settings(authentication="none", mongodb_uri=address), Metrics())
    assert client.read_preference == ReadPreference.PRIMARY
    await client.admin.command("ping")
    client.close()


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[CommandStartedEvent]:
    """What the API's clients send."""
    seen: list[CommandStartedEvent] = []

    class Listener(mongo._CommandMetrics):
        def started(self, event: CommandStartedEvent) -> None:
            seen.append(event)

    monkeypatch.setattr(mongo, "_CommandMetrics", Listener)
    return seen


@pytest.mark.parametrize("option", ["", "/?timeoutMS=5000"])
async def test_indexes_are_built_without_a_limit_and_with_one_command_for_each_collection(
    settings: Settings, commands: list[CommandStartedEvent], option: str
) -> None:
    address = settings.mongodb_uri.get_secret_value() + option
    await build_indexes(settings.model_copy(update={"mongodb_uri": SecretStr(address)}), Metrics())
    builds = [event.command for event in commands if event.command_name == "createIndexes"]
    assert [build["createIndexes"] for build in builds] == list(INDEXES)
    assert not any("maxTimeMS" in build for build in builds)
    with MongoClient[dict[str, Any]](settings.mongodb_uri.get_secret_value()) as client:
        for collection, indexes in INDEXES.items():
            there = set(client[settings.mongodb_database][collection].index_information())
            assert there == {"_id_", *(index.document["name"] for index in indexes)}


async def test_an_index_in_the_way_is_named_until_it_is_dropped(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "CONFLICT_SECONDS", 0.1)
    app = create_app(settings)
    with MongoClient[dict[str, Any]](settings.mongodb_uri.get_secret_value()) as client:
        runs = client[settings.mongodb_database]["runs"]
        runs.create_index([("parent", 1)], name="created")
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as api,
        ):
            await told(api, 503, "an index of collection 'runs' is in the way; drop it")
            runs.drop_index("created")
            await told(api, 200, "ok")
        assert runs.index_information()["created"]["key"] == [("created_at", -1)]


async def told(api: httpx.AsyncClient, status: int, words: str) -> None:
    """Wait until readiness says so of the database."""
    async with asyncio.timeout(15):
        while True:
            answer = await api.get("/health/ready")
            if answer.status_code == status and words in answer.json()["parts"]["database"]:
                return
            await asyncio.sleep(0.05)


async def test_a_database_that_is_away_is_counted_though_no_command_reaches_it() -> None:
    metrics = Metrics()
    address = f"mongodb://127.0.0.1:{free_port()}"
    client = mongo.connect(Settings(authentication="none", mongodb_uri=address), metrics)
    with pytest.raises(UnavailableError):
        await mongo.ping(client["any"])
    assert metrics.registry.get_sample_value("rl_mongo_errors_total", {"command": "heartbeat"})
    client.close()
