"""The indexes that queries need, and how they are built."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress

from pymongo import IndexModel, MongoClient
from pymongo.database import Database
from pymongo.errors import OperationFailure

from replay_api.metrics import Metrics
from replay_api.settings import Settings
from replay_api.storage.mongo import Document, asking, client_options

CONFLICTS = frozenset({85, 86})
"""MongoDB's codes where the keys are indexed under another name or with other options, or the name has other keys."""

INDEXES = {
    "episodes": [
        IndexModel([("run", 1), ("stored_at", -1), ("_id", -1)], name="run_stored"),
        # Holds all that is asked of every episode of a run when it is opened, so that no document is read for it: with
        # their arrays, millions of steps are gigabytes.
        IndexModel(
            [("run", 1), ("role", 1), ("stored_at", -1), ("_id", -1), ("transitions", 1), ("steps", 1), ("stage", 1)],
            name="run_role_stored_summed",
        ),
        IndexModel([("run", 1), ("role", 1), ("policy_version", -1), ("_id", -1)], name="run_role_policy"),
        # Walked backwards, so that either order serves; SecantusDB finds nothing by a range over a descending last key.
        IndexModel([("run", 1), ("worker", 1), ("_id", 1)], name="run_worker_id"),
        IndexModel([("run", 1), ("ending", 1), ("_id", 1)], name="run_ending_id"),
    ],
    "events": [IndexModel([("run", 1), ("kind", 1), ("_id", 1)], name="run_kind")],
    "runs": [IndexModel([("created_at", -1)], name="created")],
    "checkpoints": [IndexModel([("run", 1), ("step", -1)], name="run_step", unique=True)],
}
"""By collection."""


class IndexConflictError(Exception):
    """An index is there that differs from the one wanted; somebody has to drop it."""


def create_indexes(database: Database[Document]) -> None:
    """Create what is missing: with one command, and so one walk over the documents, for each collection.

    Raises
    ------
    IndexConflictError
        When another index is in the way.
    """
    for collection, indexes in INDEXES.items():
        try:
            database[collection].create_indexes(indexes)
        except OperationFailure as error:
            if error.code not in CONFLICTS:
                raise
            said = (error.details or {}).get("errmsg", str(error))
            detail = f"an index of collection {collection!r} is in the way; drop it, and it is made anew: {said}"
            raise IndexConflictError(detail) from error


async def build_indexes(settings: Settings, metrics: Metrics) -> None:
    """Create what is missing, however long it takes. MongoDB ends a build whose command has a time limit at that limit,
    and the next attempt would begin anew; of many episodes a build takes hours.

    Raises
    ------
    IndexConflictError
        When another index is in the way.
    UnavailableError
        When the connection breaks, or the database refuses. What it builds goes on, and the next call waits for it.
    """
    loop = asyncio.get_running_loop()
    built: asyncio.Future[None] = loop.create_future()

    def tell(error: Exception | None) -> None:
        if built.cancelled():
            return
        if error is None:
            built.set_result(None)
        else:
            built.set_exception(error)

    def build() -> None:
        failure: Exception | None = None
        try:
            endless = client_options(settings, metrics) | {"socketTimeoutMS": 0, "timeoutMS": 0}
            with MongoClient[Document](**endless) as client:
                create_indexes(client[settings.mongodb_database])
        except Exception as error:
            failure = error
        with suppress(RuntimeError):  # the event loop has ended
            loop.call_soon_threadsafe(tell, failure)

    # Neither one of the driver's threads nor of an executor: the end of the process would wait for these.
    threading.Thread(target=build, name="indexes", daemon=True).start()
    async with asking("create indexes", seconds=None):
        await built
