"""Liveness, readiness and metrics: no token, and no run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from fastapi import APIRouter, Response
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from gaitfleet.wire import ReadinessReport
from replay_api.constants import READINESS_SECONDS
from replay_api.errors import UnavailableError
from replay_api.handlers.access import CurrentContext
from replay_api.storage.mongo import ping

router = APIRouter(tags=["health"])

OK = "ok"


@router.get("/health/live", summary="Whether the event loop runs; asks nobody")
async def live() -> dict[str, str]:
    return {"status": "alive"}


@router.get(
    "/health/ready",
    responses={503: {"model": ReadinessReport, "description": "A part is not ready"}},
    summary="Whether to send requests here: the database answers, and the checkpoint store has answered once",
)
async def ready(context: CurrentContext, response: Response) -> ReadinessReport:
    database, store = await asyncio.gather(_state(ping(context.database)), _state(context.stores.objects.check()))
    if database == OK and context.upkeep.lacking is not None:
        database = context.upkeep.lacking
    context.upkeep.store_answered |= store == OK
    service = "shutting down" if context.stop.is_set() else OK
    # Episodes and batches need no checkpoint store. Were a replica unready while it is away, all of them would be, and
    # nobody could reach any.
    report = ReadinessReport(
        ready=service == database == OK and context.upkeep.store_answered,
        parts={"service": service, "database": database, "checkpoint_store": store},
    )
    response.status_code = 200 if report.ready else 503
    return report


async def _state(check: Awaitable[None]) -> str:
    try:
        async with asyncio.timeout(READINESS_SECONDS):
            await check
    except UnavailableError as error:
        return error.detail
    except TimeoutError:
        return f"no answer within {READINESS_SECONDS:g} s"
    return OK


@router.get("/metrics", response_class=Response, summary="Prometheus")
async def metrics(context: CurrentContext) -> Response:
    return Response(generate_latest(context.metrics.registry), media_type=CONTENT_TYPE_LATEST)
