"""Middleware that counts and times requests, and bounds the bodies of those that send JSON, one by one and together."""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import ExitStack

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from replay_api.authentication import EVERYBODY
from replay_api.constants import BODY_SECONDS
from replay_api.handlers.bodies import too_large, too_slow
from replay_api.metrics import Metrics
from replay_api.services.admission import Admission

_LARGE_BODIES = re.compile(r"/v1/runs/[^/]+/(episodes|checkpoints/[^/]+)")
"""Paths of bodies with limits of their own."""

_LARGE_JSON = re.compile(r"/v1/runs/[^/]+(/forks|/priorities)?")
"""Paths of experiments and of priorities, which may be as large as the settings say."""

MAX_SMALL_JSON_BYTES = 1 << 16
"""Any other JSON body, in bytes: the largest that clients send, a renewal of the lease with 100 losses, has a fifth of
it. What a worker may send is so small that neither what it parses to nor a list of its errors is a burden."""

PARSED = 30
"""Memory of parsed JSON for each byte of it: ``{},`` is a dictionary of 64 bytes and the reference to it."""


class Measuring:
    """Times requests from the first byte in to the last byte out. The label is the route's template, never the path."""

    def __init__(self, app: ASGIApp, metrics: Metrics, max_json_bytes: int, max_inflight_bytes: int) -> None:
        self._app = app
        self._metrics = metrics
        self._max_json_bytes = max_json_bytes
        self._json = Admission(max_inflight_bytes, "bytes of parsed JSON")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        code = 500
        began = time.monotonic()

        async def counted(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
            await send(message)

        self._metrics.inflight.inc()
        try:
            with ExitStack() as held:
                await self._app(scope, self._bounded(scope, receive, held), counted)
        finally:
            self._metrics.inflight.dec()
            route = getattr(scope.get("route"), "path", "unmatched")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._metrics.requests.labels(route, method, str(code)).inc()
            self._metrics.request_seconds.labels(route, method).observe(time.monotonic() - began)

    def _bounded(self, scope: Scope, receive: Receive, held: ExitStack) -> Receive:
        if _LARGE_BODIES.fullmatch(scope["path"]):
            return receive
        limit = self._max_json_bytes
        if not _LARGE_JSON.fullmatch(scope["path"]):
            limit = min(limit, MAX_SMALL_JSON_BYTES)
        received = 0
        known = complete = False
        ends: float | None = None

        async def bounded() -> Message:
            nonlocal received, known, complete, ends
            if complete:  # what is waited for now is that the client leaves
                return await receive()
            if not known and scope["path"].startswith("/v1/"):  # FastAPI reads the body before it asks who sent it
                scope["app"].state.context.tokens.check(Headers(scope=scope).get("authorization"), EVERYBODY)
            known = True
            ends = ends or asyncio.get_running_loop().time() + BODY_SECONDS
            try:
                async with asyncio.timeout_at(ends):
                    message = await receive()
            except TimeoutError:
                raise too_slow("body", BODY_SECONDS) from None
            complete = not message.get("more_body", False)
            size = len(message.get("body", b""))
            held.enter_context(self._json.take(PARSED * size, holding=PARSED * received))
            received += size
            if received > limit:
                raise too_large("body", received, limit)
            return message

        return bounded


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
