"""Any Gymnasium environment of plain numbers, behind the rollout worker's interface."""

from __future__ import annotations

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box, Space

from gaitfleet.pose import Pose
from rollout.environments.interface import Float32


class GymnasiumEnvironment:
    """An environment of Gymnasium's registry; its observation, flattened, is the state.

    Reward, ``terminated`` and ``truncated`` are the environment's own. Its registered time limit is taken off, since
    time limits are the task's; one that it keeps within itself is not.

    Parameters
    ----------
    environment_id
        For example ``Pendulum-v1``, with or without ``gymnasium:`` before it.

    Raises
    ------
    ValueError
        When observation or action are not a Box, or the action is not of floating point.
    """

    def __init__(self, environment_id: str) -> None:
        self.environment_id = environment_id.removeprefix("gymnasium:")
        # -1: no TimeLimit wrapper, whatever the registry says
        self._environment = gymnasium.make(self.environment_id, max_episode_steps=-1, disable_env_checker=True)
        observation = self._box("observation", self._environment.observation_space)
        action = self._box("action", self._environment.action_space)
        if not np.issubdtype(action.dtype, np.floating):
            raise ValueError(f"{self.environment_id}: the action must be of floating point, not {action.dtype}")
        self._action_shape = action.shape
        self._action_dtype = action.dtype
        self.action_low = action.low.astype(np.float32).ravel()
        self.action_high = action.high.astype(np.float32).ravel()
        self.state_size = int(np.prod(observation.shape))
        self.action_size = int(np.prod(action.shape))

    def _box(self, name: str, space: Space[npt.NDArray[np.generic]]) -> Box:
        if not isinstance(space, Box):
            raise ValueError(f"{self.environment_id}: the {name} must be a Box, not {space}")
        return space

    def reset(
        self,
        seed: int,
        state: Float32,
        target_velocity: npt.NDArray[np.floating] | None = None,
        pose: Pose | None = None,
    ) -> None:
        """Begin an episode with `seed`; these environments have no target velocity and no pose that could be set.

        Raises
        ------
        ValueError
            When `target_velocity` or `pose` is not None.
        """
        if target_velocity is not None or pose is not None:
            what = "pose that could be set" if target_velocity is None else "target velocity"
            raise ValueError(f"{self.environment_id} has no {what}")
        observation, _ = self._environment.reset(seed=seed)
        state[...] = np.ravel(observation)

    def step(self, action: Float32, state: Float32) -> tuple[float, bool, bool]:
        within = (self.action_low <= action) & (action <= self.action_high)  # false for NaN
        if not within.all():
            wrong = int(np.argmin(within))
            low, high = self.action_low[wrong], self.action_high[wrong]
            raise ValueError(f"action[{wrong}] is {action[wrong]}, not within [{low}, {high}]")
        received = action.astype(self._action_dtype).reshape(self._action_shape)
        observation, reward, terminated, truncated, _ = self._environment.step(received)
        state[...] = np.ravel(observation)
        return float(reward), bool(terminated), bool(truncated)

    def close(self) -> None:
        self._environment.close()
