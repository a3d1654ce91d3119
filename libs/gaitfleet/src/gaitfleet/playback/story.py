"""The numbers of an episode that are told beside the skeleton."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gaitfleet.episode import Episode
from gaitfleet.errors import PlaybackError
from gaitfleet.experiment import ProstheticsRewardSettings, ProstheticsTask
from gaitfleet.layout import StateLayout
from gaitfleet.task import Task, make_task
from gaitfleet.task.prosthetics import ROUND1_VELOCITY
from gaitfleet.task.prosthetics_layout import prosthetics_layout
from gaitfleet.trajectory import Float64


@dataclass(frozen=True)
class Story:
    """The numbers of an episode that the panel tells, each for every step.

    Parameters
    ----------
    title
        Whose episode it is.
    velocity, target
        [T] in m/s: the pelvis' forward velocity, and what was asked for.
    score
        [T]: the simulator's own reward, added up.
    terms
        Weighted reward terms by name, each [T].
    activations
        Activation of every muscle by name, each [T].
    """

    title: str
    velocity: Float64
    target: Float64
    score: Float64
    terms: dict[str, Float64]
    activations: dict[str, Float64]

    @property
    def steps(self) -> int:
        return len(self.velocity)

    @classmethod
    def of(cls, episode: Episode, task: Task) -> Story:
        """The story of an episode under a task, whose reward terms are shown.

        Raises
        ------
        PlaybackError
            When the episode's rows are not those of the task.
        """
        metadata, trajectory = episode.metadata, episode.trajectory
        layout: StateLayout = task.description.state_layout
        if metadata.layout_hash != layout.hash:
            raise PlaybackError(f"the episode has layout {metadata.layout_hash}, the task {layout.hash}")
        rows = trajectory.state[1:].astype(np.float64)
        targets = trajectory.target_velocity
        version = (metadata.origin or metadata).policy_version
        policy = f"policy {version}" if version else "untrained"
        return cls(
            title=f"{metadata.role} episode, {policy}",
            velocity=rows[:, layout.index("body_vel/pelvis/x")],
            target=np.full(len(rows), ROUND1_VELOCITY[0]) if targets is None else targets[1:, 0].astype(np.float64),
            score=np.cumsum(trajectory.reward, dtype=np.float64),
            terms=task.reward_terms(trajectory),
            activations={
                muscle: rows[:, layout.index(f"muscles/{muscle}/activation")]
                for muscle in task.description.action_names
            },
        )


def check_shapes(episode: Episode, prosthetic: bool) -> None:
    """An episode of the API was checked when it was posted; one of a file may be anything.

    Raises
    ------
    PlaybackError
        When its states are not a walker's, or not finite.
    """
    trajectory = episode.trajectory
    columns, steps = len(prosthetics_layout("3D", prosthetic)), len(trajectory.reward)
    if steps < 1 or trajectory.state.shape != (steps + 1, columns):
        shape = list(trajectory.state.shape)
        raise PlaybackError(f"state has shape {shape}, must be {[steps + 1, columns]} for {steps} rewards")
    if not np.isfinite(trajectory.state).all():
        raise PlaybackError("state holds numbers that are not finite")


def official_task(episode: Episode, prosthetic: bool) -> Task:
    """The challenge's own task of the round that an episode was played in: only round 2 has target velocities."""
    target = episode.trajectory.target_velocity
    reward = ProstheticsRewardSettings(preset="round1" if target is None else "round2", scale=1.0)
    return make_task(ProstheticsTask(prosthetic=prosthetic, round=1 if target is None else 2, reward=reward))
