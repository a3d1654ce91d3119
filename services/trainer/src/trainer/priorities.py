"""New priorities, sent back in the background."""

from __future__ import annotations

import logging
import math
import queue
import threading

import numpy as np
import numpy.typing as npt
from torch import Tensor

from gaitfleet.client import ReplayClient
from gaitfleet.errors import ApiError, ApiUnavailableError, LimitedError
from gaitfleet.wire import PriorityReceipt, PriorityUpdate
from trainer.metrics import TrainerMetrics

logger = logging.getLogger(__name__)

LARGEST_BACKLOG = 64
"""Batches whose priorities may wait; beyond it the oldest are dropped, and their transitions keep older priorities."""

LARGEST_UPDATE = 65_536
"""Transitions that the API takes in one request."""

TELLING_UPDATES = 200
"""Updates in a row that find none of their transitions: more than there are batches on their way, prefetched (64 at
most) or in the backlog, when the API loads its memory anew, as for another stage."""

Work = tuple[npt.NDArray[np.int64], Tensor]


class PrioritySender:
    """Sends absolute temporal-difference errors to the replay API.

    Reading the errors waits for the device, so that it happens in this thread and never in the learner's.

    Parameters
    ----------
    client
        Of this sender alone.
    metrics
        Where losses are counted, and transitions that were not there any more.
    """

    def __init__(self, client: ReplayClient, metrics: TrainerMetrics) -> None:
        self._client = client
        self._metrics = metrics
        self._in_vain = 0  # updates in a row
        self._backlog: queue.Queue[Work | None] = queue.Queue(LARGEST_BACKLOG)
        self._thread = threading.Thread(target=self._run, name="priority-sender", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def send(self, index: npt.NDArray[np.int64], td_error: Tensor) -> None:
        """Queue the errors [B] of a batch; never waits. `index` [B] is copied."""
        while True:
            try:
                return self._backlog.put_nowait((index.copy(), td_error))
            except queue.Full:
                self._drop_oldest()

    def stop(self, timeout_seconds: float = 1.0) -> None:
        """Send what is queued, as far as time allows."""
        while True:
            try:
                self._backlog.put_nowait(None)
                break
            except queue.Full:
                self._drop_oldest()
        self._thread.join(timeout_seconds)

    def _drop_oldest(self) -> None:
        try:
            self._backlog.get_nowait()
        except queue.Empty:
            return
        self._metrics.priorities_dropped.inc()

    def _run(self) -> None:
        while (work := self._backlog.get()) is not None:
            try:
                update = _priority_update([work, *self._more(len(work[0]))])
                self._count(self._client.update_priorities(update))
            except (ApiUnavailableError, LimitedError) as error:
                self._metrics.priorities_dropped.inc()
                logger.warning("priorities were not sent: %s", error)
            except ApiError:
                self._metrics.priorities_dropped.inc()
                logger.exception("priorities were refused")
        self._client.close()

    def _count(self, receipt: PriorityReceipt) -> None:
        self._metrics.priorities_evicted.inc(receipt.evicted)
        self._in_vain = 0 if receipt.updated else self._in_vain + 1
        if self._in_vain == TELLING_UPDATES:
            logger.warning(
                "the last %d updates of priorities found none of their transitions: one replica of the API sends the "
                "batches, and another gets their priorities",
                TELLING_UPDATES,
            )

    def _more(self, size: int) -> list[Work]:
        """What else is queued, as long as it fits into one request."""
        more: list[Work] = []
        while size + (len(more) + 1) * size <= LARGEST_UPDATE:
            try:
                work = self._backlog.get_nowait()
            except queue.Empty:
                break
            if work is None:
                self._backlog.put(None)
                break
            more.append(work)
        return more


def _priority_update(works: list[Work]) -> PriorityUpdate:
    index: list[int] = []
    priority: list[float] = []
    for rows, td_error in works:
        for row, error in zip(rows.tolist(), td_error.tolist(), strict=True):
            if math.isfinite(error):
                index.append(row)
                priority.append(error)
    return PriorityUpdate(index=index, priority=priority)
