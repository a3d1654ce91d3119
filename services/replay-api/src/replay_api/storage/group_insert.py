"""Inserts of concurrent callers, written together: one command, one acknowledgement by majority and journal.

A document of some hundred kilobytes costs the driver and the database about as much processor time for its command as
for its bytes. So what arrives while a group is being written makes the next group; who is alone waits for nobody.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import cast

from motor.motor_asyncio import AsyncIOMotorCollection
from pymongo.errors import BulkWriteError, OperationFailure, WriteConcernError

from replay_api.storage.mongo import Document, asking, unavailable

DUPLICATE_KEY = 11000
"""MongoDB's code."""

CONCURRENT_GROUPS = 2
"""Groups written at once: one is encoded while the other waits for the journal."""

GROUP_DOCUMENTS = 16
"""Documents of a group at most, so that one that is slow holds up few."""

GROUP_BYTES = 5 << 18
"""Bytes of a group at which nothing more is added: four walks of 300 steps. The driver holds the interpreter while it
encodes a group; with sixteen walks three times as many timers of the event loop were late, and no more was stored."""


@dataclass(frozen=True, slots=True, eq=False)
class _Insert:
    document: Document
    nbytes: int
    inserted: asyncio.Future[bool]


class GroupInsert:
    """Inserts into one collection, under the write concern of its client.

    Parameters
    ----------
    collection
        Where documents go.
    """

    def __init__(self, collection: AsyncIOMotorCollection[Document]) -> None:
        self._collection = collection
        self._waiting: deque[_Insert] = deque()
        self._writers: set[asyncio.Task[None]] = set()
        self._answering: set[asyncio.Task[None]] = set()

    async def insert(self, document: Document, nbytes: int) -> bool:
        """Insert a document of about so many bytes; False when one is there under its id.

        Raises
        ------
        UnavailableError
            When the database has not acknowledged it in time. It may have been kept.
        """
        insert = _Insert(document, nbytes, asyncio.get_running_loop().create_future())
        self._waiting.append(insert)
        if len(self._writers) < CONCURRENT_GROUPS:
            self._writers.add(asyncio.ensure_future(self._write_all()))
        async with asking("store the episode"):
            return await insert.inserted

    async def _write_all(self) -> None:
        try:
            while group := self._take():
                try:
                    failures = await self._write(group)
                except Exception as error:
                    failures = dict.fromkeys(range(len(group)), error)
                answering = asyncio.ensure_future(_answer_all(group, failures))
                self._answering.add(answering)
                answering.add_done_callback(self._answering.discard)
        finally:  # here, not in a callback: who comes before that would count on a writer that has ended
            self._writers.discard(cast(asyncio.Task[None], asyncio.current_task()))

    def _take(self) -> list[_Insert]:
        group: list[_Insert] = []
        nbytes = 0
        while self._waiting and len(group) < GROUP_DOCUMENTS and nbytes < GROUP_BYTES:
            insert = self._waiting.popleft()
            if not insert.inserted.done():
                group.append(insert)
                nbytes += insert.nbytes
        return group

    async def _write(self, group: list[_Insert]) -> dict[int, Exception]:
        """Write a group; why which of its documents was not inserted.

        Raises
        ------
        UnavailableError
            When nothing is known of any of them.
        """
        async with asking("store the episode"):
            try:
                await self._collection.insert_many([insert.document for insert in group], ordered=False)
            except BulkWriteError as error:
                details = error.details
                for concern in details.get("writeConcernErrors", ()):
                    raise WriteConcernError(concern.get("errmsg", ""), concern.get("code")) from error
                return {failure["index"]: _failure(failure) for failure in details["writeErrors"]}
        return {}


def _failure(details: Document) -> Exception:
    error = OperationFailure(details.get("errmsg", ""), details.get("code"))
    return error if error.code == DUPLICATE_KEY else unavailable("store the episode", error)


async def _answer_all(group: list[_Insert], failures: dict[int, Exception]) -> None:
    for i, insert in enumerate(group):
        _answer(insert.inserted, failures.get(i))
        await asyncio.sleep(0)  # what follows takes the event loop half a millisecond for each of them


def _answer(inserted: asyncio.Future[bool], failure: Exception | None) -> None:
    if inserted.done():  # whoever asked has gone
        return
    if failure is None:
        inserted.set_result(True)
    elif isinstance(failure, OperationFailure) and failure.code == DUPLICATE_KEY:
        inserted.set_result(False)
    else:
        inserted.set_exception(failure)
