"""What the columns of a walker's state row can physically be."""

from __future__ import annotations

import math

import numpy as np

from gaitfleet.layout import Column, StateLayout
from gaitfleet.task.prosthetics_kinematics import BODY_WEIGHT_N
from gaitfleet.trajectory import Float64

REACH_M = {
    "pelvis": 0.0,
    "femur": 0.15,
    "torso": 0.15,
    "mass_center_pos": 0.5,
    "tibia": 0.6,
    "head": 0.75,
    "foot": 1.2,
}
"""Largest distance in m of a part of the skeleton from the pelvis, a tenth above what was measured."""

HIGHEST_PELVIS_M = 2.0
"""Twice its height in standing: nobody jumps a metre."""

DEEPEST_FOOT_M = 0.25
"""How far the origin of a foot's body can be below the ground; contact lets 0.06 m happen."""

FALL_IN_ONE_STEP_M = 0.1
"""The last row of an episode may be this far below the fall height."""

_ANY = (-math.inf, math.inf)

_COORDINATES = {
    "knee_angle": (-2.7, 1.0),
    "ankle_angle": (-1.6, 1.6),
    "hip_flexion": (-2.7, 2.7),
    "hip_adduction": (-2.2, 2.2),
    "hip_rotation": (-2.2, 2.2),
    "pelvis_tilt": (-2 * math.pi, 2 * math.pi),
    "pelvis_list": (-2 * math.pi, 2 * math.pi),
    "pelvis_rotation": (-2 * math.pi, 2 * math.pi),
    "lumbar_extension": (-1.6, 1.6),
}
"""Angles in rad: the model's ranges (knee -2.09 to 0.17, hip and ankle 2.09 and 1.57) and the give of their stops."""

_MUSCLES = {
    "activation": (0.0, 1.0 + 1e-6),
    "fiber_length": (0.0, 0.7),
    "fiber_force": (-1.0, 25_000.0),
    "force": (-1.0, 25_000.0),
}
"""Pure, m, N. The strongest muscle pulled 9.5 kN. Fibre velocities have no limit: Thelen's model gives hundreds of
m/s for a slack fibre."""

_SPEEDS = {"m/s": 40.0, "rad/s": 150.0}
"""Largest speeds. Measured: 6 m/s and 20 rad/s."""


def column_limits(layout: StateLayout, fall_height: float) -> tuple[Float64, Float64]:
    """Lowest and highest value of every column, each [S]; infinite where nothing is known.

    Parameters
    ----------
    fall_height
        Pelvis height in m below which an episode ends.
    """
    low, high = np.array([_limits_of(column, fall_height) for column in layout.columns]).T.copy()
    return low, high


def _limits_of(column: Column, fall_height: float) -> tuple[float, float]:
    group, *middle, last = column.name.split("/")
    if is_height(column):
        return _heights(middle[0], fall_height)
    if column.unit in _SPEEDS and last != "fiber_velocity":
        return -_SPEEDS[column.unit], _SPEEDS[column.unit]
    if group == "joint_pos":
        return _COORDINATES.get(last.removesuffix("_r").removesuffix("_l"), _ANY)
    if group == "muscles":
        return _MUSCLES.get(last, _ANY)
    if group == "forces":
        return _force(middle[0], last, column.unit)
    return _ANY


def is_height(column: Column) -> bool:
    """Whether a column is the height of a body or of the mass centre."""
    return column.unit == "m" and column.name.endswith("/y")


def _heights(part: str, fall_height: float) -> tuple[float, float]:
    kind = next((name for name in REACH_M if name in part), "foot")  # talus, calcaneus, toes: the foot's bodies
    reach = REACH_M[kind]
    low = fall_height - FALL_IN_ONE_STEP_M - reach
    return (max(low, -DEEPEST_FOOT_M) if kind == "foot" else low), HIGHEST_PELVIS_M + reach


def _force(force: str, what: str, unit: str) -> tuple[float, float]:
    if unit != "N":
        return _ANY
    if what == "force":
        return _MUSCLES["force"]
    most = 30 * BODY_WEIGHT_N  # a foot's impact was 2.7 body weights, and is known to reach ten
    return (-most, 1.0) if what == "ground.force.Y" else (-most, most)  # the ground is only ever pressed
