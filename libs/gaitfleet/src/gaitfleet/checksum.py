"""A checksum of recorded rows, taken where they are recorded and again where they are stored.

The 2018 system changed rows after they had been recorded, and nobody could see it. So a simulator process folds every
row into a CRC-32 the moment it is written, before anything else can touch it; the episode carries the result, and the
store computes it again from the arrays it received. A digest of the body cannot do this: it is taken last, over
whatever the rows have become. Only what was recorded goes in, nothing computed from it: cosines differ in the last bit
between processors.
"""

from __future__ import annotations

import zlib

import numpy as np
import numpy.typing as npt

from gaitfleet.trajectory import Float32, Trajectory


def first_checksum(row: Float32) -> int:
    """Of the row after reset, [S]."""
    return zlib.crc32(row.data)


def next_checksum(checksum: int, action: Float32, reward: np.float32, decision: np.uint8, row: Float32) -> int:
    """Of everything so far and one step more: action [A], reward, decision, and the row after it, [S]."""
    for part in (action.data, reward.data, decision.data, row.data):
        checksum = zlib.crc32(part, checksum)
    return checksum


def trajectory_checksum(trajectory: Trajectory) -> int:
    """The same over a whole episode."""

    def octets(array: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
        return np.ascontiguousarray(array).reshape(trajectory.steps, -1).view(np.uint8)

    parts = (trajectory.action, trajectory.reward, trajectory.decision, trajectory.state[1:])
    steps = np.concatenate([octets(part) for part in parts], axis=1)
    return zlib.crc32(steps.data, first_checksum(trajectory.state[0]))
