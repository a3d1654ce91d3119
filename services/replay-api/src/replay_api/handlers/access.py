"""What every handler depends on: the context, who may ask, and the run that is asked for.

These take the request and nothing else: every dependency of a dependency costs FastAPI some 50 microseconds a request.
"""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Depends, Path, Request

from gaitfleet.identity import RUN_PATTERN
from replay_api.authentication import Actor
from replay_api.context import Context
from replay_api.services.open_run import OpenRun


async def context_of(request: Request) -> Context:
    """The context that the lifespan has opened. Asynchronous, because FastAPI sends other functions to a thread."""
    return cast(Context, request.app.state.context)


CurrentContext = Annotated[Context, Depends(context_of)]


class Allow:
    """Dependency that lets the given roles pass; `admin` always may."""

    def __init__(self, *actors: Actor) -> None:
        self._actors = frozenset(actors)

    async def __call__(self, request: Request) -> None:
        context = cast(Context, request.app.state.context)
        context.tokens.check(request.headers.get("authorization"), self._actors)


ANYBODY = Depends(Allow("rollout", "trainer", "reader"))
ROLLOUT = Depends(Allow("rollout"))
TRAINER = Depends(Allow("trainer"))
CHECKPOINT_READER = Depends(Allow("trainer", "reader"))
ADMIN = Depends(Allow())

RunPath = Annotated[str, Path(pattern=RUN_PATTERN, description="Id of the run, a DNS label.")]


async def open_run(run: RunPath, request: Request) -> OpenRun:
    """The run of the path, in memory."""
    return await cast(Context, request.app.state.context).registry.open(run)


CurrentRun = Annotated[OpenRun, Depends(open_run)]
