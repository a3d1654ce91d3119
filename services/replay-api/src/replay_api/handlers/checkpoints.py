"""Policies and checkpoints."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Request, Response

from gaitfleet.wire import CheckpointInfo, CheckpointList
from replay_api.constants import MAX_POLICY_WAIT_SECONDS
from replay_api.errors import ServiceError
from replay_api.handlers.access import ANYBODY, CHECKPOINT_READER, TRAINER, CurrentContext, CurrentRun
from replay_api.handlers.bodies import BINARY_ANSWER, BINARY_BODY, binary, declared_bytes, not_modified, read_body
from replay_api.handlers.problems import problems

router = APIRouter(prefix="/v1/runs/{run}", tags=["checkpoints"])

StepPath = Annotated[int, Path(ge=1, lt=1 << 53, description="Updates done: the policy's version.")]


@router.get(
    "/policy",
    dependencies=[ANYBODY],
    response_class=Response,
    responses=problems(404, 422)
    | {200: BINARY_ANSWER | {"description": "The policy"}, 304: {"description": "The client holds the newest already"}},
    summary="The newest policy, from memory",
)
async def get_policy(
    request: Request,
    opened: CurrentRun,
    context: CurrentContext,
    head: Annotated[Literal["newest", "best"], Query(description="Which head.")] = "newest",
    wait: Annotated[
        float, Query(ge=0, le=MAX_POLICY_WAIT_SECONDS, description="Seconds to wait for one the client does not hold.")
    ] = 0.0,
) -> Response:
    known = request.headers.get("if-none-match")
    try:
        policy = await opened.heads.wait(head, known, wait, context.stop)
    except ServiceError as error:
        context.metrics.polls.labels(opened.run, str(error.status)).inc()
        raise
    if policy is None:
        current = opened.heads.get(head)
        context.metrics.polls.labels(opened.run, "304").inc()
        return Response(status_code=304, headers={} if current is None else {"ETag": current.etag})
    context.metrics.polls.labels(opened.run, "200").inc()
    return binary(policy.body, etag=policy.etag, x_policy_version=str(policy.info.step), cache_control="no-cache")


@router.put(
    "/checkpoints/{step}",
    status_code=201,
    dependencies=[TRAINER],
    openapi_extra=BINARY_BODY,
    responses=problems(404, 409, 413, 422, 429)
    | {200: {"model": CheckpointInfo, "description": "The same bytes were there already"}},
    summary="Publish a checkpoint; fenced by the lease's epoch",
)
async def publish(
    request: Request,
    opened: CurrentRun,
    context: CurrentContext,
    response: Response,
    step: StepPath,
    epoch: Annotated[int, Query(ge=1, lt=1 << 53, description="Epoch of the lease.")],
) -> CheckpointInfo:
    limit = context.settings.max_checkpoint_bytes
    with context.upload_admission.take(declared_bytes(request, limit)):
        body = await read_body(request, limit, "checkpoint")
        info, new = await context.publication.publish(opened, step, epoch, body)
    response.status_code = 201 if new else 200
    return info


@router.get("/checkpoints", dependencies=[ANYBODY], responses=problems(404, 422), summary="Checkpoints, newest first")
async def list_checkpoints(opened: CurrentRun, context: CurrentContext) -> CheckpointList:
    return await context.publication.list(opened)


@router.get(
    "/checkpoints/{which}",
    dependencies=[CHECKPOINT_READER],
    response_class=Response,
    responses=problems(404, 422)
    | {200: BINARY_ANSWER | {"description": "The checkpoint"}, 304: {"description": "The client holds it already"}},
    summary="One checkpoint",
)
async def get_checkpoint(
    request: Request,
    opened: CurrentRun,
    context: CurrentContext,
    which: Annotated[StepPath | Literal["newest", "best"], Path(description="A step, `newest` or `best`.")],
) -> Response:
    info = await context.publication.find(opened, which)
    etag = f'"{info.digest}"'
    if not_modified(request, etag):
        return Response(status_code=304, headers={"ETag": etag})
    return binary(await context.publication.body(info), etag=etag, x_policy_version=str(info.step))
