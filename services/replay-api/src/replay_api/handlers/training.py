"""What the trainer asks for: batches, priorities, the lease."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from gaitfleet.wire import BatchRequest, Lease, LeaseRequest, PriorityReceipt, PriorityUpdate
from replay_api.handlers.access import TRAINER, CurrentContext, CurrentRun
from replay_api.handlers.bodies import BINARY_ANSWER, Streamed
from replay_api.handlers.problems import problems

router = APIRouter(prefix="/v1/runs/{run}", tags=["training"])


@router.post(
    "/batches",
    dependencies=[TRAINER],
    response_class=Response,
    responses=problems(404, 413, 422, 429) | {200: BINARY_ANSWER | {"description": "Batches, one after the other"}},
    summary="Sample batches; waits for the limiter",
)
async def sample(opened: CurrentRun, request: BatchRequest, context: CurrentContext) -> Streamed:
    answer = await context.batches.answer(opened, request)
    return Streamed(answer.pieces, answer.content_length)


@router.post(
    "/priorities",
    dependencies=[TRAINER],
    responses=problems(404, 413, 422),
    summary="Set priorities of sampled transitions; those evicted since are ignored",
)
async def set_priorities(opened: CurrentRun, update: PriorityUpdate, context: CurrentContext) -> PriorityReceipt:
    return context.batches.set_priorities(opened, update)


@router.post(
    "/lease",
    dependencies=[TRAINER],
    responses=problems(404, 409, 413, 422),
    summary="Take or renew the right to publish",
)
async def take_lease(opened: CurrentRun, request: LeaseRequest, context: CurrentContext) -> Lease:
    return await context.leases.take(opened, request)


@router.delete(
    "/lease", status_code=204, dependencies=[TRAINER], responses=problems(404, 409, 422), summary="Give the lease back"
)
async def release_lease(
    opened: CurrentRun,
    context: CurrentContext,
    epoch: Annotated[int, Query(ge=1, lt=1 << 53, description="Epoch of the lease.")],
) -> Response:
    await context.leases.release(opened, epoch)
    return Response(status_code=204)
