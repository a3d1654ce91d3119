"""The columns of a prosthetics state row: osim-rl's state dictionary, flattened, with every number named.

The four models ("2D" or "3D", with a prosthesis on the right or intact) share one skeleton, described here by tables in
the model files' own order. The axes are OpenSim's: x forward, y up, z to the walker's right. The planar models have
*exactly* the columns and the muscles of the spatial ones (abductors and adductors included); they only lock five more
coordinates, see `LOCKED_COORDINATES`. So a policy or an episode of the one fits the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from types import MappingProxyType
from typing import Literal

from gaitfleet.layout import Column, StateLayout

Model = Literal["2D", "3D"]

_THIGH_MUSCLES = ("abd", "add", "hamstrings", "bifemsh", "glut_max", "iliopsoas", "rect_fem", "vasti")
_SHANK_MUSCLES = ("gastroc", "soleus", "tib_ant")

MUSCLES = tuple(
    f"{name}_{side}"
    for side, names in (("r", _THIGH_MUSCLES), ("l", _THIGH_MUSCLES + _SHANK_MUSCLES))
    for name in names
)
"""The 19 muscles of the prosthetic models, in the order of the action: the prosthesis has no muscle below the knee."""

INTACT_MUSCLES = tuple(f"{name}_{side}" for side in "rl" for name in _THIGH_MUSCLES + _SHANK_MUSCLES)
"""The 22 muscles of the intact models, in the order of the action."""

_RIGHT_LEG_BODIES = ("femur_r", "tibia_r", "talus_r", "calcn_r", "toes_r")
_LEFT_LEG_BODIES = tuple(f"{body[:-2]}_l" for body in _RIGHT_LEG_BODIES)

BODIES = ("pelvis", "femur_r", "pros_tibia_r", "pros_foot_r", *_LEFT_LEG_BODIES, "torso", "head")
"""The 11 bodies of the prosthetic models."""

INTACT_BODIES = ("pelvis", *_RIGHT_LEG_BODIES, *_LEFT_LEG_BODIES, "torso", "head")
"""The 13 bodies of the intact models."""


def _leg(side: str) -> dict[str, tuple[tuple[str, str, str], ...]]:
    return {
        f"hip_{side}": (
            (f"hip_flexion_{side}", "rad", "thigh forward (flexion)"),
            (f"hip_adduction_{side}", "rad", "thigh towards the other leg (adduction)"),
            (f"hip_rotation_{side}", "rad", "toes inward"),
        ),
        f"knee_{side}": ((f"knee_angle_{side}", "rad", "extension; flexion is negative"),),
        f"ankle_{side}": ((f"ankle_angle_{side}", "rad", "toes up (dorsiflexion)"),),
    }


JOINTS = MappingProxyType(
    {
        "ground_pelvis": (
            ("pelvis_tilt", "rad", "leaning back"),
            ("pelvis_list", "rad", "leaning to the right"),
            ("pelvis_rotation", "rad", "turning to the left"),
            ("pelvis_tx", "m", "forward"),
            ("pelvis_ty", "m", "up"),
            ("pelvis_tz", "m", "right"),
        ),
        **_leg("r"),
        **_leg("l"),
        "back": (("lumbar_extension", "rad", "leaning back"),),
    }
)
"""Joint -> its coordinates (name, unit, positive direction). Welded joints have none and are left out."""

LOCKED_COORDINATES = MappingProxyType(
    {
        "3D": ("hip_rotation_r", "hip_rotation_l", "lumbar_extension"),
        "2D": (
            *("pelvis_list", "pelvis_rotation", "pelvis_tz"),
            *("hip_adduction_r", "hip_rotation_r", "hip_adduction_l", "hip_rotation_l", "lumbar_extension"),
        ),
    }
)
"""Model -> the coordinates that never move in it; their columns are constant."""

_AXES = (("x", "forward"), ("y", "up"), ("z", "right"))

_CONTACT_BODIES = MappingProxyType(
    {
        "pros_foot_r": ("ground", "pros_foot_r", "pros_foot_r"),
        "foot_r": ("ground", "calcn_r", "toes_r", "toes_r"),
        "foot_l": ("ground", "calcn_l", "toes_l", "toes_l"),
    }
)
"""Contact force -> the body of each of its contact shapes, in the order of the force's record.

A body with two spheres stands twice. Each time the record gives the total over the body, so the columns ending in
``.2`` repeat the ones without: a foot's load is the sum over its different bodies, or minus the force on the ground.
"""

_LIMITS = tuple(f"{joint}Limit_{side}" for joint in ("Hip", "Knee", "Ankle", "HipAdd") for side in "rl")

_MUSCLE_COLUMNS = (
    ("activation", "1", "active, 0.01 to 1"),
    ("fiber_length", "m", ""),
    ("fiber_velocity", "m/s", "lengthening"),
    ("fiber_force", "N", "tension"),
)

_BODY_GROUPS = (
    ("body_pos", "m", "{direction} of the ground's origin"),
    ("body_vel", "m/s", "{direction}"),
    ("body_acc", "m/s^2", "{direction}"),
    ("body_pos_rot", "rad", "right-handed about {axis}, body-fixed x-y-z sequence"),
    ("body_vel_rot", "rad/s", "right-handed about the ground's {axis}"),
    ("body_acc_rot", "rad/s^2", "right-handed about the ground's {axis}"),
)


def action_names(model: Model = "3D", prosthetic: bool = True) -> tuple[str, ...]:
    """Muscles in the order in which the simulator takes their excitations; the same for both models."""
    return MUSCLES if prosthetic else INTACT_MUSCLES


def body_names(prosthetic: bool = True) -> tuple[str, ...]:
    """Bodies in the order of the state row."""
    return BODIES if prosthetic else INTACT_BODIES


@cache
def prosthetics_layout(model: Model, prosthetic: bool = True) -> StateLayout:
    """The columns of a state row: 412 with the prosthesis, 468 without.

    Parameters
    ----------
    model
        "2D" or "3D". Their columns are the same.
    prosthetic
        Whether the right leg ends in a prosthesis.
    """
    columns = (*_joint_columns(), *_body_columns(prosthetic), *_force_columns(prosthetic))
    return StateLayout((*columns, *_muscle_columns(prosthetic), *_misc_columns()))


def _joint_columns() -> Iterator[Column]:
    for group, per_second in (("joint_pos", ""), ("joint_vel", "/s"), ("joint_acc", "/s^2")):
        for joint, coordinates in JOINTS.items():
            for coordinate, unit, positive in coordinates:
                yield Column(f"{group}/{joint}/{coordinate}", unit + per_second, positive, group)


def _body_columns(prosthetic: bool) -> Iterator[Column]:
    for group, unit, positive in _BODY_GROUPS:
        for body in body_names(prosthetic):
            for axis, direction in _AXES:
                text = positive.format(axis=axis, direction=direction)
                yield Column(f"{group}/{body}/{axis}", unit, text, group)


def _force_columns(prosthetic: bool) -> Iterator[Column]:
    for muscle in action_names(prosthetic=prosthetic):
        yield Column(f"forces/{muscle}/force", "N", "tension of the tendon", "forces")
    if prosthetic:
        yield Column("forces/ankleSpring/force", "N*m", "toes up (dorsiflexion)", "forces")
    for force in ("pros_foot_r" if prosthetic else "foot_r", "foot_l"):
        yield from _contact_columns(force)
    for limit in _LIMITS:
        yield Column(f"forces/{limit}/force", "N*m", "along the coordinate's positive direction", "forces")
        yield Column(f"forces/{limit}/PotentialEnergy", "J", "stored", "forces")


def _contact_columns(force: str) -> Iterator[Column]:
    bodies = _CONTACT_BODIES[force]
    for i, body in enumerate(bodies):
        occurrence = bodies[: i + 1].count(body)
        suffix = f".{occurrence}" if occurrence > 1 else ""
        for axis, direction in _AXES:
            name = f"forces/{force}/{body}.force.{axis.upper()}{suffix}"
            yield Column(name, "N", f"{direction}, on {body}", "forces")
        for axis, _ in _AXES:
            name = f"forces/{force}/{body}.torque.{axis.upper()}{suffix}"
            yield Column(name, "N*m", f"right-handed about the ground's {axis}, on {body}", "forces")


def _muscle_columns(prosthetic: bool) -> Iterator[Column]:
    for muscle in action_names(prosthetic=prosthetic):
        for quantity, unit, positive in _MUSCLE_COLUMNS:
            yield Column(f"muscles/{muscle}/{quantity}", unit, positive, "muscles")


def _misc_columns() -> Iterator[Column]:
    for quantity, unit in (("mass_center_pos", "m"), ("mass_center_vel", "m/s"), ("mass_center_acc", "m/s^2")):
        for axis, direction in _AXES:
            yield Column(f"misc/{quantity}/{axis}", unit, direction, "misc")
