"""What happens before the first update: wait for the API and the run, and find where the run stands."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from gaitfleet.client import ReplayClient
from gaitfleet.course_settings import WarmStartSettings
from gaitfleet.errors import ApiUnavailableError, LimitedError, NotFoundError
from gaitfleet.wire import RunDescription
from trainer.agent import Agent

logger = logging.getLogger(__name__)

T = TypeVar("T")

RETRY_SECONDS = 2.0
"""How long to wait before asking again."""

REMIND_SECONDS = 30.0
"""How often a waiting trainer says that it waits."""


def wait_for_run(client: ReplayClient, stop: threading.Event) -> RunDescription | None:
    """The run, as soon as the API is there and knows it; None when `stop` was set meanwhile.

    Raises
    ------
    ForbiddenError
        When the token is wrong.
    """
    return _patiently(client.run, stop, what="the run")


def resume(agent: Agent, client: ReplayClient, stop: threading.Event) -> None:
    """Go on from the newest checkpoint, if there is one. The lease must be held, or another could publish meanwhile.

    Raises
    ------
    CodecError, CheckpointMismatchError
        When that checkpoint cannot be used.
    """
    found = _patiently(lambda: (client.download_checkpoint("newest"),), stop, what="the newest checkpoint")
    if found is None:
        return
    (body,) = found
    if body is None:
        logger.info("no checkpoint yet; starting at step 0")
        return
    agent.restore(body)
    logger.info("resumed from step %d", agent.updates)


def warm_start(agent: Agent, settings: WarmStartSettings, source: ReplayClient, stop: threading.Event) -> None:
    """Begin with a checkpoint of another run, as soon as there is one.

    Parameters
    ----------
    source
        Client of that run.

    Raises
    ------
    CodecError, CheckpointMismatchError
        When that checkpoint cannot be used.
    """
    which = "newest" if settings.checkpoint == "latest" else settings.checkpoint
    what = f"checkpoint {settings.checkpoint} of run {settings.run}"

    def download() -> bytes:
        body = source.download_checkpoint(which)
        if body is None:
            raise NotFoundError(f"{what} is not published yet")
        return body

    body = _patiently(download, stop, what=what)
    if body is not None:
        agent.warm_start(body, optimizers=settings.optimizers)
        logger.info("warm start from %s", what, extra=agent.origin)


def _patiently(call: Callable[[], T], stop: threading.Event, *, what: str) -> T | None:
    reminded_at = -REMIND_SECONDS
    while not stop.is_set():
        try:
            return call()
        except (ApiUnavailableError, NotFoundError, LimitedError) as error:
            if time.monotonic() - reminded_at >= REMIND_SECONDS:
                logger.warning("waiting for %s: %s", what, error)
                reminded_at = time.monotonic()
            stop.wait(RETRY_SECONDS)
    return None
