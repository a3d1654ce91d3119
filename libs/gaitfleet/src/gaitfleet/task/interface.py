"""What the rest of the system asks of a task."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gaitfleet.layout import StateLayout
from gaitfleet.pose import Pose
from gaitfleet.trajectory import Float32, Float64, Trajectory

HOLD_STREAM = 3
"""Stream of an episode's seed from which the random lengths of decisions are drawn; exploration uses others."""


@dataclass(frozen=True)
class TaskDescription:
    """Sizes, names and limits of a task.

    Parameters
    ----------
    environment
        What is simulated, as the experiment names it.
    state_layout
        Columns of a state row.
    observation_names, observation_units
        One name and unit per observation value, in order.
    action_names
        One name per action value, in order.
    action_low, action_high
        float32 [A]. The simulator's bounds.
    action_repeat
        Simulator steps for which one decision is held at least.
    action_random_repeat
        Largest number of steps for which it may be held beyond that.
    action_bins
        Number of equally spaced levels, bounds included, that an action value can take; None: any.
    time_limit_steps
        Simulator steps after which an episode is truncated.
    has_target_velocity
        Whether its episodes carry a target velocity for every state row.
    has_initial_pose
        Whether its episodes may begin in a pose that is not the simulator's own.
    """

    environment: str
    state_layout: StateLayout
    observation_names: tuple[str, ...]
    observation_units: tuple[str, ...]
    action_names: tuple[str, ...]
    action_low: Float32
    action_high: Float32
    action_repeat: int
    time_limit_steps: int
    has_target_velocity: bool = False
    action_random_repeat: int = 0
    action_bins: int | None = None
    has_initial_pose: bool = False

    @property
    def most_decisions(self) -> int:
        """Decisions of an episode at most."""
        return -(-self.time_limit_steps // self.action_repeat)

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

    Functions take any number of consecutive rows. Every result row depends on its own input row only, an observation
    also on rows before it, and is computed by the same element-wise operations whatever the number of rows, so that
    one row at a time and a whole episode agree bit for bit.
    """

    description: TaskDescription

    @abstractmethod
    def observe(
        self, state: Float32, target_velocity: Float32 | None, at: npt.NDArray[np.intp] | None = None
    ) -> Float32:
        """Observations [n, O] of an episode, new memory.

        Parameters
        ----------
        state
            [m, S], the episode from its first row on: what was seen earlier can be part of an observation.
        target_velocity
            [m, 3] in m/s, for tasks that have one.
        at
            [n], the rows at which it is observed. None: all m.
        """

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

    @property
    def may_abort(self) -> bool:
        """Whether there is any rule by which `aborted` can say yes."""
        return False

    def aborted(self, trajectory: Trajectory) -> npt.NDArray[np.bool_]:
        """Whether the state after each step ends the episode by a rule that is not a fall, [T]."""
        return np.zeros(trajectory.steps, np.bool_)

    @property
    def abort_bootstraps(self) -> bool:
        """Whether an episode that was aborted by a rule keeps the value of its last state."""
        return True

    @abstractmethod
    def target_velocities(self, seed: int) -> Float32 | None:
        """Target velocity of every state row of an episode, [time_limit_steps + 1, 3]; None for tasks without one."""

    def initial_pose(self, seed: int, training_episodes: int) -> Pose | None:
        """The pose in which a training episode begins; None for the simulator's own.

        Parameters
        ----------
        training_episodes
            Of the run so far.
        """
        return None

    @abstractmethod
    def for_evaluation(self) -> Task:
        """The same task under the official rules, for role `evaluate`."""

    def measures(self, trajectory: Trajectory) -> dict[str, float | int | None]:
        """What a person wants to know of an episode, by field of `gaitfleet.wire.EpisodeSummary`; empty where nothing
        is."""
        return {}

    def reward(self, trajectory: Trajectory) -> Float32:
        """What is learned, per simulator step, [T]."""
        return self.added(self.reward_terms(trajectory), trajectory.steps)

    def added(self, terms: Mapping[str, Float64], steps: int) -> Float32:
        """What is learned by the terms of so many simulator steps, [T]."""
        total: Float64 = np.zeros(steps)
        for term in terms.values():
            total = total + term
        return (total * self.reward_scale).astype(np.float32)

    def decisions(self, seed: int) -> npt.NDArray[np.uint8]:
        """1 at every simulator step at which an episode with this seed decides anew, [time_limit_steps].

        The first step always does. A decision is held for `action_repeat` steps and up to `action_random_repeat` more.
        """
        description = self.description
        steps, repeat = description.time_limit_steps, description.action_repeat
        generator = np.random.default_rng([seed, HOLD_STREAM])
        extra = generator.integers(0, description.action_random_repeat, -(-steps // repeat), endpoint=True)
        starts = np.cumsum(repeat + extra) - (repeat + extra)
        decides = np.zeros(steps, np.uint8)
        decides[starts[starts < steps]] = 1
        return decides

    def to_simulator(self, action: Float32) -> Float32:
        """Policy action [..., A] in [-1, 1] to the simulator's bounds, clipped to them and put on the nearest level."""
        low, high = self.description.action_low, self.description.action_high
        share = (action + np.float32(1)) * np.float32(0.5)
        if self.description.action_bins is not None:
            intervals = np.float32(self.description.action_bins - 1)
            # halves go up: numpy's round would send them to the even level
            share = np.floor(np.clip(share, 0, 1) * intervals + np.float32(0.5)) / intervals
        # not `clip`, whose own code takes longer than the two
        scaled: Float32 = np.minimum(np.maximum(low + share * (high - low), low), high)
        return scaled

    def to_policy(self, action: Float32) -> Float32:
        """What the simulator received, [..., A], as a policy action in [-1, 1]."""
        low, high = self.description.action_low, self.description.action_high
        scaled: Float32 = np.clip((action - low) / (high - low) * np.float32(2) - np.float32(1), -1, 1)
        return scaled
