"""Who waits for a policy gets it, and the event loop stays open for everybody else meanwhile."""

from __future__ import annotations

import asyncio
from collections import Counter
from types import SimpleNamespace
from typing import Any

from gaitfleet.wire import CheckpointInfo
from replay_api.services.heads import Heads, ServedPolicy, Which, step_of


def policy(step: int, body: bytes = b"") -> ServedPolicy:
    known: dict[str, Any] = {"digest": "d" * 64, "size_bytes": 1, "policy_digest": f"p{step}", "policy_size_bytes": 1}
    info = CheckpointInfo(run="r", step=step, epoch=1, published_at="2026-01-01T00:00:00Z", **known)
    return ServedPolicy(info, body)


def record(newest: int, best: int) -> Any:
    return SimpleNamespace(head=policy(newest).info, best=policy(best).info)


class SlowStore:
    """A checkpoint store that gives each body when it is told to."""

    def __init__(self) -> None:
        self.asked: dict[int | None, asyncio.Future[bytes]] = {}

    async def get(self, key: str) -> bytes:
        answer = self.asked[step_of(key)] = asyncio.get_running_loop().create_future()
        return await answer

    async def give(self, step: int) -> None:
        self.asked.pop(step).set_result(b"%d" % step)
        await asyncio.sleep(0.01)


def test_a_crowd_that_waits_for_a_policy_is_let_go_one_in_a_round_of_the_event_loop() -> None:
    async def rounds_of_answers(crowd: int) -> tuple[set[int], list[int]]:
        heads, stop, rounds = Heads(store=None), asyncio.Event(), 0  # type: ignore[arg-type]
        answered: list[int] = []

        async def wait() -> int:
            served = await heads.wait("newest", etag=None, seconds=30, stop=stop)
            answered.append(rounds)
            assert served is not None
            return served.info.step

        async def count_rounds() -> None:
            nonlocal rounds
            while True:
                rounds += 1
                await asyncio.sleep(0)

        waiting = [asyncio.ensure_future(wait()) for _ in range(crowd)]
        counting = asyncio.ensure_future(count_rounds())
        await asyncio.sleep(0.01)  # all of them wait
        heads.set("newest", policy(7))
        steps = set(await asyncio.gather(*waiting))
        counting.cancel()
        return steps, answered

    steps, answered = asyncio.run(rounds_of_answers(200))
    assert steps == {7}
    assert max(Counter(answered).values()) == 1


async def test_a_policy_that_is_both_heads_is_read_once() -> None:
    store = SlowStore()
    heads = Heads(store)  # type: ignore[arg-type]
    heads.set("newest", policy(10, b"10"))
    heads.follow(record(newest=10, best=10))
    best = heads.get("best")
    assert best is not None
    assert best.body == b"10"
    await asyncio.sleep(0.01)
    assert store.asked == {}


async def test_heads_that_move_while_the_store_is_slow_are_served_as_they_come_and_never_move_back() -> None:
    store = SlowStore()
    heads = Heads(store)  # type: ignore[arg-type]

    def served() -> dict[str, int]:
        both: tuple[Which, Which] = ("newest", "best")
        return {which: found.info.step for which in both if (found := heads.get(which))}

    heads.follow(record(newest=10, best=5))
    await asyncio.sleep(0.01)
    heads.follow(record(newest=30, best=20))
    assert heads.step == 30  # known before the store has given anything
    await store.give(10)
    assert served() == {"newest": 10}  # newer than what was served before
    await store.give(5)
    assert served() == {"newest": 10}  # not the best any more
    await store.give(20)
    assert served() == {"newest": 10, "best": 20}
    heads.set("newest", policy(40))
    heads.follow(record(newest=30, best=20))  # read before 40 was published
    await store.give(30)
    assert served() == {"newest": 40, "best": 20}
    assert store.asked == {}
