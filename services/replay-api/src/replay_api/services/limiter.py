"""The samples-per-insert limiter.

Reverb's ``SampleToInsertRatio``, in transitions. With

    offset = min_size * samples_per_insert
    balance = inserted * samples_per_insert + credit - sampled

sampling n more is allowed while ``inserted + inherited >= min_size`` and ``balance - n >= offset - error_buffer``;
where inserts are limited, inserting is allowed while ``balance <= offset + error_buffer``. ``inserted`` and ``sampled``
count over the life of the run; evaluation episodes do not count. ``inherited`` is 0 but for a fork (see
`services.forks`), and ``credit`` until a fork, a stage or a change of the rule gives or takes samples: for what was
inserted before a change, samples are owed by the rule of that time.

Inserting is never limited while sampling waits for transitions. So both sides can never be blocked at once: a blocked
insert means ``balance > offset + error_buffer``, so with ``error_buffer >= n`` the n samples are allowed. That is why a
request for a batch above ``error_buffer`` is refused.

What a crash can lose: ``inserted`` is recomputed from the store and is exact. ``sampled`` is written behind, every
`FLUSH_SECONDS` and at shutdown; a crash forgets at most the samples granted since, and the trainer may draw these
again.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from gaitfleet.experiment import Experiment
from gaitfleet.wire import Limits, LimitsChange
from replay_api.errors import RejectedError


@dataclass(frozen=True, slots=True)
class LimiterRule:
    """The four numbers of the limiter."""

    samples_per_insert: float
    min_size: int
    error_buffer: float
    limit_inserts: bool

    @property
    def offset(self) -> float:
        return self.min_size * self.samples_per_insert

    @classmethod
    def of(cls, experiment: Experiment, change: LimitsChange) -> LimiterRule:
        """The experiment's rule with what was changed at run time."""
        replay = experiment.replay
        rule = cls(replay.samples_per_insert, replay.min_size, experiment.error_buffer, replay.limit_inserts)
        return rule.changed(change)

    def changed(self, change: LimitsChange) -> LimiterRule:
        """This rule with other numbers."""
        return replace(self, **change.model_dump(exclude_none=True))

    def check(self, batch_size: int) -> None:
        """Hold the rule against deadlock.

        Raises
        ------
        RejectedError
            When `error_buffer` is below one batch or below the samples owed for one transition.
        """
        needed = max(float(batch_size), self.samples_per_insert)
        if self.error_buffer < needed:
            detail = (
                f"error_buffer is {self.error_buffer:g}; below {needed:g} (one batch, and the samples owed for one "
                "transition) the limiter could block both sides for ever"
            )
            raise RejectedError(detail, field="error_buffer", reason="limits")


@dataclass(slots=True, eq=False)
class _Waiter:
    batch_size: int
    batches: int
    since: float
    granted: asyncio.Future[int]


class Limiter:
    """Grants samples first come, first served. Belongs to one event loop.

    Parameters
    ----------
    rule
        The numbers.
    inserted, sampled
        Counters as of the start.
    ready
        Whether the transitions are in memory yet; nothing is granted before.
    inherited
        Transitions of the runs that this one was forked from.
    credit
        Samples allowed beyond those of the inserted transitions.
    missing
        With a given minimum, how many transitions must be inserted until `ready`; None where `inserted` and `inherited`
        say it.
    """

    def __init__(
        self,
        rule: LimiterRule,
        *,
        inserted: int,
        sampled: int,
        ready: Callable[[], bool],
        inherited: int = 0,
        credit: float = 0.0,
        missing: Callable[[int], int] | None = None,
    ) -> None:
        self.rule = rule
        self.inserted = inserted
        self.sampled = sampled
        self.inherited = inherited
        self.credit = credit
        self._ready = ready
        self._missing = missing or (lambda minimum: max(0, minimum - self.inherited - self.inserted))
        self._waiters: deque[_Waiter] = deque()

    @property
    def balance(self) -> float:
        """Samples owed for what was inserted."""
        return self.inserted * self.rule.samples_per_insert + self.credit - self.sampled

    @property
    def samples_allowed(self) -> int:
        """Transitions that may be sampled at this moment."""
        if not self._filled or not self._ready():
            return 0
        return max(0, math.floor(self.balance - self.rule.offset + self.rule.error_buffer))

    @property
    def _filled(self) -> bool:
        return self.inserted + self.inherited >= self.rule.min_size

    @property
    def insert_allowed(self) -> bool:
        """Whether an episode may be inserted at this moment; always while sampling waits for the minimum."""
        if not self.rule.limit_inserts or not self._filled or not self._ready():
            return True
        return self.balance <= self.rule.offset + self.rule.error_buffer

    async def acquire(self, batch_size: int, batches: int, wait_seconds: float, stop: asyncio.Event) -> int:
        """Wait for whole batches; how many were granted, 0 when none was in time.

        Parameters
        ----------
        batch_size
            Transitions of one batch.
        batches
            Batches wanted at most.
        wait_seconds
            How long to wait for the first.
        stop
            Set when the service shuts down: then nobody waits.

        Raises
        ------
        RejectedError
            When a batch of this size could never be granted safely.
        """
        self.rule.check(batch_size)
        waiter = _Waiter(batch_size, batches, time.monotonic(), asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        self.wake()
        try:
            if not waiter.granted.done() and wait_seconds > 0 and not stop.is_set():
                await _first(waiter.granted, stop, wait_seconds)
            return waiter.granted.result() if waiter.granted.done() else 0
        except asyncio.CancelledError:
            if waiter.granted.done() and not waiter.granted.cancelled():
                self.give_back(waiter.granted.result() * batch_size)
            raise
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
                self.wake()  # one that asks for less may have stood behind it

    def give_back(self, transitions: int) -> None:
        """Return samples that were granted and never sent."""
        self.sampled -= transitions
        self.wake()

    def insert(self, transitions: int) -> None:
        """Count stored transitions."""
        self.inserted += transitions
        self.wake()

    def credit_for(self, rule: LimiterRule) -> float:
        """By how much the credit must grow with this rule, so that as many samples are allowed as before; where the
        minimum is not there yet, when it is."""

        def balance(rule: LimiterRule) -> float:
            inserted = self.inserted + self._missing(rule.min_size)
            return (inserted - rule.min_size) * rule.samples_per_insert

        return balance(self.rule) - balance(rule)

    def change(self, rule: LimiterRule, credit: float) -> None:
        """Go on with other numbers; who waits for more than can be granted now is answered at its time limit."""
        self.rule, self.credit = rule, credit
        self.wake()

    def wake(self) -> None:
        """Grant what is allowed to those who wait, oldest first; nobody overtakes."""
        while self._waiters:
            waiter = self._waiters[0]
            batches = min(waiter.batches, self.samples_allowed // waiter.batch_size)
            if batches < 1:
                return
            self._waiters.popleft()
            self.sampled += batches * waiter.batch_size
            waiter.granted.set_result(batches)

    def explain(self, batch_size: int) -> str:
        """Why a batch is not granted at this moment."""
        rule = self.rule
        if not self._filled:
            return f"{self.inserted + self.inherited} transitions are inserted, min_size is {rule.min_size}"
        if not self._ready():
            return "too few transitions are in memory yet"
        return (
            f"{self.sampled} transitions are sampled for {self.inserted} inserted; at {rule.samples_per_insert:g} "
            f"samples per insert {self.samples_allowed} more are allowed, a batch has {batch_size}"
        )

    def limits(self) -> Limits:
        """As the API shows it."""
        waits = [time.monotonic() - waiter.since for waiter in self._waiters]
        return Limits(
            samples_per_insert=self.rule.samples_per_insert,
            min_size=self.rule.min_size,
            error_buffer=self.rule.error_buffer,
            limit_inserts=self.rule.limit_inserts,
            inserted=self.inserted,
            inherited=self.inherited,
            credit=self.credit,
            sampled=self.sampled,
            samples_allowed=self.samples_allowed,
            waiting_samplers=len(waits),
            longest_wait_seconds=max(waits, default=0.0),
        )


async def _first(granted: asyncio.Future[int], stop: asyncio.Event, seconds: float) -> None:
    stopped = asyncio.ensure_future(stop.wait())
    either: set[asyncio.Future[Any]] = {granted, stopped}
    try:
        await asyncio.wait(either, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopped.cancel()
