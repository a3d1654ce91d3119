"""From a recorded episode to the rows that are sampled."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from gaitfleet.episode import Episode
from gaitfleet.task.interface import Task
from gaitfleet.trajectory import Float32, Trajectory
from replay_api.errors import RejectedError


@dataclass(frozen=True, slots=True)
class Transitions:
    """One episode as D decisions.

    Parameters
    ----------
    observation
        float32 [D+1, O]. One row a decision, and the observation after the last simulator step.
    action
        float32 [D, A], policy units.
    reward
        float32 [D]. Learned reward, summed over the simulator steps of the decision.
    terminated
        Whether the bootstrap after the last decision is zero: the episode ended by termination, or was aborted by a
        rule in a task whose aborts do not bootstrap.
    policy_version
        Policy that acted; 0 for none.
    former_reward
        float32 [D]. The same reward by the task of the stage before, while the run's reward goes from that one into its
        own; else None.
    """

    observation: Float32
    action: Float32
    reward: Float32
    terminated: bool
    policy_version: int
    former_reward: Float32 | None = None

    def __len__(self) -> int:
        return len(self.reward)

    @property
    def nbytes(self) -> int:
        """Memory of its rows."""
        return self.observation.nbytes + self.action.nbytes + self.reward.nbytes

    def newest(self, decisions: int) -> Transitions:
        """The last so many decisions."""
        if decisions >= len(self):
            return self
        rows = slice(-decisions, None)
        return replace(
            self,
            observation=self.observation[-decisions - 1 :],
            action=self.action[rows],
            reward=self.reward[rows],
            former_reward=None if self.former_reward is None else self.former_reward[rows],
        )


def check_finite(transitions: Transitions) -> None:
    """Finite states can still give an observation or a reward that is not; that must not reach a network.

    Raises
    ------
    RejectedError
        Naming the first number that is not finite.
    """
    for name in ("observation", "action", "reward", "former_reward"):
        array = getattr(transitions, name)
        if array is not None and not np.isfinite(array).all():
            where = [int(i) for i in np.argwhere(~np.isfinite(array))[0]]
            detail = f"derived {name}{where} is {array[tuple(where)]}, must be finite"
            raise RejectedError(detail, field=name, reason="not_finite")


def transitions_of(
    episode: Episode, task: Task, former: Task | None = None, *, reward: Float32 | None = None
) -> Transitions:
    """Observe and reward an episode as its run's task says.

    Parameters
    ----------
    reward
        Learned reward of every simulator step, [T], where it is known already.
    former
        The task of the stage before, where its reward is wanted too (`gaitfleet.task.stages` has made sure that it can
        be had).
    """
    trajectory = episode.trajectory
    decided = trajectory.decision_steps
    rows = np.append(decided, trajectory.steps)
    observation = task.observe(trajectory.state, trajectory.target_velocity, rows)
    ending = episode.metadata.ending
    return Transitions(
        observation=np.ascontiguousarray(observation, np.float32),
        action=task.to_policy(trajectory.action[decided]),
        reward=_of_decisions(trajectory, _reward(trajectory, task) if reward is None else reward),
        terminated=ending == "terminated" or (ending == "aborted" and not task.abort_bootstraps),
        policy_version=episode.metadata.policy_version,
        former_reward=None if former is None else _of_decisions(trajectory, _reward(trajectory, former)),
    )


def _reward(trajectory: Trajectory, task: Task) -> Float32:
    if not task.description.has_target_velocity:
        trajectory = replace(trajectory, target_velocity=None)
    return task.reward(trajectory)


def _of_decisions(trajectory: Trajectory, reward: Float32) -> Float32:
    """Learned reward of every decision, [D], from that of every step, [T]."""
    summed = np.add.reduceat(reward.astype(np.float64), trajectory.decision_steps)
    return summed.astype(np.float32)
