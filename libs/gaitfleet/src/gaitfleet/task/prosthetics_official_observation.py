"""osim-rl's own observation of the walker: `ProstheticsEnv.get_observation()` (osim-rl 2.1.5), slot by slot.

Positions in the sagittal plane relative to the pelvis, accelerations included, nothing lateral but the mass centre's
velocity and acceleration, and no target velocity: enough for round 1, not for round 2.

===========  ========  ==============================================================================================
values       number    what, in order
===========  ========  ==============================================================================================
pelvis       8         y; velocity x, y; acceleration x, y; rotation z, its velocity, its acceleration
6 bodies     6 x 9     head, torso, toes_l, toes_r, talus_l, talus_r: position x, y relative to the pelvis; velocity
                       x, y; acceleration x, y; rotation z relative to the pelvis', its velocity, its acceleration
7 joints     33        ankles, back, hips, knees, left before right: angles, their velocities, their accelerations
muscles      57 (66)   by name: activation, fibre length, fibre velocity
mass centre  8         position x, y relative to the pelvis; velocity x, y, z; acceleration x, y, z
===========  ========  ==============================================================================================

160 values with the prosthesis, whose missing toes_r and talus_r are zeros; 169 for the intact model.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from gaitfleet.layout import StateLayout
from gaitfleet.task.prosthetics_layout import JOINTS, action_names, body_names
from gaitfleet.trajectory import Float32

_BODIES = ("pelvis", "head", "torso", "toes_l", "toes_r", "talus_l", "talus_r")
_JOINTS = ("ankle_l", "ankle_r", "back", "hip_l", "hip_r", "knee_l", "knee_r")
_BODY_SLOTS = (
    *(f"{group}/{{}}/{axis}" for group in ("body_pos", "body_vel", "body_acc") for axis in "xy"),
    *(f"{group}/{{}}/z" for group in ("body_pos_rot", "body_vel_rot", "body_acc_rot")),
)
_RELATIVE_GROUPS = frozenset({"body_pos", "body_pos_rot"})


class OfficialObservation:
    """State rows to osim-rl's observation; `names` lists the values in order.

    Differences are taken in float64 between the float32 values of the row, so a value equals the float32 of what
    osim-rl makes of the same row.

    Parameters
    ----------
    layout
        Of the state rows.
    prosthetic
        Which skeleton they are of.
    """

    summary: ClassVar[str] = "osim-rl's own vector: sagittal, with accelerations, without the target velocity"
    notes: ClassVar[tuple[str, ...]] = (
        "/relative: minus the same quantity of the pelvis. absent: a limb that this model lacks, 0. Axes are the "
        "ground's.",
    )

    def __init__(self, layout: StateLayout, prosthetic: bool) -> None:
        slots = tuple(_slots(prosthetic))
        present = [i for i, (column, _) in enumerate(slots) if column is not None]
        relative = [i for i, (_, origin) in enumerate(slots) if origin is not None]
        self._present = np.array(present, np.intp)
        self._columns = layout.indices(column for column, _ in slots if column is not None)
        self._relative = np.array(relative, np.intp)
        self._origins = layout.indices(origin for _, origin in slots if origin is not None)
        self.names: tuple[str, ...] = tuple(
            f"absent/{i}" if column is None else column + ("" if origin is None else "/relative")
            for i, (column, origin) in enumerate(slots)
        )
        unit = {column.name: column.unit for column in layout.columns}
        self.units: tuple[str, ...] = tuple("1" if column is None else unit[column] for column, _ in slots)

    def __call__(self, state: Float32, target_velocity: Float32) -> Float32:
        """Observations float32 [n, O] of rows [n, S]; the target velocity is not part of them."""
        values = np.zeros((len(state), len(self.names)))
        values[:, self._present] = state[:, self._columns]
        values[:, self._relative] -= state[:, self._origins]
        return values.astype(np.float32)


def _slots(prosthetic: bool) -> Iterator[tuple[str | None, str | None]]:
    """Column of each value, None for a missing limb, and the column that is subtracted from it, if one is."""
    for body in _BODIES:
        for slot in _BODY_SLOTS:
            if body not in body_names(prosthetic):
                yield None, None
            elif body == "pelvis":
                if slot != _BODY_SLOTS[0]:  # osim-rl leaves out the pelvis' x and nothing else
                    yield slot.format(body), None
            else:
                relative = slot.split("/", maxsplit=1)[0] in _RELATIVE_GROUPS
                yield slot.format(body), slot.format("pelvis") if relative else None
    for joint in _JOINTS:
        for group in ("joint_pos", "joint_vel", "joint_acc"):
            yield from ((f"{group}/{joint}/{coordinate}", None) for coordinate, _, _ in JOINTS[joint])
    for muscle in sorted(action_names(prosthetic=prosthetic)):
        for quantity in ("activation", "fiber_length", "fiber_velocity"):
            yield f"muscles/{muscle}/{quantity}", None
    yield from ((f"misc/mass_center_pos/{axis}", f"body_pos/pelvis/{axis}") for axis in "xy")
    for group in ("mass_center_vel", "mass_center_acc"):
        yield from ((f"misc/{group}/{axis}", None) for axis in "xyz")
