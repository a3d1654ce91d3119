"""How long to wait before trying again."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from gaitfleet.errors import ApiUnavailableError

T = TypeVar("T")


@dataclass(slots=True)
class Backoff:
    """Exponential back-off with full jitter.

    The n-th wait is uniform in [0, min(maximum, first * 2**n)], so that a thousand workers that lost the API at the
    same moment do not come back at the same moment
    (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).

    Parameters
    ----------
    first_seconds, maximum_seconds
        Bounds of the growing interval.
    """

    first_seconds: float = 0.25
    maximum_seconds: float = 15.0
    _attempts: int = 0
    _random: random.Random = field(default_factory=random.SystemRandom)

    def next_seconds(self, *, at_least: float = 0.0) -> float:
        """The next wait; `at_least` is what the server asked for with Retry-After."""
        ceiling = min(self.maximum_seconds, self.first_seconds * 2.0 ** min(self._attempts, 30))
        self._attempts += 1
        return at_least + self._random.uniform(0.0, ceiling)

    def reset(self) -> None:
        """Begin again after a success."""
        self._attempts = 0


def retried(call: Callable[[], T], *, attempts: int, sleep: Callable[[float], None] = time.sleep) -> T:
    """`call()`, tried again while the API is unavailable.

    Raises
    ------
    ApiUnavailableError
        When the last attempt failed, too.
    """
    backoff = Backoff(maximum_seconds=5.0)
    for _ in range(attempts - 1):
        try:
            return call()
        except ApiUnavailableError as error:
            sleep(backoff.next_seconds(at_least=error.retry_after_seconds))
    return call()
