"""The one object that holds the open clients and the services made of them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass

from replay_api.authentication import TokenBook
from replay_api.metrics import Metrics
from replay_api.services.admission import Admission
from replay_api.services.background import Background
from replay_api.services.batches import BatchService
from replay_api.services.curriculum import Curriculum
from replay_api.services.evaluation import Evaluations
from replay_api.services.event_log import EventLog
from replay_api.services.forks import Forks
from replay_api.services.ingest import Ingest
from replay_api.services.leases import Leases
from replay_api.services.opening import Stores
from replay_api.services.publication import Publication
from replay_api.services.registry import RunRegistry
from replay_api.services.retention import Retention
from replay_api.services.thinning import Thinning
from replay_api.services.upkeep import Upkeep
from replay_api.settings import Settings
from replay_api.storage.checkpoint_records import CheckpointRecords
from replay_api.storage.checkpoint_store import open_store
from replay_api.storage.episodes import EpisodeStore
from replay_api.storage.events import EventStore
from replay_api.storage.mongo import Database, DatabaseClock, connect
from replay_api.storage.replicas import ReplicaStore
from replay_api.storage.runs import RunStore


@dataclass(frozen=True)
class Context:
    """Everything a handler can ask.

    Parameters
    ----------
    stop
        Set when the service shuts down: nobody waits any longer.
    """

    settings: Settings
    metrics: Metrics
    tokens: TokenBook
    database: Database
    stores: Stores
    event_store: EventStore
    events: EventLog
    registry: RunRegistry
    forks: Forks
    ingest: Ingest
    ingest_places: Admission
    ingest_admission: Admission
    upload_admission: Admission
    batches: BatchService
    leases: Leases
    publication: Publication
    background: Background
    upkeep: Upkeep
    stop: asyncio.Event


@asynccontextmanager
async def open_context(settings: Settings, metrics: Metrics, stop: asyncio.Event) -> AsyncIterator[Context]:
    """Open the clients, build the services, and close all of it in the other order."""
    # Samplers have threads of their own: a trainer must not wait behind a hundred episodes that are being decoded.
    working = ThreadPoolExecutor(settings.cpu_threads, "work")
    sampling = ThreadPoolExecutor(max(2, min(4, os.cpu_count() or 1)), "sample")
    client = connect(settings, metrics)
    try:
        async with open_store(settings, metrics) as objects:
            database = client[settings.mongodb_database]
            stores = Stores(
                RunStore(database),
                EpisodeStore(client, database),
                CheckpointRecords(database),
                objects,
                DatabaseClock(database),
                ReplicaStore(database),
            )
            context = _assemble(settings, metrics, stop, database, stores, working, sampling)
            context.upkeep.start()
            try:
                yield context
            finally:
                stop.set()
                await context.upkeep.stop()
                await context.background.stop(seconds=5.0)
                await context.registry.close()
    finally:
        client.close()
        working.shutdown(wait=False, cancel_futures=True)
        sampling.shutdown(wait=False, cancel_futures=True)


def _assemble(
    settings: Settings,
    metrics: Metrics,
    stop: asyncio.Event,
    database: Database,
    stores: Stores,
    working: ThreadPoolExecutor,
    sampling: ThreadPoolExecutor,
) -> Context:
    event_store = EventStore(database, stores.clock)
    background = Background()
    events = EventLog(event_store, background, metrics)
    registry = RunRegistry(stores, events, metrics, settings, working)
    evaluations = Evaluations(stores.episodes, stores.records, stores.runs, events, metrics)
    curriculum = Curriculum(registry, stores.runs, stores.episodes, events)
    retention = Retention(registry, stores.episodes, background, metrics)
    thinning = Thinning(registry, stores, metrics)
    return Context(
        settings=settings,
        metrics=metrics,
        tokens=TokenBook(settings),
        database=database,
        stores=stores,
        event_store=event_store,
        events=events,
        registry=registry,
        forks=Forks(registry, stores, events),
        ingest=Ingest(
            registry,
            stores.episodes,
            evaluations,
            curriculum,
            retention,
            events,
            metrics,
            settings,
            working,
            stores.clock,
        ),
        ingest_places=Admission(settings.max_concurrent_episodes, "episodes"),
        ingest_admission=Admission(settings.max_inflight_bytes, "bytes of episodes"),
        upload_admission=Admission(2 * settings.max_checkpoint_bytes, "bytes of checkpoints"),
        batches=BatchService(metrics, settings, sampling, stop),
        leases=Leases(stores.runs, events),
        publication=Publication(registry, stores, thinning, background, events, metrics, working),
        background=background,
        upkeep=Upkeep(settings, registry, stores.clock, metrics),
        stop=stop,
    )
