"""The loop: take a batch, learn, count, publish. Everything that waits for the network is in another thread."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor

from gaitfleet.wire import TrainerProgress
from trainer.agent import Agent
from trainer.feed import POLL_SECONDS, BatchFeed, HostBatch
from trainer.lease_keeper import LeaseKeeper
from trainer.metrics import TrainerMetrics
from trainer.priorities import PrioritySender
from trainer.publisher import Publisher
from trainer.snapshot import NonFiniteError
from trainer.transitions import Transitions, UpdateResult

logger = logging.getLogger(__name__)

REPORT_SECONDS = 1.0
"""How often diagnostics are read from the device, which waits for it."""

LOG_SECONDS = 10.0
"""How often they are logged, and the span of the reported updates per second."""

STAGE_SETTLES_SECONDS = 5.0
"""After the lease has named a new stage, so long may other replicas send batches of the one before: they read the run's
document about once a second. What was prefetched is older still."""


class Learner:
    """Learns from batches until it is told to stop.

    Parameters
    ----------
    agent
        What learns.
    feed
        Where batches come from; started by the caller.
    publisher
        Where checkpoints go.
    lease
        The right to train this run.
    update
        One update of `agent` from a batch on its device: `Agent.learn`, or what stands for it.
    priorities
        Where errors go, for prioritized sampling; else None.
    metrics
        What is counted.
    """

    def __init__(
        self,
        *,
        agent: Agent,
        feed: BatchFeed,
        publisher: Publisher,
        lease: LeaseKeeper,
        update: Callable[[Transitions], UpdateResult],
        priorities: PrioritySender | None,
        metrics: TrainerMetrics,
    ) -> None:
        self._agent = agent
        self._feed = feed
        self._publisher = publisher
        self._lease = lease
        self._update = update
        self._priorities = priorities
        self._metrics = metrics
        self._told_stage, self._told_at = agent.stage, time.monotonic()
        self._diagnostics: dict[str, Tensor] = {}
        self._rates: deque[tuple[float, int]] = deque([(time.monotonic(), agent.updates)])
        self._reported_at = self._logged_at = time.monotonic()
        self._progress = TrainerProgress(updates=agent.updates, updates_per_second=0.0, device=str(agent.device))

    def progress(self) -> TrainerProgress:
        """How far it is, as of the last report; may be called from any thread."""
        return self._progress

    def run(self, stop: threading.Event, beat: Callable[[], None] = lambda: None) -> None:
        """Learn until `stop` is set; the update in hand is finished.

        Parameters
        ----------
        beat
            Called at every turn of the loop, several times a second, also while there is nothing to learn from.

        Raises
        ------
        LeaseLostError
            When another trainer holds the run.
        NonFiniteError
            When learning has diverged. Nothing of it was published.
        ApiError
            When the API refuses batches or checkpoints.
        """
        while not stop.is_set():
            beat()
            self._lease.check()
            started = time.perf_counter()
            batch = self._feed.take(POLL_SECONDS)
            self._metrics.phase("wait_batch").inc(time.perf_counter() - started)
            if batch is not None:
                self._follow_stage(batch)
                self._learn(batch)
            self._publish_when_due()
            if time.monotonic() - self._reported_at >= REPORT_SECONDS:
                self._report()

    def _follow_stage(self, batch: HostBatch) -> None:
        """Enter the lease's stage with the first batch that is surely of it.

        One of the stage before, learned from after that, would set the scale of the rewards for the whole stage.
        """
        if self._lease.stage != self._told_stage:
            self._told_stage, self._told_at = self._lease.stage, time.monotonic()
        if self._told_stage != self._agent.stage and batch.asked_at >= self._told_at + STAGE_SETTLES_SECONDS:
            logger.info("stage %d of the curriculum has begun", self._told_stage)
            self._agent.enter(self._told_stage)

    def _learn(self, batch: HostBatch) -> None:
        started = time.perf_counter()
        transitions = batch.to(self._agent.device)
        copied = time.perf_counter()
        # On a GPU this only queues the work; the time that it takes shows up in the next report, which waits for it
        result = self._update(transitions)
        self._metrics.phase("h2d").inc(copied - started)
        self._metrics.phase("compute").inc(time.perf_counter() - copied)
        self._metrics.updates.inc()
        if batch.own:
            version = float(batch.policy_version[: batch.own].mean())
            self._metrics.policy_lag.observe(max(0.0, self._agent.updates - version))
        self._diagnostics |= result.diagnostics
        if self._priorities is not None:
            self._priorities.send(batch.index, result.td_error)
        self._feed.release(batch)

    def _publish_when_due(self) -> None:
        self._publisher.check()
        if self._publisher.due(self._agent):
            started = time.perf_counter()
            self._publisher.start(self._agent.snapshot())
            self._metrics.phase("publish").inc(time.perf_counter() - started)

    def _report(self) -> None:
        started = time.perf_counter()
        now = self._reported_at = time.monotonic()
        norms = self._agent.gradient_norms()
        values = _read(self._diagnostics | {f"{name}_grad_norm": norm for name, norm in norms.items()})
        self._metrics.phase("compute").inc(time.perf_counter() - started)
        if self._agent.device.type == "cuda":
            self._metrics.gpu_memory.set(torch.cuda.memory_allocated(self._agent.device))
        for name in norms:
            self._metrics.grad_norm(name).set(values.get(f"{name}_grad_norm", 0.0))
        for name in self._diagnostics:
            self._metrics.loss(name).set(values[name])
        wrong = [f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)]
        if wrong:
            self._metrics.nonfinite.inc()
            raise NonFiniteError(f"learning has diverged at update {self._agent.updates}: {', '.join(wrong)}")
        self._progress = TrainerProgress(
            updates=self._agent.updates,
            updates_per_second=self._updates_per_second(now),
            losses=values,
            device=str(self._agent.device),
        )
        if values and now - self._logged_at >= LOG_SECONDS:
            self._logged_at = now
            figures = {name: float(f"{value:.4g}") for name, value in values.items()}
            rate = round(self._progress.updates_per_second, 1)
            logger.info("learning", extra={"updates": self._agent.updates, "updates_per_second": rate} | figures)

    def _updates_per_second(self, now: float) -> float:
        self._rates.append((now, self._agent.updates))
        while now - self._rates[1][0] >= LOG_SECONDS:
            self._rates.popleft()
        then, updates = self._rates[0]
        return (self._agent.updates - updates) / (now - then)


def _read(scalars: dict[str, Tensor]) -> dict[str, float]:
    """Scalars from the device in one copy; empty while there are none."""
    if not scalars:
        return {}
    values: list[float] = torch.stack([scalar.float() for scalar in scalars.values()]).tolist()
    return dict(zip(scalars, values, strict=True))
