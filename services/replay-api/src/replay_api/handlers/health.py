"""Liveness, readiness and metrics: no token, and no run."""

from __future__ import annotations

from fastapi import APIRouter, Response
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from gaitfleet.wire import ReadinessReport
from replay_api.errors import UnavailableError
from replay_api.handlers.access import CurrentContext
from replay_api.storage.mongo import ping

router = APIRouter(tags=["health"])


@router.get("/health/live", summary="Whether the event loop runs; asks nobody")
async def live() -> dict[str, str]:
    return {"status": "alive"}


@router.get(
    "/health/ready",
    responses={503: {"model": ReadinessReport, "description": "A part is not ready"}},
    summary="Whether database and checkpoint store answer",
)
async def ready(context: CurrentContext, response: Response) -> ReadinessReport:
    parts = {"service": "shutting down" if context.stop.is_set() else "ok"}
    for name, check in (("database", ping(context.database)), ("checkpoint_store", context.stores.objects.check())):
        try:
            await check
            parts[name] = "ok"
        except UnavailableError as error:
            parts[name] = error.detail
    if parts["database"] == "ok" and not context.upkeep.prepared:
        parts["database"] = "indexes are being created"
    report = ReadinessReport(ready=all(part == "ok" for part in parts.values()), parts=parts)
    response.status_code = 200 if report.ready else 503
    return report


@router.get("/metrics", response_class=Response, summary="Prometheus")
async def metrics(context: CurrentContext) -> Response:
    return Response(generate_latest(context.metrics.registry), media_type=CONTENT_TYPE_LATEST)
