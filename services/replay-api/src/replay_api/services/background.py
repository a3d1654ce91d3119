"""Work that outlives the request that caused it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

_log = logging.getLogger(__name__)


class Background:
    """Named tasks, at most one of each name, awaited at shutdown."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Begin `work` unless work of this name is going on."""
        if name not in self._tasks:
            task = self._tasks[name] = asyncio.ensure_future(self._run(name, work))
            task.add_done_callback(lambda _: self._tasks.pop(name, None))

    async def settle(self) -> None:
        """Wait until nothing is left."""
        while self._tasks:
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def stop(self, seconds: float) -> None:
        """Give what is under way so many seconds to end, then cancel it."""
        tasks = list(self._tasks.values())
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=seconds)
            for task in late:
                task.cancel()

    @staticmethod
    async def _run(name: str, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except Exception:
            _log.exception("background work failed", extra={"work": name})
