"""Checks that anybody may ask for, without a token and as often as they like, and that cost whom they ask."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

CHECK_KEPT_SECONDS = 1.0
"""Time in s for which the answer to a check holds."""


class SharedCheck:
    """A check that all who ask for it at a time wait for together, and whose answer holds for `CHECK_KEPT_SECONDS`.

    Parameters
    ----------
    check
        Asks; raises when something is wrong.
    """

    def __init__(self, check: Callable[[], Awaitable[None]]) -> None:
        self._check = check
        self._asked: asyncio.Future[None] | None = None
        self._answered_at = 0.0

    async def __call__(self) -> None:
        """Raise what the check raised. Whoever leaves does not end it for the others."""
        kept = time.monotonic() < self._answered_at + CHECK_KEPT_SECONDS
        if self._asked is None or (self._asked.done() and not kept):
            self._asked = asyncio.ensure_future(self._check())
            self._asked.add_done_callback(self._answered)
        await asyncio.shield(self._asked)

    def cancel(self) -> None:
        """Give up a check that is under way: what it asks is about to be closed."""
        if self._asked is not None:
            self._asked.cancel()

    def _answered(self, asked: asyncio.Future[None]) -> None:
        self._answered_at = time.monotonic()
        if not asked.cancelled():
            asked.exception()  # whoever waited has left
