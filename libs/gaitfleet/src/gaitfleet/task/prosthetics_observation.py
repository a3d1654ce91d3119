"""The compact observation: what the walker needs, in the frame of its own heading.

No absolute position (the ground is the same everywhere), no accelerations (noisy, and unbounded at contact).
After the observations of the 2018 winners (PARL: 185 values in the pelvis-yaw frame; see docs/task.md).
"""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from gaitfleet.layout import StateLayout
from gaitfleet.task.prosthetics_kinematics import BODY_WEIGHT_N, Heading, foot_contacts, turned
from gaitfleet.task.prosthetics_layout import BODIES, INTACT_BODIES, INTACT_MUSCLES, MUSCLES
from gaitfleet.trajectory import Float32, Float64

CONTACT_CLIP = 3.0
"""Contact forces are clipped to this many body weights: impacts of OpenSim's spheres reach ten, and say no more than
three."""

_JOINT_COLUMNS = tuple(
    f"hip_{side}/hip_{motion}_{side}" for side in "rl" for motion in ("flexion", "adduction")
) + tuple(f"{joint}_{side}/{joint}_angle_{side}" for joint in ("knee", "ankle") for side in "rl")

_PELVIS_ANGLES = ("pelvis_tilt", "pelvis_list")
_MUSCLE_QUANTITIES = ("activation", "fiber_length", "fiber_velocity")


class CompactObservation:
    """State rows to observations; `names` lists the values in order.

    Parameters
    ----------
    layout
        Of the state rows.
    prosthetic
        Which skeleton they are of.
    """

    summary: ClassVar[str] = "pose, velocities, muscles, contacts and target in the frame of the pelvis' heading"
    notes: ClassVar[tuple[str, ...]] = (
        "yaw psi = atan2(-z, x) of the pelvis' forward axis. ahead = x cos psi - z sin psi, right = x sin psi + z cos "
        f"psi, up = y. /relative: minus the pelvis. contact: force of the ground on a foot, in body weights of "
        f"{BODY_WEIGHT_N:.0f} N, clipped to +-{CONTACT_CLIP:g}. velocity_error: velocity of the pelvis minus target.",
        "With task.observation.history t-k is what the whole observation was k simulator steps earlier; the first row "
        "stands for what would lie before it.",
    )

    def __init__(self, layout: StateLayout, prosthetic: bool) -> None:
        muscles = MUSCLES if prosthetic else INTACT_MUSCLES
        bodies = tuple(body for body in (BODIES if prosthetic else INTACT_BODIES) if body != "pelvis")
        feet = foot_contacts(prosthetic)
        copied = (
            "body_pos/pelvis/y",
            *(f"joint_pos/ground_pelvis/{angle}" for angle in _PELVIS_ANGLES),
            *(f"body_vel_rot/pelvis/{axis}" for axis in "xyz"),
            *(f"joint_{kind}/{name}" for kind in ("pos", "vel") for name in _JOINT_COLUMNS),
            *(f"muscles/{muscle}/{quantity}" for muscle in muscles for quantity in _MUSCLE_QUANTITIES),
        )
        points = (*(f"body_{{}}/{body}" for body in bodies), "misc/mass_center_{}")

        def vectors(columns: list[str], axes: str = "xyz") -> npt.NDArray[np.intp]:
            return np.array([layout.indices(f"{name}{axis}" for name in columns) for axis in axes])

        # [3, k] each; the target's own place is filled later
        pelvis_velocity = target_velocity = vectors(["body_vel/pelvis/"])
        relative = vectors([f"{point.format(kind)}/" for kind in ("pos", "vel") for point in points])
        origins = np.repeat(vectors(["body_pos/pelvis/", "body_vel/pelvis/"]), len(points), axis=1)
        load = vectors([f"forces/{foot}/ground.force." for foot in feet], "XYZ")
        every = np.concatenate([pelvis_velocity, relative, load, target_velocity], axis=1)
        self._taken = np.concatenate([every.ravel(), origins.ravel(), layout.indices(copied)])
        self._vectors, self._origins = every.size, slice(every.size, every.size + origins.size)
        self._copied = slice(self._origins.stop, None)
        ends = 1 + np.cumsum([0, len(points), len(points), len(feet)])
        self._relative, self._load = slice(ends[0], ends[2]), slice(ends[2], ends[3])
        self._order = _order(every.shape[1], [0, *ends], len(copied))
        self._heading = Heading(layout)
        blocks = (
            ("m/s", ["pelvis/velocity"]),
            ("m", [f"{point.format('pos')}/relative" for point in points]),
            ("m/s", [f"{point.format('vel')}/relative" for point in points]),
            ("body weights", [f"contact/{foot}" for foot in feet]),
        )
        unit = {column.name: column.unit for column in layout.columns}
        values = (
            *((name, unit[name]) for name in copied),
            ("pelvis/yaw", "rad"),
            *((f"{name}/{axis}", u) for u, names in blocks for axis in ("ahead", "up", "right") for name in names),
            *(
                (f"{name}/{axis}", "m/s")
                for name in ("target_velocity", "velocity_error")
                for axis in ("ahead", "right")
            ),
        )
        self.names: tuple[str, ...] = tuple(name for name, _ in values)
        self.units: tuple[str, ...] = tuple(unit for _, unit in values)

    def __call__(self, state: Float32, target_velocity: Float32) -> Float32:
        """Observations float32 [n, O] of rows [n, S] and target velocities [n, 3]."""
        # few and large operations: a worker has one row, and pays by the call
        n = len(state)
        cosine, sine = self._heading(state)
        taken: Float64 = state.take(self._taken, axis=1).astype(np.float64)
        every = taken[:, : self._vectors].reshape(n, 3, -1)  # [n, 3, k]
        every[:, :, self._relative] -= taken[:, self._origins].reshape(n, 3, -1)
        load = every[:, :, self._load]
        load /= -BODY_WEIGHT_N
        np.minimum(np.maximum(load, -CONTACT_CLIP, out=load), CONTACT_CLIP, out=load)
        every[:, :, -1] = target_velocity
        every[:, 0], every[:, 2] = turned(every[:, 0], every[:, 2], cosine, sine)
        error = every[:, ::2, 0] - every[:, ::2, -1]  # ahead and right
        parts = [taken[:, self._copied], np.arctan2(sine, cosine)[:, None], every.reshape(n, -1), error]
        return np.concatenate(parts, axis=1, dtype=np.float32, casting="same_kind").take(self._order, axis=1)


def _order(vectors: int, ends: list[int], copied: int) -> npt.NDArray[np.intp]:
    """From the parts as they are computed to the order of the names.

    Parameters
    ----------
    vectors
        How many there are, k.
    ends
        Of the blocks of vectors that are listed component by component; the last vector is the target's.
    copied
        How many values stand before the yaw angle.
    """
    place = np.arange(3 * vectors).reshape(3, vectors) + copied + 1
    blocks = [place[:, slice(*block)].ravel() for block in pairwise(ends)]
    error = copied + 1 + place.size
    return np.concatenate([np.arange(copied + 1), *blocks, place[::2, -1], [error, error + 1]])
