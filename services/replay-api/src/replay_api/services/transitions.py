"""From a recorded episode to the rows that are sampled."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gaitfleet.episode import Episode
from gaitfleet.task.interface import Task
from gaitfleet.trajectory import Float32


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
    """

    observation: Float32
    action: Float32
    reward: Float32
    terminated: bool
    policy_version: int

    def __len__(self) -> int:
        return len(self.reward)

    def newest(self, decisions: int) -> Transitions:
        """The last so many decisions."""
        if decisions >= len(self):
            return self
        rows = slice(-decisions, None)
        observation = self.observation[-decisions - 1 :]
        return Transitions(observation, self.action[rows], self.reward[rows], self.terminated, self.policy_version)


def transitions_of(episode: Episode, task: Task) -> Transitions:
    """Observe and reward an episode as its run's task says."""
    trajectory = episode.trajectory
    decided = trajectory.decision_steps
    rows = np.append(decided, trajectory.steps)
    observation = task.observe(trajectory.state, trajectory.target_velocity, rows)
    reward = np.add.reduceat(task.reward(trajectory).astype(np.float64), decided).astype(np.float32)
    ending = episode.metadata.ending
    return Transitions(
        observation=np.ascontiguousarray(observation, np.float32),
        action=task.to_policy(trajectory.action[decided]),
        reward=reward,
        terminated=ending == "terminated" or (ending == "aborted" and not task.abort_bootstraps),
        policy_version=episode.metadata.policy_version,
    )
