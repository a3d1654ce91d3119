"""Waiting for an event, but not for ever."""

from __future__ import annotations

import asyncio


async def happens(event: asyncio.Event, *, within_seconds: float) -> bool:
    """Whether the event is set within so many seconds."""
    try:
        await asyncio.wait_for(event.wait(), within_seconds)
    except TimeoutError:
        return False
    return True
