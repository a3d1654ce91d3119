"""A run in use: its task, its transitions in memory, its limiter, its heads."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Executor
from dataclasses import dataclass, field

from gaitfleet.quality.checks import EpisodeChecks
from gaitfleet.quality.repeats import RepeatWatch
from gaitfleet.task.interface import Task
from gaitfleet.wire import EpisodeSummary, RunDescription
from replay_api.constants import FOLLOW_OVERLAP_SECONDS
from replay_api.metrics import Metrics
from replay_api.services.cache import TransitionCache
from replay_api.services.heads import Heads
from replay_api.services.limiter import Limiter
from replay_api.services.recent import RecentKeys
from replay_api.services.sampling import Sampler
from replay_api.services.tally import Tally
from replay_api.services.transitions import Transitions
from replay_api.services.workers import WorkerBook
from replay_api.storage.runs import RunRecord


@dataclass(eq=False)
class OpenRun:
    """Everything this process holds of one run.

    Parameters
    ----------
    record
        The run's document as last read.
    repeats
        Knows the latest episodes that this process has taken in.
    sampler
        Draws small batches, on the event loop only.
    loading
        True while older episodes are still being loaded.
    flushed
        Sampled transitions that the document knows of.
    """

    description: RunDescription
    task: Task
    record: RunRecord
    cache: TransitionCache
    sampler: Sampler
    limiter: Limiter
    tally: Tally
    heads: Heads
    metrics: Metrics
    threads: Executor
    loading: bool = True
    flushed: int = 0
    workers: WorkerBook = field(default_factory=WorkerBook)
    repeats: RepeatWatch = field(default_factory=RepeatWatch)
    # An insert that is under way may end this much after its key was noted, and must still be known by then.
    recent: RecentKeys = field(default_factory=lambda: RecentKeys(4 * FOLLOW_OVERLAP_SECONDS))
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    flusher: list[asyncio.Task[None]] = field(default_factory=list)
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    used_at: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.checks = EpisodeChecks(self.task)

    @property
    def run(self) -> str:
        return self.description.run

    @property
    def stored_transitions(self) -> int:
        """Training transitions in the database."""
        return self.limiter.inserted - self.record.deleted_transitions

    async def admit(self, summary: EpisodeSummary, transitions: Transitions | None) -> None:
        """Take in an episode that the database has acknowledged: count it, and let it be sampled."""
        self.tally.add(summary)
        labels = (self.run, summary.role)
        self.metrics.inserted_episodes.labels(*labels).inc()
        self.metrics.inserted_steps.labels(*labels).inc(summary.steps)
        if transitions is None:
            return
        stored_at = summary.stored_at.timestamp()
        # In a thread, because the lock may be held by a sampler for some milliseconds.
        await asyncio.get_running_loop().run_in_executor(self.threads, self.cache.append, transitions, stored_at)
        self.limiter.insert(len(transitions))
        self.metrics.inserted_items.labels(self.run).inc(len(transitions))
        self.metrics.policy_lag.labels(self.run).observe(max(0, self.heads.step - summary.policy_version))
