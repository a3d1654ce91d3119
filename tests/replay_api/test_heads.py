"""Who waits for a policy gets it, and the event loop stays open for everybody else meanwhile."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from gaitfleet.wire import CheckpointInfo
from replay_api.services.heads import Heads, ServedPolicy


def policy(step: int) -> ServedPolicy:
    known: dict[str, Any] = {"digest": "d", "size_bytes": 1, "policy_digest": f"p{step}", "policy_size_bytes": 1}
    return ServedPolicy(CheckpointInfo(run="r", step=step, epoch=1, published_at="2026-01-01T00:00:00Z", **known), b"")


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
