"""Batches, fetched ahead by a thread of their own.

The thread samples K batches in one response, copies each into a buffer that is free, and hands that buffer over. A
buffer has exactly one owner at a time: the feed until it is taken, the learner until it is released (and, on a GPU,
until the copy that was started from it is done). Nothing is ever written into a buffer that somebody may still read.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from dataclasses import fields
from functools import cache

import numpy as np
import torch

from gaitfleet.batch import Batch, BatchBuffer, batch_specs
from gaitfleet.client import Backoff, ReplayClient
from gaitfleet.codec import Array
from gaitfleet.errors import ApiUnavailableError, CodecError, LimitedError
from gaitfleet.wire import BatchRequest
from trainer.metrics import TrainerMetrics
from trainer.transitions import Transitions

logger = logging.getLogger(__name__)

SMALLEST_REQUEST = 8
"""Batches in a response at first: from 8 on the rate is within 30 % of the best that was measured."""

LARGEST_REQUEST = 32
"""Batches in a response at most: the fastest that was measured; 64 were slower."""

LARGEST_BUFFERS_BYTES = 256 << 20
"""Memory for prefetched batches. Large batches are fetched fewer at a time."""

LONGEST_HOLD_SECONDS = 1.0
"""How long the API may hold a request: the feed can stop only between two requests."""

RETRY_AFTER_SECONDS = (0.05, 2.0)
"""Bounds of the wait that the limiter asks for: no busy loop, and no long sleep when asking again costs nothing."""

POLL_SECONDS = 0.2
"""How often a waiting thread looks whether it should stop."""


class HostBatch:
    """Buffers of one batch in host memory, pinned when a GPU reads from them."""

    def __init__(self, batch_size: int, observation_size: int, action_size: int, *, pinned: bool) -> None:
        self.transitions = Transitions.empty(batch_size, observation_size, action_size, pinned=pinned)
        self.index = np.zeros(batch_size, np.int64)
        self.policy_version = np.zeros(batch_size, np.int64)
        self.own = batch_size
        """Rows from the run itself; they are the first."""
        self.asked_at = 0.0
        """When it was asked for, on the monotonic clock."""
        self._copied: torch.cuda.Event | None = None

    def to(self, device: torch.device) -> Transitions:
        """The transitions on `device`. On the CPU they are the buffers themselves: release them after the last use."""
        if device.type != "cuda":
            return self.transitions.to(device)
        stream, learning = _copying(device), torch.cuda.current_stream(device)
        with torch.cuda.stream(stream):
            transitions = self.transitions.to(device)
        self._copied = stream.record_event()
        learning.wait_event(self._copied)
        for field in fields(transitions):
            getattr(transitions, field.name).record_stream(learning)  # made on one stream, used on the other
        return transitions

    def fill(self, batch: Batch, asked_at: float) -> None:
        """Copy a decoded batch into the buffers, once nothing reads them any more.

        Raises
        ------
        CodecError
            When the batch has other shapes than were asked for.
        """
        if self._copied is not None:
            self._copied.synchronize()
            self._copied = None
        for field in fields(Transitions):
            _copy(field.name, getattr(batch, field.name), getattr(self.transitions, field.name).numpy())
        _copy("index", batch.index, self.index)
        _copy("policy_version", batch.policy_version, self.policy_version)
        self.own, self.asked_at = batch.own, asked_at


class BatchFeed:
    """Prefetches batches in the background.

    Parameters
    ----------
    client
        Of this feed alone; one try for each call, because the feed has its own patience.
    request
        What is sampled; `batches` and `wait_seconds` are chosen here.
    observation_size, action_size
        Of the task.
    pinned
        Whether the buffers are pinned, for a GPU.
    metrics
        Where fetches are counted.
    """

    def __init__(
        self,
        client: ReplayClient,
        request: BatchRequest,
        *,
        observation_size: int,
        action_size: int,
        pinned: bool,
        metrics: TrainerMetrics,
    ) -> None:
        self._sizes = (request.batch_size, observation_size, action_size)
        self._pinned = pinned
        batch_bytes = sum(spec.nbytes for spec in batch_specs(1, *self._sizes).values())
        self._most = max(1, min(LARGEST_REQUEST, LARGEST_BUFFERS_BYTES // (2 * batch_bytes)))  # body and buffers
        self._batches = min(SMALLEST_REQUEST, self._most)
        self._client = client
        self._request = request.model_copy(update={"wait_seconds": LONGEST_HOLD_SECONDS})
        self._metrics = metrics
        self._buffer_count = 0
        self._free: queue.SimpleQueue[HostBatch] = queue.SimpleQueue()
        self._ready: queue.SimpleQueue[HostBatch] = queue.SimpleQueue()
        # The body of a response. The thread reads the next one only when every batch of the last has been copied out
        self._buffer = BatchBuffer(batch_bytes * self._most + (64 << 10))
        self._backoff = Backoff(first_seconds=0.5, maximum_seconds=10.0)
        self._stopping = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="batch-feed", daemon=True)

    def start(self) -> None:
        """Begin to fetch."""
        self._thread.start()

    def take(self, timeout_seconds: float) -> HostBatch | None:
        """The next batch, now owned by the caller; None when there is none in time.

        Raises
        ------
        ApiError
            When the API refuses what the feed asks for.
        CodecError
            When it sent something else than batches of this task.
        """
        try:
            batch = self._ready.get(timeout=timeout_seconds)
        except queue.Empty:
            if self._failure is not None:
                raise self._failure from None
            return None
        self._metrics.prefetched.set(self._ready.qsize())
        return batch

    def release(self, batch: HostBatch) -> None:
        """Give a taken batch back; the caller does not touch it any more."""
        self._free.put(batch)

    def ask_to_stop(self) -> None:
        """Let the request in hand be the last one."""
        self._stopping.set()

    def stop(self, timeout_seconds: float = 2.0) -> bool:
        """Stop fetching. False when a request is still open then; the thread does not outlive the process."""
        self.ask_to_stop()
        if self._thread.is_alive():
            self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._fetch()
        except Exception as error:
            logger.exception("the feed has failed")
            self._failure = error
        finally:
            self._client.close()

    def _fetch(self) -> None:
        """One request, and its batches handed over; or one wait."""
        asked_at = time.monotonic()
        try:
            request = self._request.model_copy(update={"batches": self._batches})
            body = self._client.sample_batches(request, self._buffer.memory)
        except LimitedError as error:
            self._metrics.feed_waits("limited").inc()
            self._batches = min(SMALLEST_REQUEST, self._most)
            shortest, longest = RETRY_AFTER_SECONDS
            self._stopping.wait(min(max(error.retry_after_seconds, shortest), longest))
            return
        except ApiUnavailableError as error:
            self._metrics.feed_waits("unavailable").inc()
            wait = self._backoff.next_seconds(at_least=error.retry_after_seconds)
            logger.warning("no batches: %s; trying again in %.1f s", error, wait)
            self._stopping.wait(wait)
            return
        self._backoff.reset()
        self._metrics.batch_fetch.observe(time.monotonic() - asked_at)
        ran_dry = self._buffer_count > 0 and self._ready.empty()
        batches = self._buffer.decode(body)
        if ran_dry and len(batches) == self._batches:
            self._batches = min(2 * self._batches, self._most)
        for batch in batches:
            self._hand_over(batch, asked_at)

    def _hand_over(self, batch: Batch, asked_at: float) -> None:
        buffer = self._free_buffer()
        if buffer is not None:
            buffer.fill(batch, asked_at)
            self._ready.put(buffer)
            self._metrics.prefetched.set(self._ready.qsize())

    def _free_buffer(self) -> HostBatch | None:
        """A buffer that nobody reads; a new one while there are few; None when the feed is stopping.

        There is one for every batch of a response, and one for the learner: so the next request is sent when a
        response's worth of batches is still ready.
        """
        while not self._stopping.is_set():
            may_grow = self._buffer_count < self._batches + 1
            try:
                return self._free.get(timeout=0.0 if may_grow else POLL_SECONDS)
            except queue.Empty:
                if may_grow:
                    self._buffer_count += 1
                    return HostBatch(*self._sizes, pinned=self._pinned)
        return None


@cache
def _copying(device: torch.device) -> torch.cuda.Stream:
    """A stream of its own, so that the next batch is copied while the GPU still learns from the one before it."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def _copy(name: str, source: Array, target: Array) -> None:
    if source.shape != target.shape:
        message = f"{name} of a sampled batch is {list(source.shape)}, asked for {list(target.shape)}"
        raise CodecError(message, field=name, reason="shape")
    np.copyto(target, source, casting="same_kind")  # float16 becomes float32 here
