"""Sampled transitions in the run's document: written behind, each counted once."""

from __future__ import annotations

import logging

from replay_api.constants import FLUSH_SECONDS
from replay_api.errors import UnavailableError
from replay_api.services.open_run import OpenRun
from replay_api.services.patience import happens
from replay_api.storage.runs import RunStore

_log = logging.getLogger(__name__)


async def flush_often(opened: OpenRun, runs: RunStore) -> None:
    """Write the count until the run closes, and what is left of it then, if the database answers."""
    left = True
    while left:
        left = not await happens(opened.closing, within_seconds=FLUSH_SECONDS)
        try:
            await flush(opened, runs)
            left |= opened.flushed != opened.limiter.sampled
        except UnavailableError:
            continue  # logged where it happened
        except Exception:
            _log.exception("counting samples failed", extra={"run": opened.run})


async def flush(opened: OpenRun, runs: RunStore) -> None:
    """Write the sampled transitions of this process to the run's document.

    Raises
    ------
    UnavailableError
        When the database does not answer; the next call goes on with the same addition.
    """
    additions = opened.additions
    if not additions.pending:
        additions.pending = opened.limiter.sampled - opened.flushed
        opened.flushed += additions.pending
    if not additions.pending:
        return
    total = await runs.add_sampled(opened.run, additions.pending, by=additions.by, number=additions.number)
    additions.number += 1
    additions.pending = 0
    opened.limiter.sampled += total - opened.flushed  # what others have added meanwhile
    opened.flushed = total
