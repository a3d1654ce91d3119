"""Reading and writing bodies of megabytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from fastapi import Request
from fastapi.responses import Response
from starlette.types import Receive, Scope, Send

from replay_api.constants import BODY_BYTES_PER_SECOND, BODY_SECONDS, RETRY_AFTER_SECONDS
from replay_api.errors import EncodingError, LimitedError, RejectedError, TooLargeError

SAFETENSORS = "application/x-safetensors"

BINARY_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {SAFETENSORS: {"schema": {"type": "string", "format": "binary"}}},
    }
}
"""OpenAPI of a request whose body is a safetensors container."""

BINARY_ANSWER: dict[str, Any] = {"content": {SAFETENSORS: {"schema": {"type": "string", "format": "binary"}}}}
"""OpenAPI of such an answer."""


def declared_bytes(request: Request, limit_bytes: int) -> int:
    """Bytes that the body will have, as far as the request says; the limit where it does not, or says more."""
    declared = request.headers.get("content-length", "")
    return min(limit_bytes, int(declared)) if declared.isdecimal() else limit_bytes


async def read_body(request: Request, limit_bytes: int, what: str) -> bytes:
    """The whole body, refused as soon as it is over the limit.

    Raises
    ------
    TooLargeError
        When the declared or the received length is over `limit_bytes`.
    RejectedError
        When it is empty.
    LimitedError
        When it does not arrive in time.
    """
    seconds = BODY_SECONDS + limit_bytes / BODY_BYTES_PER_SECOND
    try:
        async with asyncio.timeout(seconds):
            return await _read(request, limit_bytes, what)
    except TimeoutError:
        raise too_slow(what, seconds) from None


async def _read(request: Request, limit_bytes: int, what: str) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit_bytes:
        raise too_large(what, int(declared), limit_bytes)
    pieces: list[bytes] = []
    received = 0
    async for piece in request.stream():
        pieces.append(piece)
        received += len(piece)
        if received > limit_bytes:
            raise too_large(what, received, limit_bytes)
    if not received:
        raise RejectedError(f"the {what} is empty", field="body", reason="empty")
    return b"".join(pieces)


def is_zstd(request: Request) -> bool:
    """Whether the body is compressed with zstd.

    Raises
    ------
    EncodingError
        When it is encoded in another way.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "zstd"):
        raise EncodingError(f"content-encoding is {encoding!r:.50}; identity and zstd are accepted", reason="encoding")
    return encoding == "zstd"


def not_modified(request: Request, etag: str) -> bool:
    """Whether the client holds this entity already."""
    given = request.headers.get("if-none-match", "")
    return any(tag.strip().removeprefix("W/") in (etag, "*") for tag in given.split(","))


def binary(body: bytes | bytearray | memoryview, **headers: str) -> Response:
    """A safetensors answer."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(content=memoryview(body), media_type=SAFETENSORS, headers=named)


class Streamed(Response):
    """Pieces that are sent as they are made, until the client has gone.

    Starlette's StreamingResponse runs two tasks for it in a group of their own, which takes a tenth of the time of
    eight batches.
    """

    media_type = SAFETENSORS

    def __init__(self, pieces: AsyncGenerator[bytes | memoryview], content_length: int) -> None:
        super().__init__(headers={"Content-Length": str(content_length)})
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send."""
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.sleep(0)  # it begins to look; sending to somebody who has left waits for nothing
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async for piece in self._pieces:
                if gone.done():
                    return
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            gone.cancel()
            await self._pieces.aclose()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def too_slow(what: str, seconds: float) -> LimitedError:
    """The refusal of a body that did not arrive in time."""
    detail = f"the {what} did not arrive within {seconds:.0f} s"
    return LimitedError(detail, field="body", reason="slow", retry_after_seconds=RETRY_AFTER_SECONDS)


def too_large(what: str, size: int, limit_bytes: int) -> TooLargeError:
    """The refusal of a body that is over its limit."""
    return TooLargeError(
        f"the {what} has {size} bytes or more; at most {limit_bytes} are accepted", field="body", reason="too_large"
    )
