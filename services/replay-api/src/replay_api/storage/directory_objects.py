"""Checkpoints as files of a directory."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Self, TypeVar

from replay_api.constants import RETRY_AFTER_SECONDS
from replay_api.errors import UnavailableError
from replay_api.metrics import Metrics
from replay_api.storage.objects import ObjectExistsError, ObjectMissingError, extend, time_limit
from replay_api.storage.shared_check import SharedCheck

T = TypeVar("T")

THREADS = 4
"""Threads that read and write. A disk that hangs holds them and no others; what comes then waits for its time limit."""

_log = logging.getLogger(__name__)


class DirectoryStore:
    """Objects as files; a file appears whole, durable and never twice.

    A body is written to a temporary file, synced, then given its name with `link`, which fails where the name exists;
    then the directory is synced. A crash leaves a temporary file, which the next start removes.
    """

    def __init__(self, root: Path, metrics: Metrics, threads: ThreadPoolExecutor) -> None:
        self._root = root
        self._metrics = metrics
        self._threads = threads
        self._checking = SharedCheck(lambda: self._run(self._check))  # while a disk hangs, all wait for the same thread

    @classmethod
    @asynccontextmanager
    async def open(cls, root: Path, metrics: Metrics) -> AsyncIterator[Self]:
        """The store under `root`, which is created where needed."""
        threads = ThreadPoolExecutor(THREADS, "store")
        try:
            store = cls(root, metrics, threads)
            await store._run(store._prepare)
            yield store
        finally:
            threads.shutdown(wait=False, cancel_futures=True)

    async def put_new(self, key: str, body: bytes | bytearray | memoryview) -> None:
        async with self._asking("put") as limit:
            extend(limit, len(body))
            await self._run(lambda: self._put(key, body))
        self._metrics.s3_bytes.labels("out").inc(len(body))

    async def get(self, key: str) -> bytes:
        async with self._asking("get") as limit:
            extend(limit, await self._run(lambda: self._size(key)))
            body = await self._run(lambda: self._get(key))
        self._metrics.s3_bytes.labels("in").inc(len(body))
        return body

    async def delete(self, key: str) -> None:
        async with self._asking("delete"):
            await self._run(lambda: self._path(key).unlink(missing_ok=True))

    async def find(self, prefix: str) -> AsyncIterator[str]:
        async with self._asking("list"):
            keys = await self._run(lambda: self._find(prefix))
        for key in keys:
            yield key

    async def check(self) -> None:
        async with self._asking("check"):
            await self._checking()

    def _run(self, work: Callable[[], T]) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._threads, work)

    @asynccontextmanager
    async def _asking(self, operation: str) -> AsyncIterator[asyncio.Timeout]:
        began = time.monotonic()
        try:
            async with time_limit() as limit:
                yield limit
        except OSError as error:  # a TimeoutError is one
            self._metrics.s3_errors.labels(operation, type(error).__name__).inc()
            _log.warning(
                "the checkpoint directory refused",
                extra={"operation": operation, "error": str(error) or type(error).__name__},
            )
            detail = f"the checkpoint directory did not {operation} ({type(error).__name__})"
            raise UnavailableError(
                detail, reason="checkpoint_store", retry_after_seconds=RETRY_AFTER_SECONDS
            ) from error
        finally:
            self._metrics.s3_seconds.labels(operation).observe(time.monotonic() - began)

    def _check(self) -> None:
        if not os.access(self._root, os.W_OK | os.X_OK):
            raise PermissionError(f"cannot write to {self._root}")

    def _prepare(self) -> None:
        self._root = self._root.resolve()
        self._root.mkdir(parents=True, exist_ok=True)
        for left_over in self._root.rglob(".new-*"):
            with suppress(FileNotFoundError):  # another process may be writing one, or have ended that, at this moment
                if time.time() - left_over.stat().st_mtime > 3600:
                    left_over.unlink()

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

    def _size(self, key: str) -> int:
        try:
            return self._path(key).stat().st_size
        except FileNotFoundError:
            raise ObjectMissingError(key) from None

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
