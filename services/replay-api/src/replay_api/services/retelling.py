"""An episode of another task, told as the present task would have recorded it.

The stored states do not change. What follows from the task does: the target velocities, where the episode ends, and
whether it ended by a fall.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gaitfleet.episode import Ending, EndingReason, Episode
from gaitfleet.task.interface import Task
from gaitfleet.trajectory import Trajectory


def retold(episode: Episode, task: Task) -> Episode:
    """The episode as far as `task` would have let it go.

    Parameters
    ----------
    episode
        Of a task whose episodes can be replayed in this one (`gaitfleet.task.compatibility.check_replayable`).
    task
        Whose rules hold now. An episode without target velocities gets those that the task draws from its seed: they
        steer the reward and not the walker, so what was recorded is as good an experience of them (hindsight
        relabelling, Andrychowicz et al. 2017).

    Returns
    -------
    Episode
        Cut after the first step that falls or aborts by the task's rules, or at its time limit. One that had ended by a
        rule which does not hold here is truncated: it would have gone on.
    """
    trajectory = _with_targets(episode, task)
    trajectory = _cut(trajectory, min(trajectory.steps, task.description.time_limit_steps))
    fallen, aborted = task.fallen(trajectory.state[1:]), task.aborted(trajectory)
    over = fallen | aborted
    ending: tuple[Ending, EndingReason] = episode.metadata.ending, episode.metadata.ending_reason
    if over.any():
        last = int(np.argmax(over))
        trajectory = _cut(trajectory, last + 1)
        ending = ("terminated", "fall") if fallen[last] else ("aborted", "rule")
    elif trajectory.steps < episode.trajectory.steps or ending[1] in ("fall", "rule"):
        ending = "truncated", "time_limit"
    metadata = episode.metadata.model_copy(update={"ending": ending[0], "ending_reason": ending[1]})
    return Episode(metadata, trajectory)


def _with_targets(episode: Episode, task: Task) -> Trajectory:
    trajectory = episode.trajectory
    if not task.description.has_target_velocity:
        return replace(trajectory, target_velocity=None)
    if trajectory.target_velocity is not None:
        return trajectory
    drawn = task.target_velocities(episode.metadata.seed)
    return replace(_cut(trajectory, task.description.time_limit_steps), target_velocity=drawn)


def _cut(trajectory: Trajectory, steps: int) -> Trajectory:
    """The first steps, with as many rows as they have."""
    steps = min(steps, trajectory.steps)
    velocity = trajectory.target_velocity
    return Trajectory(
        state=trajectory.state[: steps + 1],
        action=trajectory.action[:steps],
        reward=trajectory.reward[:steps],
        decision=trajectory.decision[:steps],
        target_velocity=None if velocity is None else velocity[: steps + 1],
    )
