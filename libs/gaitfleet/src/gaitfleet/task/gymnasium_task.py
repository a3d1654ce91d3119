"""Gymnasium environments: the environment's observation is the state, its reward the reward.

The replay API holds such runs too and must not need gymnasium for it, so sizes and bounds of the usual environments are
data here. A rollout worker compares them with the environment itself before it plays.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gaitfleet.errors import ExperimentError
from gaitfleet.experiment import GymnasiumTask, SpacesSettings
from gaitfleet.layout import Column, StateLayout
from gaitfleet.task.interface import Task, TaskDescription
from gaitfleet.trajectory import Float32, Float64, Trajectory


def _spaces(observation_size: int, action_size: int, bound: float, time_limit_steps: int) -> SpacesSettings:
    bounds = (bound,) * action_size
    low = tuple(-value for value in bounds)
    return SpacesSettings(
        observation_size=observation_size, action_low=low, action_high=bounds, time_limit_steps=time_limit_steps
    )


KNOWN_SPACES: dict[str, SpacesSettings] = {
    "Pendulum-v1": _spaces(3, 1, 2.0, 200),
    "MountainCarContinuous-v0": _spaces(2, 1, 1.0, 999),
    "BipedalWalker-v3": _spaces(24, 4, 1.0, 1600),
    **{
        f"{name}-{version}": _spaces(*sizes, 1000)
        for version in ("v4", "v5")
        for name, sizes in {
            "InvertedPendulum": (4, 1, 3.0),
            "InvertedDoublePendulum": (11 if version == "v4" else 9, 1, 1.0),
            "Hopper": (11, 3, 1.0),
            "Walker2d": (17, 6, 1.0),
            "HalfCheetah": (17, 6, 1.0),
        }.items()
    },
}
"""Observation size, action bounds and registered time limit by environment id."""


class GymnasiumTaskFunctions(Task):
    """`Task` over an environment whose observation is its state."""

    def __init__(self, settings: GymnasiumTask) -> None:
        environment_id = settings.environment.removeprefix("gymnasium:")
        spaces = settings.spaces or KNOWN_SPACES.get(environment_id)
        if spaces is None:
            raise ExperimentError(
                f"task.environment: sizes of {environment_id!r} are not known; state them under task.spaces "
                "(observation_size, action_low, action_high, time_limit_steps)"
            )
        self.settings = settings
        names = tuple(f"observation/{i}" for i in range(spaces.observation_size))
        self.description = TaskDescription(
            environment=settings.environment,
            state_layout=StateLayout(tuple(Column(name, "1", "", "observation") for name in names)),
            observation_names=names,
            observation_units=("1",) * len(names),
            action_names=tuple(f"action/{i}" for i in range(len(spaces.action_low))),
            action_low=np.array(spaces.action_low, np.float32),
            action_high=np.array(spaces.action_high, np.float32),
            action_repeat=settings.action.repeat,
            action_random_repeat=settings.action.random_repeat,
            action_bins=settings.action.bins,
            time_limit_steps=settings.time_limit_steps or spaces.time_limit_steps,
        )

    def observe(
        self, state: Float32, target_velocity: Float32 | None, at: npt.NDArray[np.intp] | None = None
    ) -> Float32:
        return state.copy() if at is None else state[at]

    def reward_terms(self, trajectory: Trajectory) -> dict[str, Float64]:
        return {"environment": trajectory.reward.astype(np.float64)}

    @property
    def reward_scale(self) -> float:
        return self.settings.reward_scale

    def fallen(self, state: Float32) -> npt.NDArray[np.bool_]:
        return np.zeros(len(state), np.bool_)  # the environment itself says when it has terminated

    def target_velocities(self, seed: int) -> Float32 | None:
        return None

    def for_evaluation(self) -> Task:
        action = self.settings.action.model_copy(update={"random_repeat": 0})
        return type(self)(self.settings.model_copy(update={"action": action}))
