"""The 21 terms with which the 2018 system coached its walker.

Most are a parabola P(value, target, tolerance) = 1 - ((value - target) / tolerance)^2: 1 at the target, 0 at the
tolerance, negative beyond it. Four are placeholders that its author never filled; they are 0.

Three terms exist twice. Mended, they do what their author wanted:

* `knee_bent_l`, `knee_bent_r`: he aimed at +60 degrees, but flexion is negative and the knee's range is -120 to +10:
  the reward asked for a hyper-extended knee. Mended: -60 degrees.
* `knees_opposite_joint_vel`: it was to act once the knees are bent by 45 degrees on average, but waited for +45,
  which no knee reaches: it never acted. Mended: from -45 degrees.

The mended preset also follows the episode's target velocity, where the original always aimed at round 1's 3 m/s.

On the intact model the right toes stand for the prosthetic foot.
"""

from __future__ import annotations

import math

import numpy as np

from gaitfleet.task.prosthetics_reward.term import Steps, Term, angle_between
from gaitfleet.trajectory import Float64

KNEE_TARGET_RAD = math.radians(60)
"""How far the knees are to be bent on average."""

KNEE_MARGIN_RAD = math.radians(15)
"""The knees are bent when they are no further than this from the target."""

SOURCE = "2018 system"
MENDED = "2018 system, mended"


def parabola(value: Float64, target: Float64 | float, tolerance: float) -> Float64:
    """1 at the target, 0 at the tolerance, negative beyond it."""
    return 1.0 - np.square((value - target) / tolerance)


def _track(name: str, column: str, axis: str) -> Term:
    symbol = "com" if column.startswith("misc") else "h"
    return Term(
        name,
        f"P(v{axis}_{symbol}, t{axis}, 5)",
        "1",
        SOURCE,
        lambda steps: parabola(steps.now(f"{column}/{axis}"), _target(steps, axis), 5.0),
    )


def _lean(axis: str) -> Term:
    return Term(
        f"lean_forward_{axis}",
        f"P({axis}_h - {axis}_p, 0.1 t{axis}, 0.4)",
        "1",
        SOURCE,
        lambda steps: parabola(steps.offset("head", "pelvis", axis), 0.1 * _target(steps, axis), 0.4),
    )


def _feet_behind(axis: str) -> Term:
    def function(steps: Steps) -> Float64:
        left, right = (steps.now(f"body_pos/{steps.walker.toes[side]}/{axis}") for side in "lr")
        ahead = steps.now(f"misc/mass_center_pos/{axis}") - (left + right) / 2
        return parabola(ahead, 0.1 * _target(steps, axis), 0.4)

    formula = f"P({axis}_com - mean {axis} of left toes and right foot, 0.1 t{axis}, 0.4)"
    return Term(f"feet_behind_mass_{axis}", formula, "1", SOURCE, function)


def _knee_bent(side: str, sign: int, source: str) -> Term:
    target = sign * KNEE_TARGET_RAD
    formula = f"P(theta_{side}, {60 * sign:+d} deg, pi)"
    return Term(f"knee_bent_{side}", formula, "1", source, lambda steps: parabola(steps.knee(side), target, math.pi))


def _knees_opposite(sign: int, source: str) -> Term:
    def function(steps: Steps) -> Float64:
        left, right = (steps.now(f"joint_vel/knee_{side}/knee_angle_{side}") for side in "lr")
        bent = sign * (steps.knee("l") + steps.knee("r")) / 2 >= KNEE_TARGET_RAD - KNEE_MARGIN_RAD
        return np.where(bent, parabola(left, -right, math.pi), 0.0)

    limit = "mean theta >= +45 deg" if sign > 0 else "mean theta <= -45 deg"
    formula = f"P(dtheta_l/dt, -dtheta_r/dt, pi) where {limit}, else 0"
    return Term("knees_opposite_joint_vel", formula, "1", source, function)


def _low_vertical_velocity(name: str, side: str | None = None) -> Term:
    def function(steps: Steps) -> Float64:
        body = name if side is None else steps.walker.toes[side]
        return parabola(steps.now(f"body_vel/{body}/y"), 0.0, 1.0)

    return Term(f"low_y_vel_{name}", f"P(vy_{name}, 0, 1)", "1", SOURCE, function)


def _placeholder(name: str) -> Term:
    return Term(name, "0 (never filled in)", "1", SOURCE, lambda steps: np.zeros(len(steps.after)))


def _hips_squared(steps: Steps) -> Float64:
    return parabola(angle_between(steps.now("body_pos_rot/pelvis/y"), steps.target_yaw), 0.0, math.pi)


def _target(steps: Steps, axis: str) -> Float64:
    return steps.target_x if axis == "x" else steps.target_z


TERMS = (
    Term("survival", "1", "1", SOURCE, lambda steps: np.ones(len(steps.after))),
    *(_track("target_velocity_" + axis, "misc/mass_center_vel", axis) for axis in "xz"),
    *(_track("head_velocity_" + axis, "body_vel/head", axis) for axis in "xz"),
    *(_lean(axis) for axis in "xz"),
    Term("hips_squared", "P(angle between the pelvis' rotation about y and t, 0, pi)", "1", SOURCE, _hips_squared),
    *(_knee_bent(side, -1, MENDED) for side in "lr"),
    *(_low_vertical_velocity(body) for body in ("pelvis", "head")),
    _low_vertical_velocity("toes_l", "l"),
    _low_vertical_velocity("pros_foot_r", "r"),
    _knees_opposite(-1, MENDED),
    *(_feet_behind(axis) for axis in "xz"),
    *map(_placeholder, ("one_foot_off_ground", "femurs_parallel", "absolute_foot_velocity", "forefoot_strike")),
)

AS_WRITTEN = {
    term.name: term for term in (_knee_bent("l", 1, SOURCE), _knee_bent("r", 1, SOURCE), _knees_opposite(1, SOURCE))
}
"""The three terms as they stood in 2018."""

WEIGHTS = {
    "survival": 100.0,
    "target_velocity_x": 3.0,
    "target_velocity_z": 3.0,
    "head_velocity_x": 2.0,
    "head_velocity_z": 2.0,
    "lean_forward_x": 5.0,
    "lean_forward_z": 5.0,
    "hips_squared": 5.0,
    "knee_bent_l": 5.0,
    "knee_bent_r": 5.0,
    "low_y_vel_pelvis": 5.0,
    "low_y_vel_head": 5.0,
    "low_y_vel_toes_l": 5.0,
    "low_y_vel_pros_foot_r": 5.0,
    "knees_opposite_joint_vel": 3.0,
    "feet_behind_mass_x": 5.0,
    "feet_behind_mass_z": 5.0,
    "one_foot_off_ground": 0.0,
    "femurs_parallel": 0.0,
    "absolute_foot_velocity": 0.0,
    "forefoot_strike": 0.0,
}
"""Weight of each term, the same before and after mending."""
