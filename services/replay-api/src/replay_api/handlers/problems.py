"""Every error as an RFC 9457 problem document."""

from __future__ import annotations

import logging
import math
from typing import Any, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from gaitfleet.problems import PREFIX, Problem
from replay_api.errors import RejectedError, ServiceError

MEDIA_TYPE = "application/problem+json"

_log = logging.getLogger(__name__)

_TITLES = {400: "Bad request", 404: "Not found", 405: "Method not allowed"}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI of the problems that an endpoint answers with."""
    titles = {
        401: "No token, or an unknown one",
        403: "A token without this role",
        404: "Not found",
        409: "Conflict with what is there",
        413: "Body too large",
        415: "Content encoding not accepted",
        422: "A rule is broken; names the field and the value",
        429: "Wait (Retry-After) and ask again",
        503: "Database or checkpoint store away; wait (Retry-After)",
    }
    schema = {"$ref": "#/components/schemas/Problem"}
    always = (401, 403, 503, 429) if 413 in statuses else (401, 403, 503)  # bodies are admitted, or must wait
    return {
        status: {"description": titles[status], "content": {MEDIA_TYPE: {"schema": schema}}}
        for status in sorted({*statuses, *always})
    }


def install(app: FastAPI) -> None:
    """Answer every error with a problem document."""
    app.add_exception_handler(ServiceError, _service_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _internal)


def respond(problem: Problem, headers: dict[str, str] | None = None) -> Response:
    """A problem as a response."""
    return Response(problem.model_dump_json(exclude_none=True), problem.status, headers, MEDIA_TYPE)


def refused(refusal: ServiceError) -> Response:
    """A refusal as a response."""
    problem = Problem(
        type=refusal.type,
        title=refusal.title,
        status=refusal.status,
        detail=_writable(refusal.detail),
        field=None if refusal.field is None else _writable(refusal.field),
        reason=refusal.reason,
    )
    headers = {}
    if refusal.retry_after_seconds is not None:
        headers["Retry-After"] = str(max(1, math.ceil(refusal.retry_after_seconds)))
    if refusal.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if refusal.status == 413:
        headers["Connection"] = "close"  # the rest of the body is not read
    return respond(problem, headers)


def _writable(text: str) -> str:
    """The text without halves of surrogate pairs, which JSON can name and UTF-8 cannot hold."""
    return text.encode(errors="backslashreplace").decode()


async def _service_error(request: Request, error: Exception) -> Response:
    return refused(cast(ServiceError, error))


async def _invalid(request: Request, error: Exception) -> Response:
    first = cast(RequestValidationError, error).errors()[0]
    field = _writable(".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path", "header")))
    value = (
        ""
        if first["type"] == "missing" or isinstance(first.get("input"), (dict, list))
        else f" (got {first['input']!r:.100})"
    )
    problem = Problem(
        type=PREFIX + "rejected",
        title="A rule is broken",
        status=422,
        detail=_writable(f"{field or 'body'}: {first['msg'].removeprefix('Value error, ')}{value}"),
        field=field or "body",
        reason="invalid",
    )
    return respond(problem)


async def _http_error(request: Request, error: Exception) -> Response:
    refusal = cast(HTTPException, error)
    if isinstance(refusal.__cause__, ServiceError):  # FastAPI wraps what is raised while it reads a JSON body
        return refused(refusal.__cause__)
    if refusal.status_code == 400 and refusal.__cause__ is not None:  # not UTF-8, nested too deep, a number too long
        return refused(RejectedError("the body is not JSON", field="body", reason="invalid"))
    title = _TITLES.get(refusal.status_code, "Error")
    detail = f"{request.method} {request.url.path}: {title.lower()}"
    problem = Problem(title=title, status=refusal.status_code, detail=detail[:300])
    return respond(problem, dict(refusal.headers or {}))


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=400)  # nobody reads this; nothing was kept


async def _internal(request: Request, error: Exception) -> Response:
    problem = Problem(
        type=PREFIX + "internal",
        title="Internal error",
        status=500,
        detail="something went wrong here; it is in the log",
    )
    return respond(problem)
