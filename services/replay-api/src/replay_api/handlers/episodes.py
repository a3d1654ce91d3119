"""Posting episodes and reading them back."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request, Response

from gaitfleet import codec
from gaitfleet.episode import Ending, Role, decode_episode
from gaitfleet.wire import EpisodePage, EpisodeReceipt, EpisodeSummary
from replay_api.errors import EpisodeMissingError, ServiceError
from replay_api.handlers.access import ANYBODY, ROLLOUT, CurrentContext, CurrentRun, RunPath
from replay_api.handlers.bodies import BINARY_ANSWER, BINARY_BODY, binary, declared_bytes, is_zstd, read_body
from replay_api.handlers.problems import problems
from replay_api.services.timesteps import MEDIA_TYPES, TableFormat, encode_table, table_of
from replay_api.storage.episodes import EpisodeFilter

router = APIRouter(prefix="/v1/runs/{run}/episodes", tags=["episodes"])

EpisodePath = Annotated[UUID, Path(description="Id of the episode.")]


@router.post(
    "",
    status_code=201,
    response_model=EpisodeReceipt,
    dependencies=[ROLLOUT],
    openapi_extra=BINARY_BODY,
    responses=problems(404, 409, 413, 415, 422, 429)
    | {200: {"model": EpisodeReceipt, "description": "The same bytes were there already"}},
    summary="Post an episode; 201 once a majority of the database has it in its journal",
)
async def post_episode(request: Request, opened: CurrentRun, context: CurrentContext) -> Response:
    limits, admission = context.settings, context.ingest_admission
    with ExitStack() as held:
        held.enter_context(context.ingest_places.take(1))
        # as received, and as much again for what is made of it
        held.enter_context(admission.take(2 * declared_bytes(request, limits.max_episode_bytes)))
        try:
            compressed = is_zstd(request)
            body = await read_body(request, limits.max_episode_bytes, "episode")
        except ServiceError as error:
            await context.ingest.refuse(opened.run, error)
            raise
        if compressed:
            held.enter_context(admission.take(min(codec.stated_bytes(body), limits.max_decompressed_bytes)))
        receipt = await context.ingest.post(opened, body, compressed=compressed)
    # a model would be checked and written out once more by FastAPI
    return Response(receipt.model_dump_json(), 201 if receipt.stored else 200, media_type="application/json")


@router.get(
    "",
    response_model=EpisodePage,
    dependencies=[ANYBODY],
    responses=problems(404, 422),
    summary="Episodes, newest first",
)
async def list_episodes(
    run: RunPath,
    context: CurrentContext,
    limit: Annotated[int, Query(ge=1, le=1000, description="Episodes at most.")] = 100,
    before: Annotated[UUID | None, Query(description="Only episodes older than this one.")] = None,
    role: Annotated[Role | None, Query(description="Only this role.")] = None,
    worker: Annotated[str | None, Query(max_length=100, description="Only of this worker.")] = None,
    ending: Annotated[Ending | None, Query(description="Only those that ended like this.")] = None,
    policy_version: Annotated[int | None, Query(ge=0, lt=1 << 53, description="Only those of this policy.")] = None,
    finding: Annotated[
        str | None, Query(pattern=r"^[a-z_]{1,50}$", description="Only those with this finding, as `statue`.")
    ] = None,
) -> Response:
    await context.registry.record(run)
    chosen = EpisodeFilter(role, worker, ending, policy_version, finding)
    found = await context.stores.episodes.page(run, chosen, before, limit)
    page = EpisodePage(episodes=found, next_before=found[-1].episode_id if len(found) == limit else None)
    # in a thread: a thousand episodes take a third of a second, in which the event loop would do nothing else
    return Response(await asyncio.to_thread(page.model_dump_json), media_type="application/json")


@router.get(
    "/{episode_id}", dependencies=[ANYBODY], responses=problems(404, 422), summary="One episode without its arrays"
)
async def get_episode(run: RunPath, episode_id: EpisodePath, context: CurrentContext) -> EpisodeSummary:
    summary = await context.stores.episodes.get(run, episode_id)
    if summary is None:
        raise _missing(run, episode_id)
    return summary


@router.get(
    "/{episode_id}/content",
    dependencies=[ANYBODY],
    response_class=Response,
    responses=problems(404, 422)
    | {200: BINARY_ANSWER | {"description": "The body; as zstd where the client accepts it"}},
    summary="One episode as it was posted",
)
async def get_content(request: Request, run: RunPath, episode_id: EpisodePath, context: CurrentContext) -> Response:
    content = await _content(run, episode_id, context)
    accepted = {part.split(";")[0].strip() for part in request.headers.get("accept-encoding", "").lower().split(",")}
    if "zstd" in accepted:
        return binary(content, content_encoding="zstd", vary="Accept-Encoding")
    limit = context.settings.max_decompressed_bytes
    return binary(await asyncio.to_thread(codec.decompress, content, limit_bytes=limit), vary="Accept-Encoding")


@router.get(
    "/{episode_id}/timesteps",
    dependencies=[ANYBODY],
    response_class=Response,
    responses=problems(404, 422)
    | {200: {"description": "The table", "content": {kind.split(";")[0]: {} for kind in MEDIA_TYPES.values()}}},
    summary="The steps of one episode as a table; reward terms and observation are computed by the run's task",
)
async def get_timesteps(
    opened: CurrentRun,
    episode_id: EpisodePath,
    context: CurrentContext,
    columns: Annotated[
        str,
        Query(
            max_length=20_000,
            pattern=r"^[ -~]*$",  # one byte a character, so that what is accepted fits the 64 KiB of an address
            description="Comma-separated names or patterns (`body_pos/pelvis/*`) over state columns, `action/…`, "
            "`reward`, `learned_reward`, `decision`, `target_velocity/…`, `reward_term/…`, `observation/…`.",
        ),
    ] = "*",
    format: Annotated[TableFormat, Query(description="`json`: names and rows; `csv`; `parquet`.")] = "json",
) -> Response:
    content = await _content(opened.run, episode_id, context)
    patterns = [part.strip() for part in columns.split(",") if part.strip()]

    def work() -> bytes:
        episode = decode_episode(codec.decompress(content, limit_bytes=context.settings.max_decompressed_bytes))
        task = opened.task_of(episode.metadata)
        return encode_table(table_of(episode, task, patterns, context.settings.max_timestep_values), format)

    return Response(await asyncio.to_thread(work), media_type=MEDIA_TYPES[format])


async def _content(run: str, episode_id: UUID, context: CurrentContext) -> bytes:
    content = await context.stores.episodes.content(run, episode_id)
    if content is None:
        raise _missing(run, episode_id)
    return content


def _missing(run: str, episode_id: UUID) -> EpisodeMissingError:
    return EpisodeMissingError(f"run {run!r} has no episode {episode_id}", field="episode_id", reason="unknown_episode")
