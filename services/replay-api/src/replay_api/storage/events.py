"""The collection `events`: the history of every run."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from pymongo import DESCENDING
from pymongo.errors import DuplicateKeyError
from pymongo.read_concern import ReadConcern

from gaitfleet.wire import Event
from replay_api.storage.mongo import Database, DatabaseClock, Document, asking, now


class EventStore:
    """Append to and read the history.

    A sequence is microseconds of the database's clock, which all replicas share, growing strictly within a process, and
    eight random digits of the process, so that two replicas never write the same.
    """

    def __init__(self, database: Database, clock: DatabaseClock) -> None:
        self._events = database["events"]
        self._clock = clock
        self._last = 0
        self._process = os.urandom(4).hex()

    def event(self, run: str, kind: str, data: dict[str, Any]) -> Event:
        """An event of this moment."""
        return Event(sequence=self._sequence(), run=run, at=now(), kind=kind, data=data)

    def anew(self, event: Event) -> Event:
        """The same event for a later attempt: whoever has read on in the meantime must still come to it."""
        return event.model_copy(update={"sequence": self._sequence()})

    def _sequence(self) -> str:
        self._last = max(self._last + 1, round(self._clock.now().timestamp() * 1e6))
        return f"{self._last:016x}{self._process}"

    async def append(self, event: Event) -> None:
        """Keep one event; does nothing when an attempt whose answer was lost has kept it."""
        document = {"_id": f"{event.run}/{event.sequence}", "run": event.run, "at": event.at, "kind": event.kind}
        # The particulars are text, because names in them (reward terms, losses) may hold dots.
        document["data"] = json.dumps(event.data)
        async with asking("keep an event"):
            with suppress(DuplicateKeyError):
                await self._events.insert_one(document)

    async def kept(self, attempts: Sequence[Event]) -> bool:
        """Whether one of these events is kept."""
        keys = [f"{event.run}/{event.sequence}" for event in attempts]
        # also one that a majority of a replica set does not have yet, which is why its attempt seemed to fail
        events = self._events.with_options(read_concern=ReadConcern("local"))
        async with asking("look for an event"):
            return await events.find_one({"_id": {"$in": keys}}, {"_id": 1}) is not None

    async def page(self, run: str, after: str | None, kind: str | None, limit: int | None) -> list[Event]:
        """Events, oldest first; all of them without a limit."""
        query: Document = {"run": run, "_id": {"$gt": f"{run}/{after or ''}", "$lt": f"{run}0"}}
        if kind is not None:
            query["kind"] = kind
        async with asking("list events"):
            documents = await self._events.find(query).sort("_id", 1).limit(limit or 0).to_list(limit)
        return [_event(document) for document in documents]

    async def newest(self, run: str, kind: str, limit: int) -> list[Event]:
        """The newest events of a kind, newest first."""
        query = {"run": run, "kind": kind, "_id": {"$gt": f"{run}/", "$lt": f"{run}0"}}
        async with asking("list events"):
            documents = await self._events.find(query).sort("_id", DESCENDING).limit(limit).to_list(limit)
        return [_event(document) for document in documents]


def _event(document: Document) -> Event:
    return Event(
        sequence=document["_id"].rpartition("/")[2],
        run=document["run"],
        at=document["at"],
        kind=document["kind"],
        data=json.loads(document["data"]),
    )
