"""Reading and writing bodies of megabytes."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from fastapi.responses import Response

from replay_api.errors import EncodingError, RejectedError, TooLargeError

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


async def read_body(request: Request, limit_bytes: int, what: str) -> bytearray:
    """The whole body, refused as soon as it is over the limit.

    Raises
    ------
    TooLargeError
        When the declared or the received length is over `limit_bytes`.
    RejectedError
        When it is empty.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit_bytes:
        raise _too_large(what, int(declared), limit_bytes)
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > limit_bytes:
            raise _too_large(what, len(body), limit_bytes)
    if not body:
        raise RejectedError(f"the {what} is empty", field="body", reason="empty")
    return body


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


def _too_large(what: str, size: int, limit_bytes: int) -> TooLargeError:
    return TooLargeError(
        f"the {what} has {size} bytes or more; at most {limit_bytes} are accepted", field="body", reason="too_large"
    )
