"""What a checkpoint store must do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Protocol

from replay_api.constants import BODY_BYTES_PER_SECOND, STORE_SECONDS


class ObjectExistsError(Exception):
    """An object is there under this key; objects are never overwritten."""


class ObjectMissingError(Exception):
    """There is no object under this key."""


def time_limit() -> asyncio.Timeout:
    """Of one operation."""
    return asyncio.timeout(STORE_SECONDS)


def extend(limit: asyncio.Timeout, nbytes: int) -> None:
    """Give an operation the time that it may take, from now, for an object of this size."""
    limit.reschedule(asyncio.get_running_loop().time() + STORE_SECONDS + nbytes / BODY_BYTES_PER_SECOND)


class CheckpointStore(Protocol):
    """Immutable objects by key. Every method raises `UnavailableError` when the store does not answer in time."""

    async def put_new(self, key: str, body: bytes | bytearray | memoryview) -> None:
        """Keep an object durably.

        Raises
        ------
        ObjectExistsError
            When one is there under this key.
        """

    async def get(self, key: str) -> bytes:
        """A whole object.

        Raises
        ------
        ObjectMissingError
            When there is none.
        """

    async def delete(self, key: str) -> None:
        """Delete an object; does nothing when there is none."""

    def find(self, prefix: str) -> AsyncIterator[str]:
        """Keys that begin with `prefix`."""

    async def check(self) -> None:
        """Ask whether the store can be used."""
