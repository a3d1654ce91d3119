"""Middleware that spreads a crowd of requests over several rounds of the event loop."""

from __future__ import annotations

import asyncio
from collections import deque

from starlette.types import ASGIApp, Receive, Scope, Send

BEGUN_A_ROUND = 8
"""Requests begun in one round. To begin one takes a third of a millisecond: with 64 in one round, what else is due
would wait for 20 ms."""


class Turns:
    """Lets requests begin in the order in which they came, a few in each round of the event loop.

    Those that wait stand in a queue which the next round serves first: were the places of a round free for whoever
    comes, connections on which one request follows the other (HTTP pipelining) would overtake all others.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._begun = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        loop = asyncio.get_running_loop()
        if self._begun >= BEGUN_A_ROUND:
            turn = loop.create_future()
            self._waiting.append(turn)
            await turn
        else:
            if not self._begun:
                loop.call_soon(self._next_round)
            self._begun += 1
        await self._app(scope, receive, send)

    def _next_round(self) -> None:
        self._begun = 0
        while self._waiting and self._begun < BEGUN_A_ROUND:
            turn = self._waiting.popleft()
            if not turn.done():  # its request was not cancelled meanwhile
                turn.set_result(None)
                self._begun += 1
        if self._begun:
            asyncio.get_running_loop().call_soon(self._next_round)
