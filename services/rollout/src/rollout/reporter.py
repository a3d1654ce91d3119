"""Tells the replay API every few seconds how this worker is."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from gaitfleet.errors import ApiError, ForbiddenError
from gaitfleet.wire import RunDescription, WorkerOrders, WorkerReport
from rollout.connection import Connection

logger = logging.getLogger(__name__)

REPORT_SECONDS = 5.0
"""The API forgets a worker after half a minute of silence."""

REPORTS_PER_LOOK = 12
"""Every so many reports, or once a minute, it is looked whether the run is still the same one."""


class Reporter:
    """Reports on a thread of its own, and says goodbye at the end.

    Parameters
    ----------
    connection
        Used by that thread only.
    worker
        Name of the worker.
    report
        What to say; called on that thread.
    follow
        Takes what the API answers; called on that thread.
    look
        Takes the run as the API describes it now; called on that thread.
    """

    def __init__(
        self,
        connection: Connection,
        worker: str,
        report: Callable[[], WorkerReport],
        follow: Callable[[WorkerOrders], None],
        look: Callable[[RunDescription], None],
    ) -> None:
        self._connection = connection
        self._worker = worker
        self._report = report
        self._follow = follow
        self._look = look
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reporter", daemon=True)

    def start(self) -> None:
        """Begin to report."""
        self._thread.start()

    def leave(self, timeout_seconds: float) -> None:
        """Say goodbye, unless it takes longer than this."""
        self._stop.set()
        self._thread.join(timeout_seconds)

    def _run(self) -> None:
        reports = 0
        while not self._stop.is_set():
            self._try(lambda: self._follow(self._connection.client.report_worker(self._worker, self._report())))
            reports += 1
            if reports % REPORTS_PER_LOOK == 0:
                self._try(lambda: self._look(self._connection.client.run()))
            self._stop.wait(REPORT_SECONDS)
        self._try(lambda: self._connection.client.leave(self._worker))

    def _try(self, call: Callable[[], None]) -> None:
        try:
            call()
        except ApiError as error:
            logger.info("not reported: %s", error)  # the next report says all that this one would have said
            if isinstance(error, ForbiddenError):
                self._connection.renew()
        except Exception:
            logger.exception("reporting failed")
