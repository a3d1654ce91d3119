"""From an HTTP answer to a value or an error of the tree."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import ValidationError

from gaitfleet.errors import (
    ApiError,
    ApiUnavailableError,
    ConflictError,
    ForbiddenError,
    LeaseLostError,
    LimitedError,
    NotFoundError,
    RejectedError,
)
from gaitfleet.problems import LEASE_LOST

T = TypeVar("T")

_KINDS: dict[int, type[ApiError]] = {
    400: RejectedError,
    401: ForbiddenError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    413: RejectedError,
    415: RejectedError,
    422: RejectedError,
}


def check(status: int, body: bytes | memoryview, retry_after: str | None, location: str | None) -> None:
    """Nothing for an answer of the API that is not an error; 304 is none.

    Raises
    ------
    ApiError
        The error that the status stands for.
    """
    if status >= 400:
        raise error_of(status, bytes(body), retry_after)
    if status >= 300 and status != 304:
        raise stranger(status, f"it redirects to {location:.200}" if location else "it redirects")


def parsed(read: Callable[[bytes], T], body: bytes, status: int) -> T:
    """What `read`, a validation of pydantic's, makes of a body.

    Raises
    ------
    ApiUnavailableError
        When it is not what the API would say.
    """
    try:
        return read(body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise stranger(status, f"{where}: {first['msg']}" if where else first["msg"]) from None


def stranger(status: int, reason: str) -> ApiUnavailableError:
    """The error for an answer that no replay API gives: a proxy's login, the page of another server."""
    return ApiUnavailableError(f"{status}: no answer of a replay API of this version: {reason}", status=status)


def error_of(status: int, body: bytes, retry_after: str | None) -> ApiError:
    """The error that a status of 400 or more stands for."""
    problem = _problem(body)
    detail = problem.get("detail") or problem.get("title") or body[:200].decode("utf-8", "replace") or "no explanation"
    message = f"{status}: {detail}"
    wait = _seconds(retry_after)
    if status == 429:
        return LimitedError(message, retry_after_seconds=1.0 if wait is None else wait, problem=problem)
    if status == 409 and problem.get("type") == LEASE_LOST:
        return LeaseLostError(message, status=status, problem=problem)
    kind = _KINDS.get(status)
    if kind is None:  # 5xx, or what somebody between says: no verdict on what was sent
        return ApiUnavailableError(message, status=status, problem=problem, retry_after_seconds=wait or 0.0)
    return kind(message, status=status, problem=problem)


def _problem(body: bytes) -> dict[str, Any]:
    try:
        problem = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return problem if isinstance(problem, dict) else {}


def _seconds(retry_after: str | None) -> float | None:
    try:
        return None if retry_after is None else max(0.0, float(retry_after))
    except ValueError:
        return None  # the header's date form; nobody sends it here
