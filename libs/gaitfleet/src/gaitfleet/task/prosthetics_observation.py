"""The compact observation: what the walker needs, in the frame of its own heading.

No absolute position (the ground is the same everywhere), no accelerations (noisy, and unbounded at contact).
After the observations of the 2018 winners (PARL: 185 values in the pelvis-yaw frame; see docs/task.md).
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

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
        self._copied = layout.indices(copied)
        self._position, self._velocity, self._pelvis, self._pelvis_velocity = (
            [layout.indices(f"{point.format(kind)}/{axis}" for point in group) for axis in "xyz"]
            for group, kind in (
                (points, "pos"),
                (points, "vel"),
                (("body_{}/pelvis",), "pos"),
                (("body_{}/pelvis",), "vel"),
            )
        )
        self._contact = [layout.indices(f"forces/{foot}/ground.force.{axis}" for foot in feet) for axis in "XYZ"]
        self._heading = Heading(layout)
        vectors = (
            ("m/s", ["pelvis/velocity"]),
            ("m", [f"{point.format('pos')}/relative" for point in points]),
            ("m/s", [f"{point.format('vel')}/relative" for point in points]),
            ("body weights", [f"contact/{foot}" for foot in feet]),
        )
        unit = {column.name: column.unit for column in layout.columns}
        values = (
            *((name, unit[name]) for name in copied),
            ("pelvis/yaw", "rad"),
            *((f"{name}/{axis}", u) for u, names in vectors for axis in ("ahead", "up", "right") for name in names),
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
        cosine, sine = self._heading(state)

        def vectors(indices: list[np.ndarray]) -> tuple[Float64, Float64, Float64]:
            x, y, z = (np.take(state, index, axis=1).astype(np.float64) for index in indices)
            return x, y, z

        def blocks(x: Float64, y: Float64, z: Float64) -> list[Float64]:
            ahead, right = turned(x, z, cosine, sine)
            return [ahead, y, right]

        pelvis, pelvis_velocity = vectors(self._pelvis), vectors(self._pelvis_velocity)
        position = [a - b for a, b in zip(vectors(self._position), pelvis, strict=True)]
        velocity = [a - b for a, b in zip(vectors(self._velocity), pelvis_velocity, strict=True)]
        load = [np.clip(-force / BODY_WEIGHT_N, -CONTACT_CLIP, CONTACT_CLIP) for force in vectors(self._contact)]
        own_velocity = blocks(*pelvis_velocity)
        target = turned(
            target_velocity[:, :1].astype(np.float64), target_velocity[:, 2:].astype(np.float64), cosine, sine
        )
        error = [own - wanted for own, wanted in zip((own_velocity[0], own_velocity[2]), target, strict=True)]
        parts = [
            np.take(state, self._copied, axis=1),
            np.arctan2(sine, cosine)[:, None],
            *own_velocity,
            *blocks(*position),
            *blocks(*velocity),
            *blocks(*load),
            *target,
            *error,
        ]
        return np.concatenate([part.astype(np.float32) for part in parts], axis=1)
