"""Reading a run from its API: summaries of its history, and everything of its newest episodes, one at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID

import numpy as np
import numpy.typing as npt

from gaitfleet.analysis.columns import ColumnRange, ColumnRanges
from gaitfleet.client import ReplayClient
from gaitfleet.episode import Episode, decode_episode
from gaitfleet.errors import NotFoundError
from gaitfleet.quality import Finding
from gaitfleet.quality.checks import EpisodeChecks
from gaitfleet.quality.repeats import Played, RepeatWatch
from gaitfleet.task import Task
from gaitfleet.task.stages import tasks_by_stage
from gaitfleet.wire import EpisodeSummary, RunDescription

ACTION_BINS = 20


@dataclass(frozen=True)
class Found:
    """One finding of the analysis.

    Parameters
    ----------
    episodes
        Episodes that have it, of those read.
    example
        The worst of them, and what is wrong with it.
    """

    episodes: int
    example: UUID
    finding: Finding


@dataclass(frozen=True)
class Analysis:
    """What was read of a run.

    Parameters
    ----------
    history
        Summaries, oldest first.
    read
        Episodes of which every row was read: the newest.
    simulated_rows
        Rows of those.
    walked
        How many of those are walking; None for tasks without a walker.
    findings
        By name, the most frequent first.
    columns
        Ranges of state columns, in the order of the layout.
    action_names
        Of the rows of the histogram.
    action_histogram
        Share of each of `ACTION_BINS` equal parts of an action's range, [A, ACTION_BINS].
    """

    run: RunDescription
    history: list[EpisodeSummary]
    read: int
    simulated_rows: int
    walked: int | None
    findings: dict[str, Found]
    columns: list[ColumnRange]
    action_names: tuple[str, ...]
    action_histogram: npt.NDArray[np.float64]


def collect(
    client: ReplayClient, *, episodes: int, history: int, progress: Callable[[int], None] = lambda read: None
) -> Analysis:
    """Read a run.

    Memory is bounded by `history` summaries, one episode and a sample of rows, whatever the length of the run.

    Parameters
    ----------
    episodes
        Newest episodes of which every row is read.
    history
        Newest episodes of which the summary is read.
    progress
        Called with the number of episodes read so far.
    """
    run = client.run()
    summaries = list(client.every_episode(newest=max(history, episodes)))
    reader = _Reader(tasks_by_stage(run.experiment))
    # oldest first, so that of two equal episodes the later one is found
    for number, summary in enumerate(reversed(summaries[:episodes]), start=1):
        try:
            reader.add(decode_episode(client.episode_content(summary.episode_id)))
        except NotFoundError:
            continue  # deleted by the run's retention since it was listed
        progress(number)
    return reader.analysis(run, summaries[::-1])


@dataclass
class _Reader:
    """Adds up episodes, each held against the task of the stage that it was played in."""

    tasks: dict[str, Task]
    read: int = 0
    walked: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    worst: dict[str, tuple[UUID, Finding]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.checks = {stage: EpisodeChecks(task) for stage, task in self.tasks.items()}
        self.repeats = RepeatWatch()
        self.description = next(iter(self.tasks.values())).description  # layout and actions are those of every stage
        columns = self.description.state_layout.columns
        limits = [checks.walker.limits for checks in self.checks.values() if checks.walker is not None]
        self.walks = bool(limits)
        unlimited = np.full(len(columns), np.inf)
        lows, highs = zip(*(limits or [(-unlimited, unlimited)]), strict=True)
        low, high = np.min(lows, axis=0), np.max(highs, axis=0)  # what any stage allows
        self.ranges = ColumnRanges([c.name for c in columns], [c.unit for c in columns], low, high)
        self.histogram = np.zeros((self.description.action_size, ACTION_BINS), np.int64)

    def add(self, episode: Episode) -> None:
        """Take an episode in."""
        trajectory, description = episode.trajectory, self.description
        verdict = self.checks[episode.metadata.stage](episode)
        repeated = self.repeats(Played.of(episode))
        self.read += 1
        self.walked += bool(verdict.walked)
        self.ranges.add(trajectory.state)
        share = (trajectory.action - description.action_low) / (description.action_high - description.action_low)
        bins = np.minimum((share * ACTION_BINS).astype(np.intp), ACTION_BINS - 1)
        for action, row in enumerate(bins.T):
            self.histogram[action] += np.bincount(row, minlength=ACTION_BINS)
        for finding in (*verdict.findings, *([] if repeated is None else [repeated])):
            self.counts[finding.name] += 1
            known = self.worst.get(finding.name)
            if known is None or _excess(finding) > _excess(known[1]):
                self.worst[finding.name] = episode.metadata.episode_id, finding

    def analysis(self, run: RunDescription, history: list[EpisodeSummary]) -> Analysis:
        """What was added up."""
        names = tuple(name.removeprefix("action/") for name in self.description.action_names)
        return Analysis(
            run=run,
            history=history,
            read=self.read,
            simulated_rows=self.ranges.rows,
            walked=self.walked if self.walks else None,
            findings={name: Found(count, *self.worst[name]) for name, count in self.counts.most_common()},
            columns=self.ranges.ranges(),
            action_names=names,
            action_histogram=self.histogram / max(1, self.histogram[0].sum()),
        )


def _excess(finding: Finding) -> float:
    return abs(finding.value - finding.limit)
