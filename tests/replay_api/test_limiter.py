"""The samples-per-insert limiter: never exceeded, never in deadlock, first come first served."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from gaitfleet.wire import LimitsChange
from replay_api.errors import RejectedError
from replay_api.services.limiter import Limiter, LimiterRule


def limiter_of(rule: LimiterRule | None = None, *, inserted: int = 0, sampled: int = 0, ready: bool = True) -> Limiter:
    rule = rule or LimiterRule(samples_per_insert=2.0, min_size=10, error_buffer=20.0, limit_inserts=True)
    return Limiter(rule, inserted=inserted, sampled=sampled, ready=lambda: ready)


async def acquire(limiter: Limiter, batch_size: int, batches: int = 1, wait_seconds: float = 0.0) -> int:
    return await limiter.acquire(batch_size, batches, wait_seconds, asyncio.Event())


@given(
    samples_per_insert=st.floats(0.1, 50),
    min_size=st.integers(1, 200),
    batch_size=st.integers(1, 64),
    slack=st.floats(1, 5),
    episodes=st.lists(st.integers(1, 60), min_size=1, max_size=60),
    batches=st.integers(1, 8),
)
@hypothesis_settings(max_examples=150, deadline=None)
def test_it_is_never_exceeded_and_never_blocks_both_sides(
    samples_per_insert: float, min_size: int, batch_size: int, slack: float, episodes: list[int], batches: int
) -> None:
    error_buffer = slack * max(batch_size, samples_per_insert)
    rule = LimiterRule(samples_per_insert, min_size, error_buffer, limit_inserts=True)

    async def play() -> None:
        limiter = limiter_of(rule)
        for episode in episodes:
            granted = await acquire(limiter, batch_size, batches)
            assert 0 <= granted <= batches
            if granted:
                assert limiter.inserted >= min_size
                assert limiter.balance >= rule.offset - error_buffer - 1e-6
            assert limiter.insert_allowed or limiter.samples_allowed >= batch_size
            if limiter.insert_allowed:
                assert limiter.balance <= rule.offset + error_buffer + 1e-6
                limiter.insert(episode)

    asyncio.run(play())


async def test_as_many_whole_batches_are_granted_as_are_allowed() -> None:
    limiter = limiter_of(inserted=10)
    assert limiter.samples_allowed == 20
    assert await acquire(limiter, 8, batches=5) == 2
    assert limiter.sampled == 16
    assert await acquire(limiter, 8) == 0


async def test_nothing_is_granted_before_the_minimum_is_there_and_in_memory() -> None:
    assert await acquire(limiter_of(inserted=9), 1) == 0
    assert await acquire(limiter_of(inserted=10, ready=False), 1) == 0


async def test_a_waiter_is_woken_by_an_insert() -> None:
    limiter = limiter_of()
    waiting = asyncio.create_task(acquire(limiter, 16, wait_seconds=5))
    await asyncio.sleep(0.01)
    assert limiter.limits().waiting_samplers == 1
    assert limiter.limits().longest_wait_seconds > 0
    limiter.insert(10)
    assert await waiting == 1
    assert limiter.limits().waiting_samplers == 0


async def test_nobody_overtakes() -> None:
    limiter = limiter_of(inserted=10, sampled=10)  # 10 more are allowed
    large = asyncio.create_task(acquire(limiter, 20, wait_seconds=0.1))
    await asyncio.sleep(0.01)
    small = asyncio.create_task(acquire(limiter, 5, wait_seconds=5))
    await asyncio.sleep(0.01)
    assert not small.done()
    assert await large == 0
    assert await small == 1  # the large one has given up


async def test_what_was_not_sent_is_given_back() -> None:
    limiter = limiter_of(inserted=10)
    assert await acquire(limiter, 20) == 1
    waiting = asyncio.create_task(acquire(limiter, 10, wait_seconds=5))
    await asyncio.sleep(0.01)
    limiter.give_back(20)
    assert await waiting == 1
    assert limiter.sampled == 10


async def test_a_cancelled_waiter_takes_nothing() -> None:
    limiter = limiter_of()
    waiting = asyncio.create_task(acquire(limiter, 16, wait_seconds=5))
    await asyncio.sleep(0.01)
    limiter.insert(10)  # grants in the same turn in which it is cancelled
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert limiter.sampled == 0


async def test_shutting_down_ends_every_wait() -> None:
    limiter, stop = limiter_of(), asyncio.Event()
    waiting = asyncio.create_task(limiter.acquire(16, 1, 60.0, stop))
    await asyncio.sleep(0.01)
    stop.set()
    assert await asyncio.wait_for(waiting, 1) == 0


async def test_a_batch_above_the_error_buffer_is_refused() -> None:
    with pytest.raises(RejectedError, match="error_buffer is 20; below 21") as refusal:
        await acquire(limiter_of(inserted=1000), 21)
    assert refusal.value.field == "error_buffer"


async def test_changed_limits_wake_who_waits() -> None:
    limiter = limiter_of(inserted=5)
    waiting = asyncio.create_task(acquire(limiter, 4, wait_seconds=5))
    await asyncio.sleep(0.01)
    limiter.change(limiter.rule.changed(LimitsChange(min_size=5)), limiter.credit)
    assert await waiting == 1


RULES = st.builds(
    LimiterRule, st.floats(0.1, 50), st.integers(1, 200), error_buffer=st.just(1e6), limit_inserts=st.just(False)
)


@given(
    changes=st.lists(st.tuples(RULES, st.integers(0, 60), st.integers(0, 64)), min_size=2, max_size=20),
    inherited=st.integers(0, 300),
    restarted=st.booleans(),
)
@hypothesis_settings(max_examples=150, deadline=None)
def test_changed_limits_owe_nothing_more_or_less_for_what_was_inserted_before(
    changes: list[tuple[LimiterRule, int, int]], inherited: int, restarted: bool
) -> None:
    """What is owed when the minimum is there, which may be later after a change; there and back changes nothing."""
    began = changes[0][1]  # where the memory was restarted

    def missing(minimum: int) -> int:
        return max(0, minimum - (limiter.inserted - began if restarted else limiter.inserted + inherited))

    def owed() -> float:
        return limiter.balance + missing(limiter.rule.min_size) * limiter.rule.samples_per_insert - limiter.rule.offset

    first = changes[0][0]
    limiter = Limiter(
        first,
        inserted=began,
        sampled=0,
        ready=lambda: missing(limiter.rule.min_size) == 0,
        inherited=0 if restarted else inherited,
        missing=missing if restarted else None,
    )
    for rule, inserted, sampled in changes:
        before, credit, old = owed(), limiter.credit, limiter.rule
        limiter.change(rule, limiter.credit + limiter.credit_for(rule))
        assert owed() == pytest.approx(before, abs=1e-3)
        limiter.change(old, limiter.credit + limiter.credit_for(old))
        assert limiter.credit == pytest.approx(credit, abs=1e-3)
        limiter.change(rule, limiter.credit + limiter.credit_for(rule))
        limiter.insert(inserted)
        limiter.sampled += sampled
