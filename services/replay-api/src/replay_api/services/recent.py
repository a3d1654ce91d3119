"""Which episodes this process has taken in lately."""

from __future__ import annotations

import time
from collections.abc import Iterable


class RecentKeys:
    """Keys of episodes that are in memory or on their way, forgotten when nobody asks for them any more.

    Parameters
    ----------
    seconds
        How long a key is remembered after it was last asked for.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._keys: dict[str, float] = {}

    def add(self, key: str) -> bool:
        """Remember a key; False when it was there."""
        if key in self._keys:
            return False
        self._keys[key] = time.monotonic()
        return True

    def keep(self, keys: Iterable[str]) -> list[str]:
        """Go on to remember those of `keys` that are known; the others."""
        unknown = []
        for key in keys:
            if key in self._keys:
                del self._keys[key]  # to the end of the order
                self._keys[key] = time.monotonic()
            else:
                unknown.append(key)
        return unknown

    def discard(self, key: str) -> None:
        """Forget a key."""
        self._keys.pop(key, None)

    def expire(self, moment: float) -> None:
        """Forget what was old at `moment`, in monotonic time; keys stand in the order of their time."""
        limit = moment - self._seconds
        while self._keys:
            key = next(iter(self._keys))
            if self._keys[key] > limit:
                return
            del self._keys[key]
