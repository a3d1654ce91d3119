"""Assembles the trainer from its settings, and turns how it ended into an exit code."""

from __future__ import annotations

import enum
import logging
import math
import signal
import sys
import threading
import time
from collections.abc import Callable

import torch
from prometheus_client import REGISTRY, CollectorRegistry, start_http_server
from pydantic import ValidationError

from gaitfleet.client import ReplayClient
from gaitfleet.errors import CertificateError, ConflictError, ForbiddenError
from gaitfleet.logs import configure_logging
from gaitfleet.progress import ProgressFile
from gaitfleet.service_settings import explain
from gaitfleet.wire import BatchRequest, RunDescription
from trainer import __version__
from trainer.agent import Agent
from trainer.cuda_graph import StaticUpdate
from trainer.feed import BatchFeed
from trainer.learner import Learner
from trainer.lease_keeper import LeaseKeeper
from trainer.metrics import TrainerMetrics
from trainer.priorities import PrioritySender
from trainer.publisher import CheckpointRefusedError, PublicationSchedule, Publisher
from trainer.settings import PREFIX, TrainerSettings
from trainer.snapshot import CheckpointMismatchError, NonFiniteError
from trainer.startup import CheckpointLostError, resume, wait_for_run, warm_start

MISCONFIGURATIONS = (CertificateError, CheckpointLostError, CheckpointMismatchError, CheckpointRefusedError)

logger = logging.getLogger(__name__)

FINAL_PUBLICATION_SECONDS = 4.0
"""Of the ten seconds that a pod has after SIGTERM, so many for the last checkpoint; the rest is for the threads to end
(one second each) and for giving the lease back."""

LEASE_TIMEOUT_SECONDS = 3.0
"""A call about the lease is small, and a slow one must not hold up a trainer that should end."""


class ExitCode(enum.IntEnum):
    """How a trainer ended. After every code but 2 a restart is right: it goes on from the last good checkpoint.
    After 2 somebody must act first."""

    CLEAN = 0
    FAILED = 1
    MISCONFIGURED = 2
    LEASE_LOST = 3
    NONFINITE = 4


def main() -> int:
    """The command ``gaitfleet-trainer``."""
    try:
        settings = TrainerSettings()
    except ValidationError as error:
        sys.stderr.write(explain(error, PREFIX) + "\n")
        return ExitCode.MISCONFIGURED
    configure_logging("trainer", settings.log_level)
    stop = threading.Event()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signal_number, lambda *_: stop.set())
    return run(settings, stop)


def run(settings: TrainerSettings, stop: threading.Event, registry: CollectorRegistry = REGISTRY) -> ExitCode:
    """Train until `stop` is set or nothing can be learned any more."""
    try:
        device = settings.torch_device()
        clients = Clients(settings)
    except (OSError, ValueError) as error:
        logger.error("cannot start: %s", error)
        return ExitCode.MISCONFIGURED
    try:
        _train(settings, device, clients, stop, registry)
    except (*MISCONFIGURATIONS, ForbiddenError) as error:
        hint = "; is the token one of role trainer?" if isinstance(error, ForbiddenError) else ""
        logger.error("stopping: %s%s", error, hint)
        return ExitCode.MISCONFIGURED
    except ConflictError as error:
        logger.error("stopping: %s", error)
        return ExitCode.LEASE_LOST
    except NonFiniteError as error:
        logger.error("stopping: %s; a restart goes on from the last good checkpoint", error)
        return ExitCode.NONFINITE
    except Exception:
        logger.exception("stopping")
        return ExitCode.FAILED
    return ExitCode.CLEAN


class Clients:
    """Makes a client for each thread, with the patience that suits it."""

    def __init__(self, settings: TrainerSettings) -> None:
        self._settings = settings
        self._token = settings.read_token()

    def make(self, *, timeout_seconds: float = 30.0, attempts: int = 4, run: str | None = None) -> ReplayClient:
        """A new client, of another run if one is named."""
        return ReplayClient(
            self._settings.replay_api_url,
            run=run or self._settings.run,
            token=self._token,
            timeout_seconds=timeout_seconds,
            attempts=attempts,
        )


def _train(
    settings: TrainerSettings,
    device: torch.device,
    clients: Clients,
    stop: threading.Event,
    registry: CollectorRegistry,
) -> None:
    progress = ProgressFile(settings.progress_file)
    _prepare_torch(settings, device)
    metrics = TrainerMetrics(settings.run, registry)
    if settings.metrics_port:
        start_http_server(settings.metrics_port, settings.metrics_address, registry)
    control = clients.make(timeout_seconds=10.0, attempts=1)
    description = wait_for_run(control, stop)
    lease = LeaseKeeper(
        clients.make(timeout_seconds=min(LEASE_TIMEOUT_SECONDS, settings.lease_ttl_seconds / 3), attempts=1),
        holder=settings.holder,
        ttl_seconds=settings.lease_ttl_seconds,
        metrics=metrics,
    )
    try:
        if description is not None and lease.acquire(stop):
            lease.start()  # what comes before the first update may take longer than the lease lasts
            agent = Agent(description, device, bf16=settings.bf16)
            resume(agent, control, lease, stop)
            control.close()
            checkpoints, origin = description.experiment.checkpoints, description.experiment.warm_start
            schedule = PublicationSchedule(
                checkpoints.every_updates, checkpoints.every_seconds, agent.updates, published_at=time.monotonic()
            )
            if origin is not None and agent.updates == 0:
                with clients.make(timeout_seconds=30.0, attempts=1, run=origin.run) as source:
                    warm_start(agent, origin, source, lease, stop)
                schedule.published_at = -math.inf  # due at once, and until it has succeeded
            if not stop.is_set():
                _learn(settings, description, agent, schedule, lease, clients, metrics, stop, progress.beat)
    finally:
        lease.stop()


def _learn(
    settings: TrainerSettings,
    description: RunDescription,
    agent: Agent,
    schedule: PublicationSchedule,
    lease: LeaseKeeper,
    clients: Clients,
    metrics: TrainerMetrics,
    stop: threading.Event,
    beat: Callable[[], None],
) -> None:
    publisher = Publisher(clients.make(), lambda: lease.epoch, schedule, metrics)
    feed = BatchFeed(
        clients.make(attempts=1),
        batch_request(description, half_precision=settings.half_precision),
        observation_size=agent.observation_size,
        action_size=agent.action_size,
        pinned=agent.device.type == "cuda",
        metrics=metrics,
    )
    prioritized = description.experiment.replay.sampling == "prioritized"
    priorities = PrioritySender(clients.make(attempts=2), metrics) if prioritized else None
    learner = Learner(
        agent=agent,
        feed=feed,
        publisher=publisher,
        lease=lease,
        update=StaticUpdate(agent).learn if settings.cuda_graphs else agent.learn,
        priorities=priorities,
        metrics=metrics,
    )
    lease.progress = learner.progress
    if priorities is not None:
        priorities.start()
    feed.start()
    logger.info("learning", extra={"device": str(agent.device), "threads": settings.threads, "version": __version__})
    try:
        if publisher.due(agent):
            publisher.start(agent.snapshot())  # a warm start: the rollouts act by it from the first episode on
        learner.run(stop, beat)
        feed.ask_to_stop()
        logger.info("stopping at step %d", agent.updates)
        publisher.finish(agent, FINAL_PUBLICATION_SECONDS)
    finally:
        feed.stop(timeout_seconds=1.0)
        if priorities is not None:
            priorities.stop()


def batch_request(description: RunDescription, *, half_precision: bool) -> BatchRequest:
    """What the run's experiment says about sampling."""
    algorithm, replay = description.experiment.algorithm, description.experiment.replay
    return BatchRequest(
        batch_size=algorithm.batch_size,
        discount=algorithm.discount,
        n_step=algorithm.n_step,
        sampling=replay.sampling,
        importance_exponent=replay.importance_exponent,
        half_precision=half_precision,
    )


def _prepare_torch(settings: TrainerSettings, device: torch.device) -> None:
    torch.set_num_threads(settings.threads)
    # Adam's moments of units that rest fade into denormal numbers, which many CPUs add a hundred times slower
    torch.set_flush_denormal(True)
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32: several times faster, and the data is noisier than its error
