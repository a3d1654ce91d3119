"""Work of which only one of each kind may be under way."""

from __future__ import annotations

import asyncio
from weakref import WeakValueDictionary


class OneAtATime:
    """A lock for each key, which is there while somebody waits for it or holds it."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def __call__(self, key: str) -> asyncio.Lock:
        """The lock of this key."""
        return self._locks.setdefault(key, asyncio.Lock())
