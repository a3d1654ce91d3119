"""A crowd of requests does not keep the event loop for itself."""

from __future__ import annotations

import asyncio

from starlette.types import Receive, Scope, Send

from replay_api.handlers.turns import BEGUN_A_ROUND, Turns


def test_a_crowd_begins_in_order_and_a_few_in_each_round() -> None:
    rounds, begun = 0, []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        begun.append((rounds, scope["number"]))
        await asyncio.Event().wait()  # none of them ends: it is the beginning that is spread

    async def crowd() -> None:
        nonlocal rounds
        turns = Turns(app)
        tasks = [asyncio.ensure_future(turns({"number": number}, None, None)) for number in range(60)]  # type: ignore[arg-type]
        while len(begun) < 60:
            rounds += 1
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()

    asyncio.run(crowd())
    assert [number for _, number in begun] == list(range(60))
    per_round = [[begun_in for begun_in, _ in begun].count(number) for number in range(1, rounds + 1)]
    assert max(per_round) == BEGUN_A_ROUND
    assert rounds <= 60 // BEGUN_A_ROUND + 2


def test_connections_on_which_one_request_follows_the_other_keep_nobody_waiting() -> None:
    """As uvicorn does with pipelined requests, each begins when the one before it is answered."""
    begun, crowd = [], 2 * BEGUN_A_ROUND

    async def serve() -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            begun.append(scope["name"])
            if scope["name"] == "piped" and len(begun) < 50 * crowd:
                request("piped")

        def request(name: str) -> asyncio.Task[None]:
            tasks.append(asyncio.ensure_future(turns({"name": name}, None, None)))  # type: ignore[arg-type]
            return tasks[-1]

        turns, tasks = Turns(app), list[asyncio.Task[None]]()
        for _ in range(crowd):
            request("piped")
        await asyncio.sleep(0)
        await request("other")
        for task in tasks:
            await task

    asyncio.run(serve())
    assert begun.index("other") <= 2 * crowd
    assert len(begun) > 50 * crowd
