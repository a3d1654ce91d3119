"""What the rest of the system asks of a task."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gaitfleet.layout import StateLayout
from gaitfleet.trajectory import Float32, Float64, Trajectory


@dataclass(frozen=True)
class TaskDescription:
    """Sizes, names and limits of a task.

    Parameters
    ----------
    state_layout
        Columns of a state row.
    observation_names
        One name per observation value, in order.
    action_names
        One name per action value, in order.
    action_low, action_high
        float32 [A]. The simulator's bounds.
    action_repeat
        Simulator steps for which one decision is held.
    time_limit_steps
        Simulator steps after which an episode is truncated.
    has_target_velocity
        Whether its episodes carry a target velocity for every state row.
    """

    state_layout: StateLayout
    observation_names: tuple[str, ...]
    action_names: tuple[str, ...]
    action_low: Float32
    action_high: Float32
    action_repeat: int
    time_limit_steps: int
    has_target_velocity: bool = False

    @property
    def observation_size(self) -> int:
        return len(self.observation_names)

    @property
    def action_size(self) -> int:
        return len(self.action_names)

    @property
    def observation_hash(self) -> str:
        """Hash over the observation's names, in order."""
        return hashlib.sha256(json.dumps(self.observation_names).encode()).hexdigest()[:16]


class Task(ABC):
    """A task as pure functions of recorded rows.

    Functions take any number of consecutive rows. Every result row depends on its own input row only (tasks with a
    history would say so here), and is computed by the same element-wise operations whatever the number of rows, so
    that one row at a time and a whole episode agree bit for bit.
    """

    description: TaskDescription

    @abstractmethod
    def observe(self, state: Float32, target_velocity: Float32 | None) -> Float32:
        """Observations [n, O] of state rows [n, S]."""

    @abstractmethod
    def reward_terms(self, trajectory: Trajectory) -> dict[str, Float64]:
        """Weighted reward terms by name, each [T]; their sum times `reward_scale` is what is learned."""

    @property
    @abstractmethod
    def reward_scale(self) -> float:
        """Factor on the sum of the terms."""

    @abstractmethod
    def fallen(self, state: Float32) -> npt.NDArray[np.bool_]:
        """Whether each state row [n, S] ends the episode by the task's own rule, [n]."""

    @abstractmethod
    def target_velocities(self, seed: int) -> Float32 | None:
        """Target velocity of every state row of an episode, [time_limit_steps + 1, 3]; None for tasks without one."""

    @abstractmethod
    def for_evaluation(self) -> Task:
        """The same task under the official rules, for role `evaluate`."""

    def measures(self, trajectory: Trajectory) -> dict[str, float | int | None]:
        """What a person wants to know of an episode, by field of `gaitfleet.wire.EpisodeSummary`; empty where nothing
        is."""
        return {}

    def reward(self, trajectory: Trajectory) -> Float32:
        """What is learned, per simulator step, [T]."""
        total: Float64 = np.zeros(trajectory.steps)
        for term in self.reward_terms(trajectory).values():
            total = total + term
        return (total * self.reward_scale).astype(np.float32)

    def to_simulator(self, action: Float32) -> Float32:
        """Policy action [..., A] in [-1, 1] to the simulator's bounds, clipped to them."""
        low, high = self.description.action_low, self.description.action_high
        scaled: Float32 = np.clip(low + (action + np.float32(1)) * np.float32(0.5) * (high - low), low, high)
        return scaled

    def to_policy(self, action: Float32) -> Float32:
        """What the simulator received, [..., A], as a policy action in [-1, 1]."""
        low, high = self.description.action_low, self.description.action_high
        scaled: Float32 = np.clip((action - low) / (high - low) * np.float32(2) - np.float32(1), -1, 1)
        return scaled
