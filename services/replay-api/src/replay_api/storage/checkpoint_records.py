"""The collection `checkpoints`: one document for every published checkpoint that is kept."""

from __future__ import annotations

from pymongo import DESCENDING

from gaitfleet.wire import CheckpointInfo
from replay_api.storage.mongo import Database, Document, asking
from replay_api.storage.runs import Evaluation, info_document


class CheckpointRecords:
    """Published checkpoints of all runs."""

    def __init__(self, database: Database) -> None:
        self._checkpoints = database["checkpoints"]

    async def put(self, info: CheckpointInfo) -> None:
        """Keep the record of a checkpoint whose head has moved; does nothing where it is there already."""
        document = {"_id": _key(info.run, info.step)} | info_document(info)
        async with asking("record the checkpoint"):
            await self._checkpoints.update_one({"_id": document["_id"]}, {"$setOnInsert": document}, upsert=True)

    async def get(self, run: str, step: int) -> CheckpointInfo | None:
        """One checkpoint."""
        async with asking("read the checkpoint"):
            document = await self._checkpoints.find_one({"_id": _key(run, step)})
        return None if document is None else _info(document)

    async def all(self, run: str) -> list[CheckpointInfo]:
        """Those that are kept, newest first."""
        async with asking("list checkpoints"):
            documents = await self._checkpoints.find({"run": run}).sort("step", DESCENDING).to_list(None)
        return [_info(document) for document in documents]

    async def evaluated(self, run: str, step: int, score: Evaluation) -> CheckpointInfo | None:
        """Note an evaluation unless one of more episodes is noted; the checkpoint as it was before, None when it is no
        longer kept."""
        fence = {"_id": _key(run, step)} | score.fence()
        async with asking("note the evaluation"):
            before = await self._checkpoints.find_one_and_update(fence, {"$set": score.fields()})
        return await self.get(run, step) if before is None else _info(before)

    async def delete(self, run: str, step: int) -> None:
        """Forget a checkpoint."""
        async with asking("forget the checkpoint"):
            await self._checkpoints.delete_one({"_id": _key(run, step)})


def _key(run: str, step: int) -> str:
    return f"{run}/{step}"


def _info(document: Document) -> CheckpointInfo:
    return CheckpointInfo(**{name: value for name, value in document.items() if name != "_id"})
