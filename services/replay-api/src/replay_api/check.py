"""``python -m replay_api.check [database] [store]``: whether the storage of the settings does what the service needs.

For `gaitfleet doctor`. Looks with the service's own clients, and leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from pydantic import ValidationError
from pymongo.errors import PyMongoError

from gaitfleet.checkup import Finding, failed, first_line, passed, tell
from replay_api.errors import UnavailableError
from replay_api.metrics import Metrics
from replay_api.settings import Settings, from_environment
from replay_api.storage.checkpoint_store import open_store
from replay_api.storage.mongo import Database, connect
from replay_api.storage.objects import CheckpointStore, ObjectExistsError

COLLECTION = "checks"
"""Where the database check writes; dropped afterwards."""

LEAST_FREE_BYTES = 1_000_000_000
"""Space that a checkpoint directory must have: some hundred checkpoints of the walker."""


async def check_database(settings: Settings) -> AsyncIterator[Finding]:
    """Connect, write by majority and journal, write in a transaction."""
    try:
        client = connect(settings, Metrics())
        hello = await client.admin.command("hello")
        version = (await client.server_info())["version"]
    except PyMongoError as error:
        advice = "is it running, and are host, port, user and password of --mongodb-uri right?"
        yield failed("MongoDB", first_line(error), advice)
        return
    kind = f"replica set {hello['setName']}" if "setName" in hello else "sharded" if _sharded(hello) else "one server"
    yield passed("MongoDB", f"version {version}, {kind}")
    database = client[settings.mongodb_database]
    yield await _write(database)
    yield await _transact(database)
    client.close()


async def _write(database: Database) -> Finding:
    name = "MongoDB write"
    try:
        await database[COLLECTION].insert_one({"pid": os.getpid()})  # the client asks for majority and journal
        await database.drop_collection(COLLECTION)
    except PyMongoError as error:
        return failed(name, first_line(error), f"the user needs readWrite on database {database.name!r}")
    return passed(name, f"acknowledged by a majority and its journal in database {database.name!r}")


async def _transact(database: Database) -> Finding:
    name = "MongoDB transaction"
    try:
        async with await database.client.start_session() as session, session.start_transaction():
            await database[COLLECTION].insert_one({"pid": os.getpid()}, session=session)
            await session.abort_transaction()
    except PyMongoError as error:
        return failed(name, first_line(error), "old episodes are deleted in transactions: start mongod with --replSet")
    return passed(name, "begun and aborted")


def _sharded(hello: dict[str, object]) -> bool:
    return hello.get("msg") == "isdbgrid"


async def check_store(settings: Settings) -> AsyncIterator[Finding]:
    """Put an object, see the second put refused, read it back, delete it."""
    kind, _, rest = settings.checkpoint_store.partition(":")
    name = "checkpoint directory" if kind == "directory" else "checkpoint bucket"
    try:
        async with open_store(settings, Metrics()) as store:
            yield await _put_twice(name, store, settings.checkpoint_store)
    except (UnavailableError, OSError) as error:
        cause = error.__cause__ or error
        if kind == "directory":
            advice = "name a directory that this user may write to"
        else:
            advice = "are bucket, --s3-endpoint-url and the credentials (AWS_ACCESS_KEY_ID, …) right?"
        yield failed(name, f"{settings.checkpoint_store}: {first_line(cause)}", advice)
        return
    if kind == "directory":
        free = shutil.disk_usage(Path(rest)).free
        detail = f"{free / 1e9:.1f} GB free"
        enough = free >= LEAST_FREE_BYTES
        yield passed("checkpoint space", detail) if enough else failed("checkpoint space", detail, "free some space")


async def _put_twice(name: str, store: CheckpointStore, place: str) -> Finding:
    key, body = f"check-{os.urandom(8).hex()}", os.urandom(1000)
    await store.put_new(key, body)
    try:
        await store.put_new(key, b"another")
    except ObjectExistsError:
        same = await store.get(key) == body
        if same:
            return passed(name, f"{place}: written and read back; a second write under the same name is refused")
        return failed(name, f"{place}: what is read is not what was written", "use another store")
    finally:
        await store.delete(key)
    advice = "the S3 server ignores If-None-Match, so checkpoints could be overwritten: use one that honours it"
    return failed(name, f"{place}: a second write under the same name was taken", advice)


async def _run(parts: list[str]) -> None:
    try:
        settings = from_environment()
    except ValidationError as error:
        for item in error.errors():
            tell([failed("settings", f"{'.'.join(map(str, item['loc']))}: {item['msg']}", "correct this option")])
        return
    for part, check in (("database", check_database), ("store", check_store)):
        if part in parts:
            async for finding in check(settings):
                tell([finding])


if __name__ == "__main__":
    asyncio.run(_run(sys.argv[1:]))
