"""Runs, their status, limits, history and workers."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from gaitfleet.experiment import Experiment
from gaitfleet.wire import (
    EventPage,
    ForkRequest,
    Limits,
    LimitsChange,
    RunDescription,
    RunStatus,
    WorkerOrders,
    WorkerReport,
)
from replay_api.handlers.access import ADMIN, ANYBODY, ROLLOUT, CurrentContext, CurrentRun, RunPath
from replay_api.handlers.problems import problems
from replay_api.services.status import status_of

router = APIRouter(prefix="/v1/runs", tags=["runs"])

WorkerPath = Annotated[
    str, Path(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9._-]+$", description="Name of the worker.")
]


@router.get("", dependencies=[ANYBODY], responses=problems(), summary="All runs, newest first")
async def list_runs(context: CurrentContext) -> list[RunDescription]:
    return await context.stores.runs.all()


@router.put(
    "/{run}",
    dependencies=[ADMIN],
    responses=problems(409, 413, 422) | {201: {"model": RunDescription, "description": "Created"}},
    summary="Create a run, or find it there with the same experiment",
)
async def create_run(
    run: RunPath, experiment: Experiment, context: CurrentContext, response: Response
) -> RunDescription:
    description, new = await context.registry.create(run, experiment)
    response.status_code = 201 if new else 200
    return description


@router.post(
    "/{run}/forks",
    status_code=201,
    dependencies=[ADMIN],
    responses=problems(404, 409, 413, 422)
    | {200: {"model": RunDescription, "description": "The same fork was there already"}},
    summary="Create another run that learns from this one's stored training episodes too",
)
async def fork_run(run: RunPath, request: ForkRequest, context: CurrentContext, response: Response) -> RunDescription:
    description, new = await context.forks.create(run, request)
    response.status_code = 201 if new else 200
    return description


@router.get("/{run}", dependencies=[ANYBODY], responses=problems(404, 422), summary="One run")
async def get_run(run: RunPath, context: CurrentContext) -> RunDescription:
    return (await context.registry.record(run)).description


@router.get("/{run}/status", dependencies=[ANYBODY], responses=problems(404, 422), summary="How a run stands")
async def get_status(opened: CurrentRun, context: CurrentContext) -> RunStatus:
    return status_of(opened, context.events, context.stores.clock.now())


@router.get(
    "/{run}/limits", dependencies=[ANYBODY], responses=problems(404, 422), summary="The samples-per-insert limiter"
)
async def get_limits(opened: CurrentRun) -> Limits:
    return opened.limiter.limits()


@router.patch(
    "/{run}/limits",
    dependencies=[ADMIN],
    responses=problems(404, 413, 422),
    summary="Change the limiter while it runs; what is left out stays",
)
async def change_limits(opened: CurrentRun, change: LimitsChange, context: CurrentContext) -> Limits:
    return await context.registry.change_limits(opened, change)


@router.get("/{run}/events", dependencies=[ANYBODY], responses=problems(404, 422), summary="History, oldest first")
async def list_events(
    run: RunPath,
    context: CurrentContext,
    after: Annotated[
        str | None,
        Query(pattern=r"^[0-9a-f]{1,32}$", description="Sequence of the last event known; only later ones are given."),
    ] = None,
    kind: Annotated[str | None, Query(pattern=r"^[a-z_]{1,50}$", description="Only events of this kind.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="Events at most.")] = 100,
) -> EventPage:
    await context.registry.record(run)
    return EventPage(events=await context.event_store.page(run, after, kind, limit))


@router.put(
    "/{run}/workers/{worker}",
    dependencies=[ROLLOUT],
    responses=problems(404, 413, 422, 429),
    summary="Say how a rollout worker is, every few seconds; the answer says which stage it should play",
)
async def report_worker(
    opened: CurrentRun, worker: WorkerPath, report: WorkerReport, context: CurrentContext
) -> WorkerOrders:
    if opened.workers.report(worker, report):
        data = {"worker": worker, "role": report.role, "simulators": report.simulators}
        await context.events.tell(opened.run, "worker_joined", **data)
    return WorkerOrders(stage=opened.description.stage, training_episodes=opened.tally.training_episodes)


@router.delete(
    "/{run}/workers/{worker}",
    status_code=204,
    dependencies=[ROLLOUT],
    responses=problems(404, 422),
    summary="A rollout worker leaves",
)
async def worker_leaves(opened: CurrentRun, worker: WorkerPath, context: CurrentContext) -> None:
    if opened.workers.leave(worker):
        await context.events.tell(opened.run, "worker_left", worker=worker, silent=False)
