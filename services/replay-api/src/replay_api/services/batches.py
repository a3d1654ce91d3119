"""Answering a request for batches: the limiter's grant, then one batch after the other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from gaitfleet import codec
from gaitfleet.batch import BATCHES_KEY, BatchesMetadata, batch_specs
from gaitfleet.wire import BatchRequest, PriorityReceipt, PriorityUpdate
from replay_api.constants import MAX_PRIORITY
from replay_api.errors import LimitedError, RejectedError
from replay_api.metrics import Metrics
from replay_api.services.admission import Admission
from replay_api.services.mixture import portions
from replay_api.services.open_run import OpenRun
from replay_api.services.sampling import Sampler, batch_layout
from replay_api.settings import Settings

INLINE_BATCH_BYTES = 4 << 20
"""Batches up to this many bytes are gathered on the event loop, which takes a millisecond or less; the way to a thread
and back costs a third more processor time. Larger ones would keep other requests waiting."""


@dataclass(frozen=True, slots=True)
class BatchAnswer:
    """The size of an answer, and its pieces in order."""

    content_length: int
    pieces: AsyncGenerator[bytes | memoryview]


class BatchService:
    """Samples for the trainer."""

    def __init__(self, metrics: Metrics, settings: Settings, threads: Executor, stop: asyncio.Event) -> None:
        self._metrics = metrics
        self._max_bytes = settings.max_sample_bytes
        self._admission = Admission(settings.max_concurrent_samples, "sample requests")
        self._threads = threads
        self._stop = stop

    async def answer(self, opened: OpenRun, request: BatchRequest) -> BatchAnswer:
        """Wait for the limiter, then say what will be sent.

        Raises
        ------
        LimitedError
            When no batch was granted in time, or too many requests wait already.
        RejectedError
            When the request cannot be served, ever.
        """
        self._check(opened, request)
        with self._admission.take(1):
            granted = await self._grant(opened, request)
        drawing = _Drawing(opened, request, granted)
        try:
            first = await self._draw(drawing)
        except BaseException:
            opened.limiter.give_back(granted * request.batch_size)
            raise
        task = opened.task.description
        sizes = task.observation_size, task.action_size
        made_up = tuple((portion.name, portion.rows) for portion in drawing.made_up)
        header, body_bytes = _header(granted, request.batch_size, *sizes, request.half_precision, made_up)
        length = len(header) + body_bytes
        return BatchAnswer(length, self._pieces(opened, drawing, granted, header, first))

    def set_priorities(self, opened: OpenRun, update: PriorityUpdate) -> PriorityReceipt:
        """Set priorities of sampled transitions.

        Raises
        ------
        RejectedError
            When the run is not sampled by priority, the lists differ in length, or a priority is negative, not finite
            or so large that their sum might not be.
        """
        if opened.cache.tree is None:
            raise RejectedError("this run samples uniformly; it has no priorities", field="index", reason="sampling")
        if len(update.index) != len(update.priority):
            detail = f"index has {len(update.index)} values, priority has {len(update.priority)}"
            raise RejectedError(detail, field="priority", reason="shape")
        priority = np.array(update.priority, np.float64)
        wrong = ~np.isfinite(priority) | (priority < 0) | (priority > MAX_PRIORITY)
        if wrong.any():
            i = int(np.argmax(wrong))
            detail = f"priority[{i}] is {priority[i]}, must be finite, not negative and at most {MAX_PRIORITY:g}"
            raise RejectedError(detail, field=f"priority[{i}]", reason="bounds")
        try:
            index = np.array(update.index, np.int64)
        except OverflowError:
            raise RejectedError("an index does not fit 64 bits", field="index", reason="bounds") from None
        caches = [opened.cache, *(source.cache for source in opened.sources)]
        updated = sum(cache.set_priorities(index, priority) for cache in caches)
        return PriorityReceipt(updated=updated, evicted=len(index) - updated)

    def _check(self, opened: OpenRun, request: BatchRequest) -> None:
        if request.sampling == "prioritized" and opened.cache.tree is None:
            detail = "sampling is 'prioritized', but the run's experiment says replay.sampling: uniform"
            raise RejectedError(detail, field="sampling", reason="sampling")
        row = 2 * opened.cache.observation.shape[1] + opened.cache.action.shape[1] + 8
        size = 4 * row * request.batch_size * request.batches
        if size > self._max_bytes:
            what = f"{request.batches} batches of {request.batch_size}"
            detail = f"{what} are {size} bytes; at most {self._max_bytes} are sent at once"
            raise RejectedError(detail, field="batches", reason="too_large")

    async def _grant(self, opened: OpenRun, request: BatchRequest) -> int:
        began = time.monotonic()
        granted = await opened.limiter.acquire(request.batch_size, request.batches, request.wait_seconds, self._stop)
        blocked = time.monotonic() - began
        if blocked > 0.001:
            self._metrics.blocked_seconds.labels(opened.run, "sample").inc(blocked)
        if granted == 0:
            self._metrics.limited.labels(opened.run, "sample").inc()
            detail = opened.limiter.explain(request.batch_size)
            raise LimitedError(detail, reason="samples_limited", retry_after_seconds=1)
        return granted

    async def _draw(self, drawing: _Drawing) -> memoryview:
        if drawing.inline:
            batch = drawing.batch()
        else:
            batch = await asyncio.get_running_loop().run_in_executor(self._threads, drawing.batch)
        if batch is None:
            raise LimitedError("no transition is in memory", reason="loading", retry_after_seconds=1)
        return batch

    async def _pieces(
        self, opened: OpenRun, drawing: _Drawing, granted: int, header: bytes, first: memoryview
    ) -> AsyncGenerator[bytes | memoryview]:
        sent, batch_size = 0, drawing.request.batch_size
        try:
            yield header
            batch = first
            while True:
                yield batch
                sent += 1
                if sent == granted:
                    return
                batch = await self._draw(drawing)
        finally:
            self._metrics.sampled_items.labels(opened.run).inc(sent * batch_size)
            if sent < granted:  # the client has gone
                opened.limiter.give_back((granted - sent) * batch_size)


class _Drawing:
    """What the batches of one answer are drawn from, and how they are rewarded: the same for all of them."""

    def __init__(self, opened: OpenRun, request: BatchRequest, count: int) -> None:
        self.request = request
        self.inline = batch_layout(request, opened.cache).nbytes <= INLINE_BATCH_BYTES
        sampler = opened.sampler if self.inline else Sampler()
        self.made_up = portions(opened.cache, opened.sources, request.batch_size, sampler.random)
        self._batches = sampler.batches(request, count, self.made_up, opened.reward_weight)

    def batch(self) -> memoryview | None:
        """The next batch; None when nothing is there to draw from."""
        return next(self._batches, None)


@lru_cache(maxsize=256)
def _header(
    batches: int,
    batch_size: int,
    observation_size: int,
    action_size: int,
    half_precision: bool,
    made_up: tuple[tuple[str, int], ...],
) -> tuple[bytes, int]:
    """Header of an answer, and the bytes that follow it: a trainer asks for the same again and again."""
    specs = batch_specs(batches, batch_size, observation_size, action_size, half_precision=half_precision)
    metadata = {} if len(made_up) == 1 else {BATCHES_KEY: BatchesMetadata(sources=dict(made_up)).model_dump_json()}
    return codec.header(specs, metadata), sum(spec.nbytes for spec in specs.values())
