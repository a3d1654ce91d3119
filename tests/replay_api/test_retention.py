"""The oldest training episodes go when a run has more than its cap."""

from __future__ import annotations

from typing import Any

import pytest
from motor.motor_asyncio import AsyncIOMotorCollection
from pymongo.errors import OperationFailure

from replay_api.metrics import Metrics
from replay_api.settings import Settings
from replay_api.storage.episodes import EpisodeStore, Planned
from replay_api.storage.mongo import connect
from tests.conftest import serve
from tests.faults.observed import until
from tests.replay_api.fleet import Fleet, experiment_of


def test_retention_deletes_the_oldest_training_episodes_and_forgets_no_count(api: str) -> None:
    experiment = experiment_of(retention={"max_transitions": 1000}, replay={"capacity": 5000})
    with Fleet(api, experiment) as fleet:
        epoch = fleet.lease().json()["epoch"]
        fleet.publish(1, epoch)
        evaluation = fleet.play(role="evaluate", policy_version=1)
        assert fleet.post(evaluation).status_code == 201
        for seed in range(8):
            assert fleet.post(fleet.play(seed=seed, steps=150)).status_code == 201
        kept = []
        for _ in range(100):
            kept = [episode["seed"] for episode in fleet.get("/episodes", params={"role": "random"}).json()["episodes"]]
            if len(kept) <= 6:
                break
        assert kept == [7, 6, 5, 4, 3, 2]
        assert len(fleet.get("/episodes", params={"role": "evaluate"}).json()["episodes"]) == 1
        assert fleet.get("/limits").json()["inserted"] == 1200


def test_retention_deletes_a_thirty_second_of_its_cap_at_a_time(api: str) -> None:
    """The last of twenty makes 1010 transitions of 1000; the five oldest, of 10 each, go together, down to 968."""
    with Fleet(api, experiment_of(retention={"max_transitions": 1000})) as fleet:
        for seed in range(20):
            assert fleet.post(fleet.play(seed=seed, steps=100 if 9 <= seed < 18 else 10)).status_code == 201
        kept: list[int] = []
        for _ in range(100):
            kept = [episode["seed"] for episode in fleet.get("/episodes", params={"limit": 50}).json()["episodes"]]
            if len(kept) < 20:
                break
        assert sorted(kept) == list(range(5, 20))


def test_one_search_finds_what_is_deleted_for_long(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every eleventh deletes two. The first search finds eleven, those after it as many or fewer."""
    found: list[int] = []
    search = EpisodeStore.oldest_training

    async def counted(self: EpisodeStore, *arguments: Any) -> list[Planned]:
        oldest = await search(self, *arguments)
        found.append(len(oldest))
        return oldest

    monkeypatch.setattr(EpisodeStore, "oldest_training", counted)
    with serve(settings) as url, Fleet(url, experiment_of(retention={"max_transitions": 1000})) as fleet:
        for seed in range(55):
            assert fleet.post(fleet.play(seed=seed, steps=100)).status_code == 201
            until(lambda: stored(fleet) <= 10, "retention does not delete")
        assert seeds(fleet)[-9:] == list(range(46, 55))
    assert len(found) <= 6


def test_two_replicas_delete_nothing_twice_and_nothing_young(settings: Settings) -> None:
    experiment = experiment_of(retention={"max_transitions": 1000}, replay={"capacity": 5000})
    with serve(settings) as one, serve(settings) as other, Fleet(one, experiment) as fleet:
        for seed in range(60):
            fleet.reconnect((one, other)[seed % 2])
            assert fleet.post(fleet.play(seed=seed, steps=100)).status_code == 201
        # a replica hears of the other's episodes within a second, and looks at the cap when it stores one itself
        until(lambda: fleet.status()["episodes"]["random"] == 60, "the other's episodes are not counted")
        assert fleet.post(fleet.play(seed=60, steps=100)).status_code == 201
        until(lambda: stored(fleet) <= 10, "retention does not delete")
        for url in (one, other):
            fleet.reconnect(url)
            kept = [seed for seed in seeds(fleet) if seed < 57]  # each replica's clock may be some episodes off
            assert kept == list(range(57 - len(kept), 57))
            assert 8 <= stored(fleet) <= 10
            until(lambda: fleet.status()["episodes"]["random"] == 61, "what was deleted is not counted")


def seeds(fleet: Fleet) -> list[int]:
    return sorted(episode["seed"] for episode in fleet.get("/episodes", params={"limit": 100}).json()["episodes"])


def stored(fleet: Fleet) -> int:
    return len(seeds(fleet))


async def test_a_deletion_is_tried_again_where_another_write_to_the_run_was_faster(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a replica set refuses a transaction that has lost."""
    client = connect(settings, Metrics())
    store = EpisodeStore(client, client[settings.mongodb_database])
    update, conflicts = AsyncIOMotorCollection.update_one, [{"errorLabels": ["TransientTransactionError"]}]

    async def lose_first(self: Any, *arguments: Any, **named: Any) -> Any:
        if conflicts and named.get("session") is not None:
            raise OperationFailure("WriteConflict", 112, conflicts.pop())
        return await update(self, *arguments, **named)

    with serve(settings) as url, Fleet(url) as fleet:
        assert fleet.post(fleet.play()).status_code == 201
        monkeypatch.setattr(AsyncIOMotorCollection, "update_one", lose_first)
        assert await store.delete(fleet.run, await store.oldest_training(fleet.run, 1)) == 30
        assert conflicts == []
        assert seeds(fleet) == []
    client.close()
