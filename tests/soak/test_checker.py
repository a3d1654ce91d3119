"""The checker of the soak finds what it is there to find: every fault is made in the stores of a real system."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from bson.binary import Binary
from pymongo import MongoClient

from gaitfleet.client import ReplayClient
from gaitfleet.episode import encode_episode
from tests.conftest import serve, settings_for
from tests.replay_api.fleet import Fleet
from tests.servers import s3_client
from tests.soak.checker import Stores, check
from tests.soak.clients import keep_journal
from tests.soak.journal import Journal, JournalReader


@dataclass(frozen=True)
class Kept:
    """What a system has kept, and what its clients were told."""

    fleet: Fleet
    stores: Stores
    journal: list[dict[str, Any]]

    @property
    def episodes(self) -> Any:
        return self.stores.database["episodes"]

    @property
    def head(self) -> dict[str, Any]:
        return self.stores.database["runs"].find_one({"_id": self.fleet.run})["head"]  # type: ignore[index]

    def key(self, info: dict[str, Any]) -> str:
        """Name of a checkpoint's object in the bucket."""
        return f"fleet/runs/{self.fleet.run}/{info['epoch']}-{info['step']}-{info['digest']}.safetensors"

    def told(self, kind: str) -> dict[str, Any]:
        """The first acknowledgement of a kind."""
        return next(entry for entry in self.journal if entry["kind"] == kind)

    def faults(self) -> set[str]:
        return set(check(self.stores, self.journal).faults)


@pytest.fixture(scope="module")
def served(
    mongodb_uri: str, moto: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Stores]]:
    """An application, and where it keeps its data."""
    settings = settings_for(mongodb_uri, tmp_path_factory.mktemp("checker"), **moto)
    bucket, _, prefix = moto["checkpoint_store"].removeprefix("s3://").partition("/")
    with serve(settings) as url, MongoClient[dict[str, Any]](mongodb_uri) as mongo:
        s3 = s3_client(moto["s3_endpoint_url"])
        yield url, Stores(mongo[settings.mongodb_database], s3, bucket, f"{prefix}/", "")


@pytest.fixture
def kept(served: tuple[str, Stores], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kept]:
    """Three episodes and two checkpoints, acknowledged and noted."""
    url, stores = served
    for name in ("post_frame", "publish_checkpoint"):
        monkeypatch.setattr(ReplayClient, name, getattr(ReplayClient, name))  # put back after the test
    journal = Journal(tmp_path / "journal")
    keep_journal(journal, "test")
    with Fleet(url) as fleet, ReplayClient(url, run=fleet.run) as client:
        for seed in range(3):
            client.post_episode(encode_episode(fleet.play(seed=seed)))
        epoch = client.acquire_lease("trainer", ttl_seconds=30).epoch
        for step in (10, 20):
            client.publish_checkpoint(step, epoch, fleet.checkpoint(step))
            journal.add("head", of="database", step=step, digest=f"of {step}")
        reader = JournalReader(journal.path)
        reader.more()
        yield Kept(fleet, replace(stores, run=fleet.run), reader.entries)
    journal.close()


def lose_an_episode(kept: Kept) -> None:
    kept.episodes.delete_one({"_id": f"{kept.fleet.run}/{kept.told('episode')['id']}"})


def tear_an_episode(kept: Kept) -> None:
    document = kept.episodes.find_one({"run": kept.fleet.run})
    half = Binary(document["content"][: len(document["content"]) // 2])
    kept.episodes.update_one({"_id": document["_id"]}, {"$set": {"content": half}})


def exchange_an_episode(kept: Kept) -> None:
    first, second = kept.episodes.find({"run": kept.fleet.run}).limit(2)
    fields = {name: first[name] for name in ("content", "content_digest")}
    kept.episodes.update_one({"_id": second["_id"]}, {"$set": fields})


def store_an_episode_twice(kept: Kept) -> None:
    assert kept.fleet.post(kept.fleet.play(seed=1)).status_code == 201  # the same steps under another id


def set_the_head_back(kept: Kept) -> None:
    first = kept.stores.database["checkpoints"].find_one({"run": kept.fleet.run, "step": 10}, {"_id": 0})
    kept.stores.database["runs"].update_one({"_id": kept.fleet.run}, {"$set": {"head": first}})


def lose_the_object_of_the_head(kept: Kept) -> None:
    kept.stores.s3.delete_object(Bucket=kept.stores.bucket, Key=kept.key(kept.head))


def tear_the_object_of_the_head(kept: Kept) -> None:
    kept.stores.s3.put_object(Bucket=kept.stores.bucket, Key=kept.key(kept.head), Body=b"half a checkpoint")


def lose_a_record(kept: Kept) -> None:
    kept.stores.database["checkpoints"].delete_one({"run": kept.fleet.run, "step": 10})


def let_the_head_be_seen_going_back(kept: Kept) -> None:
    kept.journal.append({"kind": "head", "of": "database", "step": 10, "digest": "of 10"})


def publish_out_of_order(kept: Kept) -> None:
    events = kept.stores.database["events"]
    first, second = events.find({"run": kept.fleet.run, "kind": "checkpoint_published"}).sort("_id", 1)
    for event, other in ((first, second), (second, first)):
        events.update_one({"_id": event["_id"]}, {"$set": {"data": other["data"]}})


def test_nothing_is_found_where_nothing_is_broken(kept: Kept) -> None:
    verdict = check(kept.stores, kept.journal)
    assert verdict.faults == {}
    assert verdict.counts == {
        "episodes acknowledged": 3,
        "episodes stored": 3,
        "checkpoints acknowledged": 2,
        "checkpoints recorded": 2,
        "publications in the history": 2,
        "heads observed": 2,
        "orphaned objects": 0,
    }


@pytest.mark.parametrize(
    ("fault", "sorts"),
    [
        (lose_an_episode, {"lost"}),
        (tear_an_episode, {"torn", "lost"}),
        (exchange_an_episode, {"torn", "twice"}),
        (store_an_episode_twice, {"twice"}),
        (set_the_head_back, {"regressed head"}),
        (lose_the_object_of_the_head, {"torn checkpoint"}),
        (tear_the_object_of_the_head, {"torn checkpoint"}),
        (lose_a_record, {"lost checkpoint"}),
        (let_the_head_be_seen_going_back, {"regressed head"}),
        (publish_out_of_order, {"regressed head"}),
    ],
)
def test_every_broken_promise_is_found(kept: Kept, fault: Callable[[Kept], None], sorts: set[str]) -> None:
    fault(kept)
    assert kept.faults() == sorts
