"""Checkpoints as files of a directory."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self, TypeVar

from replay_api.constants import RETRY_AFTER_SECONDS
from replay_api.errors import UnavailableError
from replay_api.metrics import Metrics
from replay_api.storage.objects import ObjectExistsError, ObjectMissingError

T = TypeVar("T")

_log = logging.getLogger(__name__)


class DirectoryStore:
    """Objects as files; a file appears whole, durable and never twice.

    A body is written to a temporary file, synced, then given its name with `link`, which fails where the name exists;
    then the directory is synced. A crash leaves a temporary file, which the next start removes.
    """

    def __init__(self, root: Path, metrics: Metrics) -> None:
        self._root = root
        self._metrics = metrics

    @classmethod
    @asynccontextmanager
    async def open(cls, root: Path, metrics: Metrics) -> AsyncIterator[Self]:
        """The store under `root`, which is created where needed."""
        store = cls(root, metrics)
        await asyncio.to_thread(store._prepare)
        yield store

    async def put_new(self, key: str, body: bytes | bytearray | memoryview) -> None:
        await self._do("put", lambda: self._put(key, body))
        self._metrics.s3_bytes.labels("out").inc(len(body))

    async def get(self, key: str) -> bytes:
        body = await self._do("get", lambda: self._get(key))
        self._metrics.s3_bytes.labels("in").inc(len(body))
        return body

    async def delete(self, key: str) -> None:
        await self._do("delete", lambda: self._path(key).unlink(missing_ok=True))

    async def find(self, prefix: str) -> AsyncIterator[str]:
        for found in await self._do("list", lambda: self._find(prefix)):
            yield found

    async def check(self) -> None:
        def writable() -> None:
            if not os.access(self._root, os.W_OK | os.X_OK):
                raise PermissionError(f"cannot write to {self._root}")

        await self._do("check", writable)

    async def _do(self, operation: str, work: Callable[[], T]) -> T:
        began = time.monotonic()
        try:
            return await asyncio.to_thread(work)
        except OSError as error:
            self._metrics.s3_errors.labels(operation, type(error).__name__).inc()
            _log.warning("the checkpoint directory refused", extra={"operation": operation, "error": str(error)})
            detail = f"the checkpoint directory did not {operation} ({type(error).__name__})"
            raise UnavailableError(
                detail, reason="checkpoint_store", retry_after_seconds=RETRY_AFTER_SECONDS
            ) from error
        finally:
            self._metrics.s3_seconds.labels(operation).observe(time.monotonic() - began)

    def _prepare(self) -> None:
        self._root = self._root.resolve()
        self._root.mkdir(parents=True, exist_ok=True)
        for left_over in self._root.rglob(".new-*"):
            # another process may be writing one at this moment
            if time.time() - left_over.stat().st_mtime > 3600:
                left_over.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        path = (self._root / key).resolve()
        if not path.is_relative_to(self._root):
            raise ValueError(f"key {key!r} leads out of the store")
        return path

    def _put(self, key: str, body: bytes | bytearray | memoryview) -> None:
        path = self._path(key)
        if path.exists():
            raise ObjectExistsError(key)
        self._make_directory(path.parent)
        temporary = path.parent / f".new-{os.getpid()}-{os.urandom(6).hex()}"
        try:
            with temporary.open("xb") as file:
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(temporary, path)
            except FileExistsError:
                raise ObjectExistsError(key) from None
        finally:
            temporary.unlink(missing_ok=True)
        _sync_directory(path.parent)

    def _make_directory(self, directory: Path) -> None:
        missing = [parent for parent in (directory, *directory.parents) if not parent.exists()]
        directory.mkdir(parents=True, exist_ok=True)
        for created in missing:
            _sync_directory(created.parent)

    def _get(self, key: str) -> bytes:
        try:
            return self._path(key).read_bytes()
        except FileNotFoundError:
            raise ObjectMissingError(key) from None

    def _find(self, prefix: str) -> list[str]:
        directory = self._path(prefix)
        files = (path for path in sorted(directory.rglob("*")) if path.is_file() and not path.name.startswith(".new-"))
        return [path.relative_to(self._root).as_posix() for path in files]


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
