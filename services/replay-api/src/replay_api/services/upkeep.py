"""What runs beside the requests: indexes, preloading, idle runs, the lag of the event loop."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque

from replay_api.errors import UnavailableError
from replay_api.metrics import Metrics
from replay_api.services.registry import RunRegistry
from replay_api.settings import Settings
from replay_api.storage.indexes import IndexConflictError, build_indexes
from replay_api.storage.mongo import DatabaseClock

LAG_INTERVAL_SECONDS = 0.005
"""Interval in s of the timer whose lateness is the event loop's lag: what blocks the loop is seen but for this much."""

IDLE_INTERVAL_SECONDS = 60.0
"""Interval in s at which unused runs are looked for."""

CONFLICT_SECONDS = 10.0
"""Interval in s at which it is looked whether an index that is in the way was dropped."""

_log = logging.getLogger(__name__)


class Upkeep:
    """The service's own background loops.

    Attributes
    ----------
    lacking
        What the database lacks before requests can be served; None when nothing.
    store_answered
        Whether the checkpoint store has answered since the start: a wrong address or key shows then.
    """

    def __init__(self, settings: Settings, registry: RunRegistry, clock: DatabaseClock, metrics: Metrics) -> None:
        self._settings = settings
        self._registry = registry
        self._clock = clock
        self._metrics = metrics
        self._tasks: list[asyncio.Task[None]] = []
        self.lacking: str | None = "indexes are being created"
        self.store_answered = False

    def start(self) -> None:
        """Begin; the service answers at once, and is ready when the indexes are there."""
        self._tasks = [asyncio.ensure_future(loop()) for loop in (self._prepare, self._watch_lag, self._close_idle)]

    async def stop(self) -> None:
        """End."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _prepare(self) -> None:
        steps = deque((self._build_indexes, self._registry.preload))
        while steps:
            try:
                await steps[0]()
                steps.popleft()
            except UnavailableError:
                await asyncio.sleep(1.0)
            except IndexConflictError as error:
                self.lacking = str(error)
                _log.error(self.lacking)
                await asyncio.sleep(CONFLICT_SECONDS)
            except Exception:
                _log.exception("indexes cannot be created, or runs not be opened in advance")
                await asyncio.sleep(5.0)

    async def _build_indexes(self) -> None:
        await build_indexes(self._settings, self._metrics)
        await self._clock.ask()  # the history is in its order, from the first event on
        self.lacking = None

    async def _watch_lag(self) -> None:
        while True:
            used, due = time.process_time(), time.monotonic() + LAG_INTERVAL_SECONDS
            await asyncio.sleep(LAG_INTERVAL_SECONDS)
            lag = max(0.0, time.monotonic() - due)
            self._metrics.loop_lag.observe(lag)
            # The loop, and threads that may have held the interpreter; the rest of the lag is waiting for a core.
            self._metrics.loop_busy.observe(min(lag, time.process_time() - used))

    async def _close_idle(self) -> None:
        while True:
            await asyncio.sleep(IDLE_INTERVAL_SECONDS)
            await self._registry.close_idle()
