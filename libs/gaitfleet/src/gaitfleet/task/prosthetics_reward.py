"""Reward terms of the prosthetics task, by name.

Every term is a function of the state after the step (and of the target velocity), [T] per episode. A preset is a set of
weights. x is forward, y up, z right; p the pelvis, h the head, theta the knee angle (negative = flexed), psi the yaw.

=======================  =======================================================  =======  =======  =====
term                     formula (per simulator step)                             round1   round2   walk
=======================  =======================================================  =======  =======  =====
alive                    1                                                        9        10       1
speed_error              (vx_p - 3)^2                                             -1
target_velocity_error    (vx_p - tx)^2 + (vz_p - tz)^2                                     -1
effort                   sum of squared muscle activations                                 -0.001   -0.02
forward_velocity         tanh(1.5 vx_p / target_speed)                                              3
lateral_velocity         tanh(2 vz_p)^2                                                             -2
lean_back                max(0, x_p - x_h - 0.2)                                                    -4
low_pelvis               max(0, 0.75 - y_p)                                                         -10
heading                  psi^2                                                                      -1
feet_crossing            max(0, 0.176 - (z_right foot - z_left foot))^2                             -10
straight_knee            sum over knees of max(0, 0.5 (theta + 0.3))                                -1
=======================  =======================================================  =======  =======  =====

`round1` and `round2` are the official rewards of the 2018 challenge (osim-rl 2.1.5,
`ProstheticsEnv.reward_round1/2`). `walk` finds a gait from scratch; each of its terms is taken from a shaping that
did so in 2018 or 2019 (see docs/task.md).
"""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches

import numpy as np

from gaitfleet.errors import ExperimentError
from gaitfleet.experiment import ProstheticsRewardSettings
from gaitfleet.layout import StateLayout
from gaitfleet.task.prosthetics_kinematics import Heading, column, foot_names
from gaitfleet.task.prosthetics_layout import INTACT_MUSCLES, MUSCLES
from gaitfleet.trajectory import Float32, Float64, Trajectory

PRESETS: dict[str, dict[str, float]] = {
    "round1": {"alive": 9.0, "speed_error": -1.0},
    "round2": {"alive": 10.0, "target_velocity_error": -1.0, "effort": -0.001},
    "walk": {
        "alive": 1.0,
        "forward_velocity": 3.0,
        "lateral_velocity": -2.0,
        "lean_back": -4.0,
        "low_pelvis": -10.0,
        "heading": -1.0,
        "feet_crossing": -10.0,
        "straight_knee": -1.0,
        "effort": -0.02,
    },
}
"""Weight of every term of a preset."""

FOOT_SEPARATION_M = 0.176
"""Lateral distance of the feet in the official start pose (the 4th-placed solution of 2018 penalised anything below
it)."""


class RewardFunction:
    """Weighted terms of an episode.

    Raises
    ------
    ExperimentError
        When a weight names a term that does not exist.
    """

    def __init__(self, layout: StateLayout, settings: ProstheticsRewardSettings, prosthetic: bool) -> None:
        self._layout = layout
        self._settings = settings
        self._feet = {side: body for side, (_, body) in foot_names(prosthetic).items()}
        self._activations = [f"muscles/{muscle}/activation" for muscle in (MUSCLES if prosthetic else INTACT_MUSCLES)]
        self._heading = Heading(layout)
        for name in settings.weights:
            if name not in TERMS:
                near = get_close_matches(name, TERMS, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"terms are {', '.join(TERMS)}"
                raise ExperimentError(f"task.reward.weights: unknown term {name!r}; {hint}")
        self._weights = PRESETS[settings.preset] | settings.weights

    def __call__(self, trajectory: Trajectory) -> dict[str, Float64]:
        """Weighted terms by name, each [T]."""
        rows, targets = trajectory.state[1:], trajectory.target_velocity
        target = None if targets is None else targets[1:].astype(np.float64)
        return {name: weight * TERMS[name](self, rows, target) for name, weight in self._weights.items()}

    def _column(self, rows: Float32, name: str) -> Float64:
        return column(rows, self._layout, name)

    def alive(self, rows: Float32, target: Float64 | None) -> Float64:
        return np.ones(len(rows))

    def speed_error(self, rows: Float32, target: Float64 | None) -> Float64:
        return np.square(self._column(rows, "body_vel/pelvis/x") - 3.0)

    def target_velocity_error(self, rows: Float32, target: Float64 | None) -> Float64:
        target_x, target_z = (3.0, 0.0) if target is None else (target[:, 0], target[:, 2])
        error_x = self._column(rows, "body_vel/pelvis/x") - target_x
        error_z = self._column(rows, "body_vel/pelvis/z") - target_z
        return error_x * error_x + error_z * error_z

    def effort(self, rows: Float32, target: Float64 | None) -> Float64:
        total = np.zeros(len(rows))
        for name in self._activations:
            total = total + np.square(self._column(rows, name))
        return total

    def forward_velocity(self, rows: Float32, target: Float64 | None) -> Float64:
        return np.tanh(1.5 / self._settings.target_speed * self._column(rows, "body_vel/pelvis/x"))

    def lateral_velocity(self, rows: Float32, target: Float64 | None) -> Float64:
        return np.square(np.tanh(2.0 * self._column(rows, "body_vel/pelvis/z")))

    def lean_back(self, rows: Float32, target: Float64 | None) -> Float64:
        offset = self._column(rows, "body_pos/pelvis/x") - self._column(rows, "body_pos/head/x")
        return np.maximum(0.0, offset - 0.2)

    def low_pelvis(self, rows: Float32, target: Float64 | None) -> Float64:
        return np.maximum(0.0, 0.75 - self._column(rows, "body_pos/pelvis/y"))

    def heading(self, rows: Float32, target: Float64 | None) -> Float64:
        cosine, sine = self._heading(rows)
        return np.square(np.arctan2(sine, cosine))

    def feet_crossing(self, rows: Float32, target: Float64 | None) -> Float64:
        right, left = (self._column(rows, f"body_pos/{self._feet[side]}/z") for side in "rl")
        return np.square(np.maximum(0.0, FOOT_SEPARATION_M - (right - left)))

    def straight_knee(self, rows: Float32, target: Float64 | None) -> Float64:
        right, left = (self._column(rows, f"joint_pos/knee_{side}/knee_angle_{side}") for side in "rl")
        return np.maximum(0.0, 0.5 * (right + 0.3)) + np.maximum(0.0, 0.5 * (left + 0.3))


TERMS: dict[str, Callable[[RewardFunction, Float32, Float64 | None], Float64]] = {
    "alive": RewardFunction.alive,
    "speed_error": RewardFunction.speed_error,
    "target_velocity_error": RewardFunction.target_velocity_error,
    "effort": RewardFunction.effort,
    "forward_velocity": RewardFunction.forward_velocity,
    "lateral_velocity": RewardFunction.lateral_velocity,
    "lean_back": RewardFunction.lean_back,
    "low_pelvis": RewardFunction.low_pelvis,
    "heading": RewardFunction.heading,
    "feet_crossing": RewardFunction.feet_crossing,
    "straight_knee": RewardFunction.straight_knee,
}
"""Every term by name, before its weight, [T]."""
