"""Checkpoints, encoded and sent in the background."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from gaitfleet.client import ReplayClient
from gaitfleet.errors import ApiUnavailableError, ConflictError, GaitfleetError, LimitedError, RejectedError
from trainer.agent import Agent, Snapshot
from trainer.metrics import TrainerMetrics
from trainer.snapshot import NonFiniteError

logger = logging.getLogger(__name__)

FIRST_AFTER_UPDATES = 100
"""The first policy is published after so many updates: workers should not act at random longer than needed."""

RETRY_SECONDS = 5.0
"""Pause after a publication that failed because the API was away."""


REFUSED_FOR_GOOD = (413, 422)
"""Statuses of a checkpoint that is too large, or not of this run: a restart would only make another such one."""


class CheckpointRefusedError(GaitfleetError):
    """The API takes no checkpoint of these networks, however often one is sent."""


@dataclass
class PublicationSchedule:
    """When the next checkpoint is due.

    Parameters
    ----------
    every_updates, every_seconds
        Whichever comes first.
    published_updates
        Updates at the last publication; 0 before the first.
    published_at
        When that was, or when the trainer began, on the caller's monotonic clock; minus infinity: the first is overdue.
    not_before
        No attempt before this, on the same clock.
    """

    every_updates: int
    every_seconds: float
    published_updates: int
    published_at: float
    not_before: float = 0.0

    def due(self, updates: int, now: float) -> bool:
        """Whether to publish at `updates`."""
        new = updates - self.published_updates
        if new <= 0 or now < self.not_before:
            return False
        first = self.published_updates == 0
        every = min(FIRST_AFTER_UPDATES, self.every_updates) if first else self.every_updates
        return new >= every or now - self.published_at >= self.every_seconds

    def published(self, updates: int, now: float) -> None:
        """The checkpoint taken at `now` is published."""
        self.published_updates, self.published_at = updates, now

    def failed(self, now: float) -> None:
        """A publication failed for a passing reason and should be tried again soon."""
        self.not_before = now + RETRY_SECONDS


class Publisher:
    """Publishes one snapshot at a time.

    Parameters
    ----------
    client
        Of this publisher alone.
    epoch
        The lease's epoch, which fences the publication.
    schedule
        When to publish; changed as publications end.
    metrics
        Where results are counted.
    """

    def __init__(
        self, client: ReplayClient, epoch: Callable[[], int], schedule: PublicationSchedule, metrics: TrainerMetrics
    ) -> None:
        self._client = client
        self._epoch = epoch
        self._schedule = schedule
        self._metrics = metrics
        metrics.published_step.set(schedule.published_updates)  # a trainer that resumes has published what it resumed
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None

    @property
    def busy(self) -> bool:
        """Whether a publication is in flight."""
        return self._thread is not None and self._thread.is_alive()

    def check(self) -> None:
        """Raise what made the last publication fail for good.

        Raises
        ------
        NonFiniteError
            When the snapshot held a weight that is not finite; nothing was sent.
        ConflictError
            When another trainer holds the run (`LeaseLostError`), or has published a later step.
        CheckpointRefusedError
            When the API refused the checkpoint for what it is.
        ApiError
            When the API refused it otherwise.
        """
        if self._failure is not None:
            raise self._failure

    def due(self, agent: Agent) -> bool:
        """Whether the schedule wants a publication now, `agent` can be published, and none is in flight."""
        return not self.busy and agent.publishable and self._schedule.due(agent.updates, time.monotonic())

    def start(self, snapshot: Snapshot) -> None:
        """Publish `snapshot` in the background. None may be in flight."""
        self._thread = threading.Thread(target=self._publish, args=(snapshot,), name="publisher", daemon=True)
        self._thread.start()

    def finish(self, agent: Agent, timeout_seconds: float) -> None:
        """Publish what is not published yet, and wait for it as long as time allows.

        Raises
        ------
        Exception
            As `check`.
        """
        deadline = time.monotonic() + timeout_seconds
        self._join(deadline)
        self.check()
        if not self.busy and agent.publishable and agent.updates > self._schedule.published_updates:
            self.start(agent.snapshot())
            self._join(deadline)
        if self.busy:
            logger.warning("the last checkpoint took longer than %.0f s and may be lost", timeout_seconds)
        self.check()

    def _join(self, deadline: float) -> None:
        if self._thread is not None:
            self._thread.join(max(0.0, deadline - time.monotonic()))

    def _publish(self, snapshot: Snapshot) -> None:
        started = time.monotonic()
        try:
            body = snapshot.encode()
            self._client.publish_checkpoint(snapshot.step, self._epoch(), body)
        except NonFiniteError as error:
            self._metrics.nonfinite.inc()
            self._fail("error", error, f"checkpoint {snapshot.step} is not published: {error}")
        except ConflictError as error:
            self._fail("fenced", error, f"checkpoint {snapshot.step} was fenced: {error}")
        except (ApiUnavailableError, LimitedError) as error:
            self._metrics.publications("error").inc()
            self._schedule.failed(time.monotonic())
            logger.warning("checkpoint %d could not be published: %s; it will be tried again", snapshot.step, error)
        except Exception as error:
            message = f"checkpoint {snapshot.step} was refused: {error}"
            if isinstance(error, RejectedError) and error.status in REFUSED_FOR_GOOD:
                message = _refusal(snapshot.step, len(body), error)
                error = CheckpointRefusedError(message)
            self._fail("error", error, message)
        else:
            self._metrics.publications("ok").inc()
            self._metrics.publish_duration.observe(time.monotonic() - started)
            self._metrics.published_step.set(snapshot.step)
            self._schedule.published(snapshot.step, started)
            logger.info("published checkpoint %d (%.1f MB)", snapshot.step, len(body) / 1e6)

    def _fail(self, result: str, error: Exception, message: str) -> None:
        self._metrics.publications(result).inc()
        logger.error(message)
        self._failure = error


def _refusal(step: int, size_bytes: int, error: RejectedError) -> str:
    message = f"checkpoint {step} of {size_bytes} bytes is refused for good: {error}"
    if error.status == 413:
        message += ". Give the replay API a larger max_checkpoint_bytes, or the experiment smaller networks"
    return message
