"""Assembles the application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from fastapi import FastAPI

from replay_api import __version__
from replay_api.context import open_context
from replay_api.handlers import checkpoints, description, episodes, health, problems, runs, training
from replay_api.handlers.measuring import Measuring
from replay_api.handlers.turns import Turns
from replay_api.handlers.web_pages import NoWebPages
from replay_api.metrics import Metrics
from replay_api.services.run_metrics import RunCollector
from replay_api.settings import Settings


def create_app(settings: Settings) -> FastAPI:
    """The application. Clients are opened by its lifespan; `app.state.end_waits()` ends every wait,
    from any thread.

    Parameters
    ----------
    settings
        The options.
    """
    metrics = Metrics()
    metrics.state_prices(settings.dollars_per_hour, settings.budget_dollars_per_hour)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        stop = asyncio.Event()
        app.state.end_waits = partial(asyncio.get_running_loop().call_soon_threadsafe, stop.set)
        async with open_context(settings, metrics, stop) as context:
            collector = RunCollector(lambda: context.registry.opened)
            metrics.registry.register(collector)
            app.state.context = context
            try:
                yield
            finally:
                metrics.registry.unregister(collector)

    app = FastAPI(
        title="gaitfleet replay API",
        version=__version__,
        summary="Keeps what the rollouts play and what the trainer learns, and serves both.",
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,  # their pages load scripts from elsewhere, and ask for a token
        redoc_url=None,
    )
    problems.install(app)
    description.complete(app)
    for module in (runs, episodes, training, checkpoints, health):
        app.include_router(module.router)
    if settings.authentication == "none":
        app.add_middleware(NoWebPages)
    app.add_middleware(Turns)
    app.add_middleware(
        Measuring,
        metrics=metrics,
        max_json_bytes=settings.max_json_bytes,
        max_inflight_bytes=settings.max_inflight_bytes,
    )
    return app
