"""All checks of one episode of a task."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gaitfleet.episode import Episode
from gaitfleet.experiment import ProstheticsEndingSettings
from gaitfleet.quality.any_task import frozen_actions, nothing_moves
from gaitfleet.quality.finding import Finding
from gaitfleet.quality.gait import behaviours, walked
from gaitfleet.quality.walker import WalkerChecks
from gaitfleet.task.interface import Task
from gaitfleet.task.prosthetics import ProstheticsTaskFunctions


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the checks say of an episode.

    Parameters
    ----------
    walked
        Whether it is walking; None for tasks without a walker.
    measures
        What it was judged by, `Task.measures`.
    """

    findings: list[Finding]
    walked: bool | None
    measures: dict[str, float | int | None]


class EpisodeChecks:
    """The checks of a run's episodes.

    Parameters
    ----------
    task
        Of the run; its evaluation episodes may go on to the official fall height.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self.walker: WalkerChecks | None = None
        if isinstance(task, ProstheticsTaskFunctions):
            settings = task.settings
            lowest = min(settings.ending.fall_height, ProstheticsEndingSettings().fall_height)
            self.walker = WalkerChecks(task.description.state_layout, settings.model, lowest)

    def __call__(self, episode: Episode) -> Verdict:
        """Check an episode that has passed `gaitfleet.episode.check_episode`."""
        measures, reason = self._task.measures(episode.trajectory), episode.metadata.ending_reason
        return Verdict(
            findings=list(self._findings(episode, measures)),
            walked=None if self.walker is None else walked(measures, reason),
            measures=measures,
        )

    def _findings(self, episode: Episode, measures: dict[str, float | int | None]) -> Iterator[Finding]:
        trajectory, metadata = episode.trajectory, episode.metadata
        if self.walker is not None:
            yield from self.walker(trajectory.state)
            yield from behaviours(measures, trajectory.steps, metadata.ending_reason)
        elif (finding := nothing_moves(trajectory)) is not None:
            yield finding
        if (finding := frozen_actions(trajectory, self._task.description, metadata.exploration)) is not None:
            yield finding
