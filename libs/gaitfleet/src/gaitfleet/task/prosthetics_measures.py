"""What a person wants to know of an episode: how far, how fast, how low, how many steps."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from gaitfleet.layout import StateLayout
from gaitfleet.task.prosthetics_kinematics import BODY_WEIGHT_N, column, foot_contacts
from gaitfleet.trajectory import Trajectory

STEP_SECONDS = 0.01
"""Simulated time of one step."""

LOADED_SHARE = 0.05
"""Share of the body weight from which a foot counts as loaded."""

SWING_STEPS = 5
"""Steps (50 ms) that a foot must have been unloaded for its next contact to count: a bouncing heel is not a new
step."""


class GaitMeasures:
    """Distance, drift, speed, lowest pelvis and alternating foot contacts of an episode."""

    def __init__(self, layout: StateLayout, prosthetic: bool) -> None:
        self._layout = layout
        self._forces = [f"forces/{force}/ground.force.Y" for force in foot_contacts(prosthetic)]

    def __call__(self, trajectory: Trajectory) -> dict[str, float | int | None]:
        """The measures by the name of their field in `gaitfleet.wire.EpisodeSummary`."""
        x = column(trajectory.state, self._layout, "body_pos/pelvis/x")
        z = column(trajectory.state, self._layout, "body_pos/pelvis/z")
        distance = float(x[-1] - x[0])
        return {
            "distance_m": distance,
            "drift_m": float(z[-1] - z[0]),
            "mean_speed_m_per_s": distance / (trajectory.steps * STEP_SECONDS),
            "lowest_pelvis_m": float(column(trajectory.state, self._layout, "body_pos/pelvis/y").min()),
            "foot_contacts": self._alternations(trajectory),
        }

    def _alternations(self, trajectory: Trajectory) -> int:
        """Contacts of one foot that follow a contact of the other."""
        contacts = []
        for foot, force in enumerate(self._forces):
            load = -column(trajectory.state, self._layout, force)  # the record holds the force on the ground
            contacts += [(step, foot) for step in touchdowns(load > LOADED_SHARE * BODY_WEIGHT_N)]
        order = [foot for _, foot in sorted(contacts)]
        return sum(a != b for a, b in pairwise(order))


def touchdowns(loaded: npt.NDArray[np.bool_]) -> list[int]:
    """Rows at which a foot touches down after at least `SWING_STEPS` rows in the air."""
    airborne = SWING_STEPS if not loaded[0] else 0
    steps = []
    for row, on_ground in enumerate(loaded.tolist()):
        if on_ground and airborne >= SWING_STEPS:
            steps.append(row)
        airborne = 0 if on_ground else airborne + 1
    return steps
