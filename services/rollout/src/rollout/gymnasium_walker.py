"""The prosthetics walker as a Gymnasium environment, for algorithms that are not gaitfleet's.

Importing this module registers ``gaitfleet/Prosthetics-v0``. Gymnasium has known no plugins since 1.0, but imports the
module whose name stands before the id::

    env = gymnasium.make("rollout.gymnasium_walker:gaitfleet/Prosthetics-v0", model="2D", reward={"preset": "walk"})
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np

from gaitfleet.episode import Role
from gaitfleet.experiment import ProstheticsTask, parse_experiment
from gaitfleet.task import make_task
from gaitfleet.trajectory import Float32, Trajectory
from rollout.environments.factory import make_environment
from rollout.environments.interface import Environment, SimulatorFailure, check_finite

ENVIRONMENT_ID = "gaitfleet/Prosthetics-v0"


class GymnasiumWalker(gymnasium.Env[Float32, Float32]):
    """What a gaitfleet worker plays: observation, action, reward and endings of the task settings.

    ## Action

    One number in [-1, 1] for each muscle (19, intact model 22); (a + 1) / 2 is its excitation, within
    ``action.limits`` and on ``action.bins`` where those are set. One call of `step` is one decision: it is held for
    ``action.repeat`` simulator steps of 10 ms, 4 unless set, or until the episode ends.

    ## Observation

    ``observation.preset``: 159 values (`compact`), 160 (`official-160`); names in ``task.description``.

    ## Reward

    What is learned: the terms of ``reward.preset``, times ``reward.scale``, summed over the simulator steps of the
    decision. ``info["reward_terms"]`` has their sums before the scale, ``info["official_reward"]`` osim-rl's own
    reward over the same steps, ``info["simulator_steps"]`` their number.

    ## Episode end

    *terminated*: the walker fell below ``ending.fall_height``, or was aborted by a rule that costs the future
    (``ending.abort_bootstraps: false``). *truncated*: the time limit, any other abort, or a failure of the simulator,
    named in ``info["simulator_failure"]``; the observation is the last whole state's then.

    ## Initial state

    ``initial_state``, annealed by the episodes of this object. All that is random follows from the seed of `reset`.

    Parameters
    ----------
    experiment
        A whole experiment file as a mapping, instead of the keyword arguments; only its task is used.
    evaluation
        The official rules, as for evaluation episodes: osim-rl's integrator, fall height and first pose.
    **task
        Keys of the experiment file's ``task`` block: ``model="2D"``, ``round=2``, ``reward={"preset": "walk"}``, …

    Raises
    ------
    ExperimentError
        When the settings are not a prosthetics task's; names every field.
    """

    def __init__(
        self,
        experiment: Mapping[str, Any] | None = None,
        *,
        evaluation: bool = False,
        render_mode: None = None,
        **task: Any,
    ) -> None:
        if experiment is not None and task:
            raise ValueError(f"give either experiment or its task's keys, not both: {', '.join(task)}")
        settings = parse_experiment({"task": task} if experiment is None else dict(experiment)).task
        if not isinstance(settings, ProstheticsTask):
            raise ValueError(f"task.environment is {settings.environment!r}, must be 'prosthetics'")
        role: Role = "evaluate" if evaluation else "train"
        self.task = make_task(settings).for_evaluation() if evaluation else make_task(settings)
        self.render_mode = render_mode
        self._simulator: Environment = make_environment(settings, role)
        description = self.task.description
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (description.observation_size,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1, 1, (description.action_size,), np.float32)
        steps = description.time_limit_steps
        self._state = np.zeros((steps + 1, len(description.state_layout)), np.float32)
        self._action = np.zeros((steps, description.action_size), np.float32)
        self._reward = np.zeros(steps, np.float32)
        self._decision = np.zeros(steps, np.uint8)
        self._target_velocity: Float32 | None = None
        self._step = 0
        self._episodes = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Float32, dict[str, Any]]:
        super().reset(seed=seed)
        episode_seed = int(self.np_random.integers(1 << 31))
        self._decision = self.task.decisions(episode_seed)
        self._target_velocity = self.task.target_velocities(episode_seed)
        pose = self.task.initial_pose(episode_seed, self._episodes)
        self._simulator.reset(episode_seed, self._state[0], self._target_velocity, pose)
        self._step = 0
        self._episodes += 1
        return self._observation(), {"initial_pose": None if pose is None else pose.model_dump()}

    def step(self, action: Float32) -> tuple[Float32, float, bool, bool, dict[str, Any]]:
        first, info = self._step, dict[str, Any]()
        if first >= len(self._action):
            raise RuntimeError("the episode has reached its time limit; call reset first")
        received = self.task.to_simulator(np.clip(np.asarray(action, np.float32), -1, 1))
        terminated = truncated = False
        while not (terminated or truncated):
            self._action[self._step] = received
            try:
                row = self._state[self._step + 1]
                reward, _, _ = self._simulator.step(received, row)
                check_finite(row, reward, self.task.description.state_layout)
            except SimulatorFailure as failure:
                info["simulator_failure"] = str(failure)
                truncated = True
                break
            self._reward[self._step] = reward
            self._step += 1
            terminated, truncated = self._ended()
            if self._step < len(self._decision) and self._decision[self._step]:
                break
        played = self._played(first)
        terms = self.task.reward_terms(played)
        info["reward_terms"] = {name: float(values.sum()) for name, values in terms.items()}
        info["official_reward"] = float(played.reward.sum(dtype=np.float64))
        info["simulator_steps"] = played.steps
        reward = float(self.task.reward(played).sum(dtype=np.float64))
        return self._observation(), reward, terminated, truncated, info

    def close(self) -> None:
        self._simulator.close()

    def _observation(self) -> Float32:
        rows = slice(0, self._step + 1)
        target = None if self._target_velocity is None else self._target_velocity[rows]
        observation: Float32 = self.task.observe(self._state[rows], target, np.array([self._step]))[0]
        return observation.copy()

    def _ended(self) -> tuple[bool, bool]:
        """Terminated, truncated after the step that was just played."""
        last = self._played(self._step - 1)
        if self.task.fallen(last.state[1:])[0]:
            return True, False
        if self.task.aborted(last)[0]:
            return not self.task.abort_bootstraps, self.task.abort_bootstraps
        return False, self._step >= len(self._action)

    def _played(self, first: int) -> Trajectory:
        """The episode from a step on."""
        steps, rows = slice(first, self._step), slice(first, self._step + 1)
        target = None if self._target_velocity is None else self._target_velocity[rows]
        return Trajectory(self._state[rows], self._action[steps], self._reward[steps], self._decision[steps], target)


gymnasium.register(ENVIRONMENT_ID, entry_point="rollout.gymnasium_walker:GymnasiumWalker")
