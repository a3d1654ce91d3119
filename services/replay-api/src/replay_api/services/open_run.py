"""A run in use: its task, its transitions in memory, its limiter, its heads."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from datetime import datetime

from gaitfleet.episode import EpisodeMetadata
from gaitfleet.quality.checks import EpisodeChecks
from gaitfleet.quality.repeats import RepeatWatch
from gaitfleet.task.interface import Task
from gaitfleet.wire import EpisodeSummary, RunDescription
from replay_api.constants import LATE_OVERLAP_SECONDS, REPLICA_SECONDS
from replay_api.errors import RejectedError
from replay_api.metrics import Metrics
from replay_api.services.cache import TransitionCache
from replay_api.services.heads import Heads
from replay_api.services.limiter import Limiter
from replay_api.services.mixture import Source
from replay_api.services.recent import RecentKeys
from replay_api.services.sampling import Sampler
from replay_api.services.tally import Tally
from replay_api.services.transitions import Transitions
from replay_api.services.workers import WorkerBook
from replay_api.storage.episodes import Planned
from replay_api.storage.runs import RunRecord

INLINE_APPEND_BYTES = 1 << 20
"""Episodes up to this many bytes are copied into the memory on the event loop, in a fifth of a millisecond; the
way to a thread and back takes longer."""


def learned_stages(description: RunDescription) -> tuple[str, ...]:
    """Stages whose episodes are learned from: the present one, and those before it since the last restart."""
    experiment, index = description.experiment, description.stage
    first = index
    while first > 0 and (stage := experiment.stage_at(first)) is not None and stage.replay == "keep":
        first -= 1
    return experiment.stage_names[first : index + 1]


@dataclass(slots=True)
class Additions:
    """Counts samples in the run's document, each exactly once.

    Parameters
    ----------
    by
        Names this process and this opening of the run.
    number
        Of the addition that is made next.
    pending
        Transitions of an addition whose outcome is not known; it is made again before any other.
    """

    by: str = field(default_factory=lambda: f"p{os.urandom(6).hex()}")
    number: int = 1
    pending: int = 0


@dataclass(eq=False)
class OpenRun:
    """Everything this process holds of one run.

    Parameters
    ----------
    description
        The run, in the stage that this process holds it in.
    stage_tasks
        The task of every stage.
    record
        The run's document as last read.
    repeats
        Knows the latest episodes that this process has taken in.
    sampler
        Draws small batches, on the event loop only.
    sources
        What is drawn from beside the run's own transitions.
    loading
        True while older episodes are still being loaded.
    flushed
        Sampled transitions that the document knows of.
    additions
        What this process adds to that count.
    planned_at
        By the database's clock: what was stored before is loaded, what was stored later is followed.
    unsettled_until
        Until then, by the monotonic clock, an episode may come to the database that this process has sent there itself
        and does not hold.
    oldest
        Its oldest training episodes as retention has found them last, without those that it has deleted since.
    oldest_after
        Transitions that were deleted of the run by then.
    followed
        When the last search of each kind for what others have stored began, by the same clock.
    """

    description: RunDescription
    stage_tasks: tuple[Task, ...]
    record: RunRecord
    cache: TransitionCache
    sampler: Sampler
    limiter: Limiter
    tally: Tally
    heads: Heads
    metrics: Metrics
    threads: Executor
    planned_at: datetime
    sources: tuple[Source, ...] = ()
    unsettled_until: float = 0.0
    oldest: Sequence[Planned] = ()
    oldest_after: int = 0
    followed: dict[str, datetime] = field(default_factory=dict)
    loading: bool = True
    flushed: int = 0
    additions: Additions = field(default_factory=Additions)
    workers: WorkerBook = field(default_factory=WorkerBook)
    repeats: RepeatWatch = field(default_factory=RepeatWatch)
    # An insert that is under way may end this much after its key was noted, and must still be known by then.
    recent: RecentKeys = field(default_factory=lambda: RecentKeys(4 * LATE_OVERLAP_SECONDS))
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    flusher: list[asyncio.Task[None]] = field(default_factory=list)
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    used_at: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.stage_checks = tuple(EpisodeChecks(task) for task in self.stage_tasks)

    @property
    def run(self) -> str:
        return self.description.run

    @property
    def unsettled(self) -> bool:
        """Whether the database may hold, or be about to hold, an episode of this process that is not in memory."""
        return time.monotonic() < self.unsettled_until

    def unsettle(self) -> None:
        """An episode was sent to the database, and this process does not know whether it holds it."""
        self.unsettled_until = time.monotonic() + REPLICA_SECONDS

    @property
    def stored_transitions(self) -> int:
        """Training transitions in the database."""
        return self.limiter.inserted - self.record.deleted_transitions

    @property
    def task(self) -> Task:
        """The task of the stage."""
        return self.stage_tasks[self.description.stage]

    def position(self, stage: str) -> int:
        """Place of one of its stages in the curriculum."""
        return self.description.experiment.stage_names.index(stage)

    def task_of(self, metadata: EpisodeMetadata) -> Task:
        """The task that an episode of this run was played in.

        Raises
        ------
        RejectedError
            When the run has no such stage.
        """
        names = self.description.experiment.stage_names
        if metadata.stage not in names:
            detail = f"stage is {metadata.stage!r}; the run has {', '.join(map(repr, names))}"
            raise RejectedError(detail, field="stage", reason="stage")
        return self.stage_tasks[names.index(metadata.stage)]

    def as_recorded(self, metadata: EpisodeMetadata) -> bool:
        """Whether an episode can be learned from as it was recorded: it was played in the stage, and by this run."""
        return (metadata.run, metadata.stage, metadata.origin) == (self.run, self.stage_name, None)

    @property
    def stage_name(self) -> str:
        """Name of the stage; empty without a curriculum."""
        return self.description.experiment.stage_names[self.description.stage]

    @property
    def reward_weight(self) -> float:
        """Weight of the stage's own reward at this moment; the rest is that of the reward of the stage before."""
        stage = self.description.experiment.stage_at(self.description.stage)
        return 1.0 if stage is None else stage.reward_weight(self.tally.stage_steps)

    @property
    def former_task(self) -> Task | None:
        """The task of the stage before, while its reward still counts."""
        return self.stage_tasks[self.description.stage - 1] if self.reward_weight < 1.0 else None

    def cache_of(self, stage: str) -> TransitionCache | None:
        """Where training episodes of a stage of the run are learned from; None where they are not."""
        if stage in learned_stages(self.description):
            return self.cache
        return next((source.cache for source in self.sources if stage in source.stages), None)

    def end_sources(self) -> None:
        """Let go of what nothing comes from any more."""
        if any(source.over(self.tally.stage_steps) for source in self.sources):
            self.sources = tuple(source for source in self.sources if not source.over(self.tally.stage_steps))

    async def admit(self, summary: EpisodeSummary, transitions: Transitions | None) -> None:
        """Take in an episode that the database has acknowledged: count it, and let its transitions be sampled."""
        self.tally.add(summary)
        self.end_sources()
        if summary.role == "evaluate":
            return
        cache = self.cache_of(summary.stage)
        if transitions is not None and cache is not None:
            stored_at = summary.stored_at.timestamp()
            if transitions.nbytes <= INLINE_APPEND_BYTES and not cache.lock.locked():
                cache.append(transitions, stored_at)
            else:  # in a thread, because a sampler may hold the lock for some milliseconds
                await asyncio.get_running_loop().run_in_executor(self.threads, cache.append, transitions, stored_at)
        self.limiter.insert(summary.transitions)
