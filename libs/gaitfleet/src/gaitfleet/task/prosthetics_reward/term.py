"""What a reward term is, and what it can ask of the simulator steps it is a function of.

In formulas x is forward, y up, z right; v is a velocity; p the pelvis, h the head, com the mass centre; t the target
velocity; theta a knee angle (negative = flexed); psi the yaw; e the excitations, a the activations; D the change since
the step before; (.)+ is max(0, .).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gaitfleet.experiment import ProstheticsRewardSettings
from gaitfleet.layout import StateLayout
from gaitfleet.task.prosthetics_kinematics import Heading, column, turned
from gaitfleet.task.prosthetics_layout import action_names
from gaitfleet.trajectory import Float32, Float64, Trajectory

SIDES = "rl"

ROUND1_TARGET = (3.0, 0.0)
"""Target velocity of round 1 in m/s: forward, right."""


class Walker:
    """The skeleton that the terms speak of.

    Parameters
    ----------
    layout
        Of the state rows.
    prosthetic
        Whether the right leg ends in a prosthesis.
    """

    def __init__(self, layout: StateLayout, prosthetic: bool) -> None:
        self.layout = layout
        self.toes = {"r": "pros_foot_r" if prosthetic else "toes_r", "l": "toes_l"}
        self.shin = {"r": "pros_tibia_r" if prosthetic else "tibia_r", "l": "tibia_l"}
        self.muscles = action_names(prosthetic=prosthetic)
        self.heading = Heading(layout)
        self.foot_heading = {side: Heading(layout, body) for side, body in self.toes.items()}


class Steps:
    """T simulator steps: the rows before and after each, the action that led from one to the other, the target.

    Parameters
    ----------
    follows_target
        False where the target is round 1's, whatever the episode's.
    """

    def __init__(
        self, walker: Walker, settings: ProstheticsRewardSettings, trajectory: Trajectory, follows_target: bool = True
    ) -> None:
        self.walker = walker
        self.settings = settings
        self.before, self.after = trajectory.state[:-1], trajectory.state[1:]
        self.action: Float32 = trajectory.action
        target = trajectory.target_velocity if follows_target else None
        self.target_x, self.target_z = (
            np.full(trajectory.steps, value) if target is None else target[1:, axis].astype(np.float64)
            for value, axis in zip(ROUND1_TARGET, (0, 2), strict=True)
        )

    def now(self, name: str) -> Float64:
        """A column after each step, [T]."""
        return column(self.after, self.walker.layout, name)

    def change(self, name: str) -> Float64:
        """How much a column changed in each step, [T]."""
        return self.now(name) - column(self.before, self.walker.layout, name)

    def offset(self, body: str, origin: str, axis: str) -> Float64:
        """Position of a body relative to another's along an axis, in m, [T]."""
        return self.now(f"body_pos/{body}/{axis}") - self.now(f"body_pos/{origin}/{axis}")

    def offset_right(self, body: str, origin: str) -> Float64:
        """Position of a body relative to another's to the right of where the target velocity points, in m, [T]."""
        x, z = self.offset(body, origin, "x"), self.offset(body, origin, "z")
        yaw = self.target_yaw
        return turned(x[:, None], z[:, None], np.cos(yaw), np.sin(yaw))[1][:, 0]

    def knee(self, side: str) -> Float64:
        """Knee angle in rad, negative when flexed, [T]."""
        return self.now(f"joint_pos/knee_{side}/knee_angle_{side}")

    @property
    def target_yaw(self) -> Float64:
        """Yaw of the target velocity in rad, positive to the left, [T]."""
        return np.arctan2(-self.target_z, self.target_x)


def angle_between(a: Float64, b: Float64) -> Float64:
    """Smallest angle between two directions, in [0, pi] rad."""
    difference: Float64 = np.abs(np.mod(a - b + np.pi, 2 * np.pi) - np.pi)
    return difference


@dataclass(frozen=True, slots=True)
class Term:
    """A named term, before its weight.

    Parameters
    ----------
    name
        As in `task.reward.weights`.
    formula
        Per simulator step, in the letters of this module's docstring.
    unit
        Of its value.
    source
        Whose idea it is.
    function
        The term of T steps, [T].
    """

    name: str
    formula: str
    unit: str
    source: str
    function: Callable[[Steps], Float64]


def term(formula: str, *, unit: str, source: str) -> Callable[[Callable[[Steps], Float64]], Term]:
    """Make a term, named like the function, of a function."""

    def named(function: Callable[[Steps], Float64]) -> Term:
        return Term(function.__name__, formula, unit, source, function)

    return named
