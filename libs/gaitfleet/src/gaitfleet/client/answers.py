"""From an HTTP answer to a value or an error of the tree."""

from __future__ import annotations

import json
from typing import Any

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


def error_of(status: int, body: bytes, retry_after: str | None) -> ApiError:
    """The error that a status of 400 or more stands for."""
    problem = _problem(body)
    detail = problem.get("detail") or problem.get("title") or body[:200].decode("utf-8", "replace") or "no explanation"
    message = f"{status}: {detail}"
    wait = _seconds(retry_after)
    if status == 429:
        return LimitedError(message, retry_after_seconds=1.0 if wait is None else wait, problem=problem)
    if status >= 500:
        return ApiUnavailableError(message, status=status, problem=problem, retry_after_seconds=wait or 0.0)
    if status == 409 and problem.get("type") == LEASE_LOST:
        return LeaseLostError(message, status=status, problem=problem)
    kinds: dict[int, type[ApiError]] = {
        401: ForbiddenError,
        403: ForbiddenError,
        404: NotFoundError,
        409: ConflictError,
    }
    return kinds.get(status, RejectedError)(message, status=status, problem=problem)


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
