"""Reward terms of how the walker holds itself: trunk, heading, knees and feet."""

from __future__ import annotations

import numpy as np

from gaitfleet.task.prosthetics_kinematics import yaw
from gaitfleet.task.prosthetics_reward.term import SIDES, Steps, angle_between, term
from gaitfleet.trajectory import Float64

_4TH = "4th of 2018"

FOOT_SEPARATION_M = 0.176
"""Lateral distance of left toes and right foot in the official start pose (the 4th-placed solution of 2018 penalised
anything below it)."""


@term("(x_p - x_h - 0.2)+", unit="m", source="9th of 2018")
def lean_back(steps: Steps) -> Float64:
    offset = steps.now("body_pos/pelvis/x") - steps.now("body_pos/head/x")
    return np.maximum(0.0, offset - 0.2)


@term("min(0.3, (x_p - x_h - 0.15)+)", unit="m", source="1st of 2018, stage 1")
def limited_lean_back(steps: Steps) -> Float64:
    return np.minimum(0.3, np.maximum(0.0, steps.offset("pelvis", "head", "x") - 0.15))


@term("min(0.3, (z_p - z_h - 0.15)+)", unit="m", source="1st of 2018, stage 1")
def limited_lean_left(steps: Steps) -> Float64:
    return np.minimum(0.3, np.maximum(0.0, steps.offset("pelvis", "head", "z") - 0.15))


@term("(0.75 - y_p)+", unit="m", source="5th and 9th of 2018")
def low_pelvis(steps: Steps) -> Float64:
    return np.maximum(0.0, 0.75 - steps.now("body_pos/pelvis/y"))


@term("psi_p^2", unit="rad^2", source="4th of 2018, round 1")
def heading(steps: Steps) -> Float64:
    return np.square(yaw(steps.walker.heading, steps.after))


@term("(angle between psi_p and t)^2", unit="rad^2", source="4th of 2018, round 2")
def heading_error(steps: Steps) -> Float64:
    return np.square(angle_between(yaw(steps.walker.heading, steps.after), steps.target_yaw))


@term("sum over feet of (angle between psi_foot and t)^2", unit="rad^2", source="4th of 2018, round 2")
def feet_heading_error(steps: Steps) -> Float64:
    right, left = (
        np.square(angle_between(yaw(steps.walker.foot_heading[side], steps.after), steps.target_yaw)) for side in SIDES
    )
    return right + left


@term("((0.176 - (z_right foot - z_left toes))+)^2", unit="m^2", source=_4TH)
def feet_crossing(steps: Steps) -> Float64:
    right, left = (steps.now(f"body_pos/{steps.walker.toes[side]}/z") for side in SIDES)
    return np.square(np.maximum(0.0, FOOT_SEPARATION_M - (right - left)))


@term("(d - 0.176)^2, ten times where d < 0.176; d: right foot - left toes, to the right of t", unit="m^2", source=_4TH)
def feet_separation_error(steps: Steps) -> Float64:
    missing = FOOT_SEPARATION_M - steps.offset_right(steps.walker.toes["r"], steps.walker.toes["l"])
    return np.where(missing > 0, 10.0, 1.0) * np.square(missing)


@term("sum over legs of (thigh - left toes or right foot, to the right of t)^2", unit="m^2", source=_4TH)
def splayed_legs(steps: Steps) -> Float64:
    right, left = (np.square(steps.offset_right(f"femur_{side}", steps.walker.toes[side])) for side in SIDES)
    return right + left


@term("min(0, (l x r) . h); left toes, right foot, head relative to the pelvis", unit="m^3", source="3rd of 2018")
def crossing_volume(steps: Steps) -> Float64:
    (lx, ly, lz), (rx, ry, rz), (hx, hy, hz) = (
        [steps.offset(body, "pelvis", axis) for axis in "xyz"]
        for body in (steps.walker.toes["l"], steps.walker.toes["r"], "head")
    )
    volume = (ly * rz - lz * ry) * hx + (lz * rx - lx * rz) * hy + (lx * ry - ly * rx) * hz
    return np.minimum(0.0, volume)


@term("sum over knees of (0.5 (theta + 0.3))+", unit="rad", source="4th of 2018, for less flexion")
def straight_knee(steps: Steps) -> Float64:
    right, left = (steps.knee(side) for side in SIDES)
    return np.maximum(0.0, 0.5 * (right + 0.3)) + np.maximum(0.0, 0.5 * (left + 0.3))


@term("sum over knees of (0.5 (theta + 0.5))+", unit="rad", source=_4TH)
def unflexed_knee(steps: Steps) -> Float64:
    right, left = (np.maximum(0.0, 0.5 * (steps.knee(side) + 0.5)) for side in SIDES)
    return right + left


@term("sum over knees of (theta - 0.1)+", unit="rad", source="1st of 2018, stage 1")
def overextended_knee(steps: Steps) -> Float64:
    right, left = (np.maximum(0.0, steps.knee(side) - 0.1) for side in SIDES)
    return right + left


TERMS = (
    lean_back,
    limited_lean_back,
    limited_lean_left,
    low_pelvis,
    heading,
    heading_error,
    feet_heading_error,
    feet_crossing,
    feet_separation_error,
    splayed_legs,
    crossing_volume,
    straight_knee,
    unflexed_knee,
    overextended_knee,
)
