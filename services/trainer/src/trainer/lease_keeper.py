"""The right to publish: taken at start, renewed by a thread, given back at the end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from gaitfleet.client import ReplayClient
from gaitfleet.errors import ApiError, ApiUnavailableError, LeaseLostError, LimitedError
from gaitfleet.wire import TrainerProgress
from trainer.metrics import TrainerMetrics

logger = logging.getLogger(__name__)

LONGEST_WAIT_SECONDS = 5.0
"""How long to wait before asking again for a lease that another holds."""

REMIND_SECONDS = 30.0
"""How often a waiting trainer says that it waits."""


class LeaseKeeper:
    """Holds the run's lease.

    Parameters
    ----------
    client
        Of the renewing thread, and before it starts of the caller of `acquire`.
    holder
        Who asks; unique for each start.
    ttl_seconds
        The lease ends this long after the last renewal; it is renewed three times as often.
    metrics
        Where epoch and possession are shown.
    """

    def __init__(self, client: ReplayClient, *, holder: str, ttl_seconds: float, metrics: TrainerMetrics) -> None:
        self._client = client
        self._holder = holder
        self._ttl_seconds = ttl_seconds
        self._metrics = metrics
        self._epoch = 0
        self._stage = 0
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._lost = threading.Event()
        self.progress: Callable[[], TrainerProgress | None] = lambda: None
        """What is reported with each renewal; nothing before learning begins."""

    @property
    def epoch(self) -> int:
        """Epoch of the lease; 0 before it is held."""
        return self._epoch

    @property
    def stage(self) -> int:
        """Stage of the run's curriculum, as of the last renewal; 0 without one."""
        return self._stage

    def acquire(self, stop: threading.Event) -> bool:
        """Take the lease, waiting while another holds it. False when `stop` was set meanwhile."""
        reminded_at = -REMIND_SECONDS
        while not stop.is_set():
            try:
                lease = self._client.acquire_lease(self._holder, ttl_seconds=self._ttl_seconds)
            except (LeaseLostError, ApiUnavailableError, LimitedError) as error:
                if time.monotonic() - reminded_at >= REMIND_SECONDS:
                    logger.warning("waiting for the lease: %s", error)
                    reminded_at = time.monotonic()
                stop.wait(min(self._ttl_seconds / 3, LONGEST_WAIT_SECONDS))
            else:
                self._epoch, self._stage = lease.epoch, lease.stage
                self._metrics.lease_epoch.set(lease.epoch)
                self._metrics.lease_held.set(1)
                logger.info("holding the lease of epoch %d as %s", lease.epoch, self._holder)
                return True
        return False

    def start(self) -> None:
        """Renew from now on."""
        self._thread = threading.Thread(target=self._renew, name="lease-keeper", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise when the lease is gone.

        Raises
        ------
        LeaseLostError
            When another trainer holds the run.
        """
        if self._lost.is_set():
            raise LeaseLostError("another trainer holds the run")

    def stop(self, timeout_seconds: float = 1.0) -> None:
        """Stop renewing and give the lease back, so that a successor need not wait for its end."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout_seconds)
        if self._epoch == 0 or self._lost.is_set() or (self._thread is not None and self._thread.is_alive()):
            return  # it ends by itself
        try:
            self._client.release_lease(self._epoch)
            logger.info("gave the lease back")
        except ApiError as error:
            logger.warning("could not give the lease back: %s", error)
        self._metrics.lease_held.set(0)
        self._client.close()

    def _renew(self) -> None:
        while not self._stopping.wait(self._ttl_seconds / 3):
            try:
                lease = self._client.acquire_lease(
                    self._holder, ttl_seconds=self._ttl_seconds, progress=self.progress()
                )
            except LeaseLostError as error:
                return self._lose(str(error))
            except Exception as error:
                # the lease may end meanwhile; publications are fenced, so going on does no harm
                logger.warning("could not renew the lease: %s", error)
            else:
                if lease.epoch != self._epoch:
                    return self._lose(f"the epoch went from {self._epoch} to {lease.epoch}: another held it meanwhile")
                self._stage = lease.stage

    def _lose(self, reason: str) -> None:
        logger.error("the lease is lost: %s", reason)
        self._metrics.lease_held.set(0)
        self._lost.set()
