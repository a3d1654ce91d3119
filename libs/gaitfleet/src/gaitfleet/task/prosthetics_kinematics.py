"""Quantities that observation, reward and measures share, computed column by column from state rows.

Everything is element-wise in float64 on contiguous columns, and sums are taken column after column: so one row at a
time and a whole episode give the same bits.
"""

from __future__ import annotations

import numpy as np

from gaitfleet.layout import StateLayout
from gaitfleet.trajectory import Float32, Float64

BODY_WEIGHT_N = 72.17 * 9.80665
"""Weight of the prosthetic model (sum of its body masses in the model file), in newtons."""


def column(state: Float32, layout: StateLayout, name: str) -> Float64:
    """One column of state rows [n, S], contiguous float64 [n]."""
    return np.ascontiguousarray(state[:, layout.index(name)], dtype=np.float64)


class Heading:
    """Where the pelvis, or another body, faces, and vectors turned into that frame.

    The body's forward axis is projected on the ground; the yaw angle is positive to the left (right-handed about y).
    In the turned frame x is ahead, y up and z to the walker's right.

    Parameters
    ----------
    layout
        Of the state rows.
    body
        Whose heading it is.
    """

    def __init__(self, layout: StateLayout, body: str = "pelvis") -> None:
        self._rotation = layout.indices(f"body_pos_rot/{body}/{axis}" for axis in "xyz")

    def __call__(self, state: Float32) -> tuple[Float64, Float64]:
        """Cosine and sine of the yaw angle, each [n]."""
        angles = state[:, self._rotation].T.astype(np.float64, order="C")  # [3, n]
        (cos_a, cos_b, cos_c), (sin_a, sin_b, sin_c) = np.cos(angles), np.sin(angles)
        # first column of Rx(a) Ry(b) Rz(c): the body's forward axis in the ground frame
        forward_x = cos_b * cos_c
        forward_z = sin_a * sin_c - cos_a * sin_b * cos_c
        length = np.maximum(np.sqrt(forward_x * forward_x + forward_z * forward_z), 1e-9)  # 0 when it faces the sky
        return forward_x / length, -forward_z / length


def yaw(heading: Heading, state: Float32) -> Float64:
    """Yaw angle in rad of state rows, positive to the left, [n]."""
    cosine, sine = heading(state)
    return np.arctan2(sine, cosine)


def turned(x: Float64, z: Float64, cosine: Float64, sine: Float64) -> tuple[Float64, Float64]:
    """Components ahead and to the right of ground vectors (x, z) [n, k], for headings [n]."""
    cosine, sine = cosine[:, None], sine[:, None]
    return x * cosine - z * sine, x * sine + z * cosine


def foot_contacts(prosthetic: bool) -> tuple[str, str]:
    """Contact forces of the right and of the left foot."""
    return ("pros_foot_r" if prosthetic else "foot_r", "foot_l")
