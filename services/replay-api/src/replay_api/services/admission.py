"""How much is worked on at once. What is beyond is refused at once with 429, never queued without bound."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from replay_api.errors import LimitedError


class Admission:
    """A budget that requests take from while they are worked on.

    Parameters
    ----------
    budget
        Units that may be taken at once.
    what
        What the units are, for the message.
    """

    def __init__(self, budget: int, what: str) -> None:
        self._budget = budget
        self._what = what
        self._taken = 0

    @contextmanager
    def take(self, amount: int, *, holding: int = 0) -> Iterator[None]:
        """Hold `amount` while the context lasts. One request is always admitted, however large.

        Parameters
        ----------
        amount
            Units.
        holding
            What the same request has taken before.

        Raises
        ------
        LimitedError
            When others hold too much.
        """
        if self._taken > holding and self._taken + amount > self._budget:
            detail = f"{self._taken} of {self._budget} {self._what} are being worked on; this needs {amount}"
            raise LimitedError(detail, reason="busy", retry_after_seconds=1)
        self._taken += amount
        try:
            yield
        finally:
            self._taken -= amount
