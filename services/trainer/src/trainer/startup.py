"""What happens before the first update: wait for the API and the run, and find where the run stands."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from gaitfleet.client import ReplayClient
from gaitfleet.course_settings import WarmStartSettings
from gaitfleet.errors import ApiUnavailableError, GaitfleetError, LimitedError, NotFoundError
from gaitfleet.problems import CHECKPOINT_NOT_FOUND
from gaitfleet.wire import RunDescription
from trainer.agent import Agent
from trainer.lease_keeper import LeaseKeeper

logger = logging.getLogger(__name__)

T = TypeVar("T")

RETRY_SECONDS = 2.0
"""How long to wait before asking again."""

REMIND_SECONDS = 30.0
"""How often a waiting trainer says that it waits."""

LOST_ATTEMPTS = 5
"""Attempts to read a checkpoint that is not there: one that is thinned out in between has a successor the next time."""


class CheckpointLostError(GaitfleetError):
    """A published checkpoint cannot be had, and will not come by waiting."""


def wait_for_run(client: ReplayClient, stop: threading.Event) -> RunDescription | None:
    """The run, as soon as the API is there and knows it; None when `stop` was set meanwhile.

    Raises
    ------
    ForbiddenError
        When the token is wrong.
    """
    return _patiently(client.run, stop, what="the run")


def resume(agent: Agent, client: ReplayClient, lease: LeaseKeeper, stop: threading.Event) -> None:
    """Go on from the newest checkpoint, if there is one. The lease must be held, or another could publish meanwhile.

    An older one would not do: nothing is published below the head, so workers without a policy would wait meanwhile.

    Raises
    ------
    LeaseLostError
        When another trainer holds the run.
    CodecError, CheckpointMismatchError
        When that checkpoint cannot be used.
    CheckpointLostError
        When the database knows of it, and the checkpoint store has it not.
    """
    found = _patiently(
        lambda: (client.download_checkpoint("newest"),),
        stop,
        check=lease.check,
        what="the newest checkpoint",
        lost=(
            "the database knows of it, the checkpoint store has it not. Name the right store to the replay API, or "
            "bring the run's objects back into it; or fork the run: a fork keeps the episodes and begins to learn anew"
        ),
    )
    if found is None:
        return
    (body,) = found
    if body is None:
        logger.info("no checkpoint yet; starting at step 0")
        return
    agent.restore(body)
    logger.info("resumed from step %d", agent.updates)


def warm_start(
    agent: Agent, settings: WarmStartSettings, source: ReplayClient, lease: LeaseKeeper, stop: threading.Event
) -> None:
    """Begin with a checkpoint of another run, as soon as there is one.

    Parameters
    ----------
    source
        Client of that run.

    Raises
    ------
    LeaseLostError
        When another trainer holds the run meanwhile.
    CodecError, CheckpointMismatchError
        When that checkpoint cannot be used.
    CheckpointLostError
        When it is not kept any more.
    """
    which = "newest" if settings.checkpoint == "latest" else settings.checkpoint
    what = f"checkpoint {settings.checkpoint} of run {settings.run}"

    def download() -> bytes:
        body = source.download_checkpoint(which)
        if body is None:
            raise NotFoundError(f"{what} is not published yet")
        return body

    lost = "it was thinned out, or the checkpoint store has lost it. Create a run with another warm_start"
    body = _patiently(download, stop, check=lease.check, what=what, lost=lost)
    if body is not None:
        agent.warm_start(body, optimizers=settings.optimizers)
        logger.info("warm start from %s", what, extra=agent.origin)


def _patiently(
    call: Callable[[], T],
    stop: threading.Event,
    *,
    what: str,
    lost: str = "",
    check: Callable[[], None] = lambda: None,
) -> T | None:
    reminded_at, not_there = -REMIND_SECONDS, 0
    while not stop.is_set():
        check()
        try:
            return call()
        except (ApiUnavailableError, NotFoundError, LimitedError) as error:
            not_there += error.problem.get("type") == CHECKPOINT_NOT_FOUND
            if not_there == LOST_ATTEMPTS:
                raise CheckpointLostError(f"{what} cannot be had ({error}): {lost}") from error
            if time.monotonic() - reminded_at >= REMIND_SECONDS:
                logger.warning("waiting for %s: %s", what, error)
                reminded_at = time.monotonic()
            stop.wait(RETRY_SECONDS)
    return None
