"""The collection `replicas`: which processes of this service may be storing episodes."""

from __future__ import annotations

from collections.abc import Collection

from replay_api.storage.mongo import Database, asking


class ReplicaStore:
    """A document for every process, with a number that grows while it lives. No clock is compared."""

    def __init__(self, database: Database) -> None:
        self._replicas = database["replicas"]

    async def beat(self, name: str) -> None:
        """Say that a process lives."""
        async with asking("note the replica"):
            await self._replicas.update_one({"_id": name}, {"$inc": {"beats": 1}}, upsert=True)

    async def beats(self) -> dict[str, int]:
        """The number of every process, by name."""
        async with asking("look for other replicas"):
            documents = await self._replicas.find({}).to_list(None)
        return {document["_id"]: int(document["beats"]) for document in documents}

    async def forget(self, names: Collection[str]) -> None:
        """Delete processes; one that lives after all comes back with its next beat."""
        async with asking("forget a replica"):
            await self._replicas.delete_many({"_id": {"$in": list(names)}})
