"""The observation of the 2018 system: nearly all of the state, and what it said of the three steps before.

447 values of a row, of which the 271 of the highest order (accelerations, muscles, forces) are seen of the three
simulator steps before it too: 447 + 3 x 271 = 1260.

===================  =======  =======  =======================================================================
values               now      earlier  what, in order
===================  =======  =======  =======================================================================
11 bodies            11 x 12  11 x 4   position x, y, z; velocity x, y, z; rotation about z, its velocity;
                                       acceleration x, y, z; angular acceleration about z
4 missing bodies     4 x 18   4 x 6    zeros for the right foot and shin of the intact model
8 joints             3 x 17   17       coordinates, their velocities, their accelerations
19 muscles           4 x 19   4 x 19   activation, fibre length, fibre velocity, fibre force
forces               105      105      of muscles, ankle spring, contacts and limits, left before right; zeros
                                       for the 3 muscles and the foot that the prosthesis does not have
mass centre          9        3        position, velocity, acceleration
target velocity      2        2        velocity of the mass centre minus target, x and z
===================  =======  =======  =======================================================================

Positions, velocities and accelerations of the bodies are relative to the mass centre's. In a row the values of lower
order stand first, those of the highest order after them.

By the same rule the intact model has 447 + 3 x 279 = 1284 values; the 2018 system stopped with an error there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from gaitfleet.layout import StateLayout
from gaitfleet.task.prosthetics_layout import JOINTS, action_names, body_names
from gaitfleet.trajectory import Float32

EARLIER_STEPS = 3
"""Simulator steps before the present one of which the values of the highest order are seen."""

_BODIES = (
    *("head", "torso", "pelvis", "femur_l", "femur_r", "tibia_l", "tibia_r", "pros_tibia_r", "talus_l", "talus_r"),
    *("toes_l", "toes_r", "pros_foot_r", "calcn_l", "calcn_r"),
)
_JOINTS = ("ground_pelvis", "ankle_l", "ankle_r", "back", "hip_l", "hip_r", "knee_l", "knee_r")
_LEFT_MUSCLES = tuple(muscle for muscle in action_names(prosthetic=True) if muscle.endswith("_l"))
_LIMITS = ("HipLimit_l", "KneeLimit_l", "AnkleLimit_l", "HipAddLimit_l")
_FORCE_SIZES = {"pros_foot_r": 18, "foot_r": 24, "foot_l": 24}
"""Numbers in the record of a contact force, also where the model has no such foot."""

_ERROR_AXES = (0, 2)
"""Forward and right in a target velocity."""

_Slot = tuple[str | None, str | None]
"""The column of a value, None for a missing limb, and the column that is subtracted from it, if one is."""

_MISSING: _Slot = (None, None)

_MISSING_BODY = [_MISSING] * 12, [_MISSING] * 6
"""The 2018 system padded a missing body as if it kept three components of everything, but of a present one it kept two:
8 and 4 values. Both are in its 1260, so they stay."""


class SeedObservation:
    """State rows to the 447 present values; `names` lists them in order.

    Parameters
    ----------
    layout
        Of the state rows.
    prosthetic
        Which skeleton they are of.

    Attributes
    ----------
    highest_order
        Positions of the values that are seen of earlier steps too.
    """

    summary: ClassVar[str] = "the 2018 system's, mended: nearly all of the state, and the three steps before"
    notes: ClassVar[tuple[str, ...]] = (
        "/relative: minus the same quantity of the mass centre. t-k: k simulator steps earlier, whatever "
        "action.repeat; the first row stands for what would lie before it. absent: a limb that this model lacks, 0.",
        "Mended: rows are copied, never written to. In 2018 the mass centre was subtracted anew, from the stored row "
        "itself, each time a row was looked at: up to ten times.",
        "Mended: bodies have all of x, y, z and the rotation about z, the pitch. In 2018 x and y of everything: "
        "neither the lateral position nor the pitch of any body was seen. Rotations about x and y are left out "
        "instead; the joints have them.",
        "Mended: the velocity error is to the episode's target. In 2018 to round 1's 3 m/s, always.",
        "Mended: a zero is a value. In 2018 muscle values of 0 were lost on the way through the database.",
        "Mended: earlier steps are always the episode's own, one step apart. In 2018 a step that was not yet stored "
        "shifted the history without a word.",
        "Mended: what is learned from is normalised, and the policy carries the normaliser (algorithm."
        "observation_clip). In 2018 the raw values, -504 to 9636 at the first pose, saturated every action.",
    )

    def __init__(self, layout: StateLayout, prosthetic: bool) -> None:
        parts = list(_parts(layout, prosthetic))
        lower, highest = ([slot for part in parts for slot in part[order]] for order in (0, 1))
        slots = lower + highest
        self._size = len(slots) + len(_ERROR_AXES)
        self.highest_order = range(len(lower), self._size)
        self._present = np.array([i for i, (column, _) in enumerate(slots) if column is not None], np.intp)
        self._columns = layout.indices(column for column, _ in slots if column is not None)
        self._relative = np.array([i for i, (_, origin) in enumerate(slots) if origin is not None], np.intp)
        self._origins = layout.indices(origin for _, origin in slots if origin is not None)
        self._velocity = layout.indices(f"misc/mass_center_vel/{axis}" for axis in "xz")
        unit = {column.name: column.unit for column in layout.columns}
        self.names: tuple[str, ...] = (
            *(
                f"absent/{i}" if column is None else column + ("" if origin is None else "/relative")
                for i, (column, origin) in enumerate(slots)
            ),
            *("velocity_error/x", "velocity_error/z"),
        )
        self.units: tuple[str, ...] = (*("1" if column is None else unit[column] for column, _ in slots), "m/s", "m/s")

    def __call__(self, state: Float32, target_velocity: Float32) -> Float32:
        """Present values float32 [n, 447] of rows [n, S] and target velocities [n, 3]."""
        values = np.zeros((len(state), self._size))
        values[:, self._present] = state[:, self._columns]
        values[:, self._relative] -= state[:, self._origins]
        values[:, -len(_ERROR_AXES) :] = state[:, self._velocity].astype(np.float64) - target_velocity[:, _ERROR_AXES]
        return values.astype(np.float32)


def _parts(layout: StateLayout, prosthetic: bool) -> Iterator[tuple[list[_Slot], list[_Slot]]]:
    """The values of lower and of the highest order of each part of the walker, in order."""
    for body in _BODIES:
        yield _body(body) if body in body_names(prosthetic) else _MISSING_BODY
    for joint in _JOINTS:
        pos, vel, acc = (
            [(f"joint_{kind}/{joint}/{coordinate}", None) for coordinate, _, _ in JOINTS[joint]]
            for kind in ("pos", "vel", "acc")
        )
        yield [*pos, *vel], [*acc]
    for muscle in sorted(action_names(prosthetic=prosthetic)):
        quantities = ("activation", "fiber_length", "fiber_velocity", "fiber_force")
        yield [], [(f"muscles/{muscle}/{quantity}", None) for quantity in quantities]
    for force in _forces():
        columns = [column.name for column in layout.columns if column.name.startswith(f"forces/{force}/")]
        yield [], [(name, None) for name in columns] or [_MISSING] * _FORCE_SIZES.get(force, 1)
    pos, vel, acc = ([(f"misc/mass_center_{kind}/{axis}", None) for axis in "xyz"] for kind in ("pos", "vel", "acc"))
    yield [*pos, *vel], [*acc]


def _body(body: str) -> tuple[list[_Slot], list[_Slot]]:
    pos, vel, acc = (
        [(f"body_{kind}/{body}/{axis}", f"misc/mass_center_{kind}/{axis}") for axis in "xyz"]
        for kind in ("pos", "vel", "acc")
    )
    pitch, rate, acceleration = ((f"body_{kind}_rot/{body}/z", None) for kind in ("pos", "vel", "acc"))
    return [*pos, *vel, pitch, rate], [*acc, acceleration]


def _forces() -> Iterator[str]:
    """Names of the forces: each of the left side is followed by its like on the right."""
    for left in (*_LEFT_MUSCLES, "foot_l", *_LIMITS):
        if left == "foot_l":
            yield from ("ankleSpring", "pros_foot_r")
        yield left
        yield f"{left[:-2]}_r"
