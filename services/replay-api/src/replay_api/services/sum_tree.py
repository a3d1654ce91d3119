"""A sum-tree over row positions: proportional sampling in O(log n), every operation vectorised."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Positions = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

SHORTCUT_LEVEL = 12
"""Level of the tree, from the root, at which a descent begins: the running sums of its 2^12 nodes take as long as two
or three levels of a descent."""


class SumTree:
    """A complete binary tree in one array: node 1 is the root, node i has the children 2i and 2i+1, the leaves come
    last.

    Parameters
    ----------
    size
        Number of leaves.
    """

    def __init__(self, size: int) -> None:
        self._leaves = 1 << max(0, size - 1).bit_length()
        self._sums: Float64 = np.zeros(2 * self._leaves)
        self._shortcut = min(self._leaves, 1 << SHORTCUT_LEVEL)  # first node of that level, and its number of nodes

    @property
    def total(self) -> float:
        """Sum of all leaves."""
        return float(self._sums[1])

    @property
    def nbytes(self) -> int:
        """Memory held."""
        return self._sums.nbytes

    def get(self, positions: Positions) -> Float64:
        """Values of leaves, [n]."""
        values: Float64 = self._sums[positions + self._leaves]
        return values

    def set(self, positions: Positions, values: Float64 | float) -> None:
        """Set leaves [n]; of a position given twice, the last value holds."""
        if not len(positions):
            return
        nodes = positions + self._leaves
        self._sums[nodes] = values
        nodes = np.unique(nodes >> 1)
        while nodes[0] >= 1:
            # Sums are formed anew from both children, so that rounding errors cannot accumulate.
            self._sums[nodes] = self._sums[2 * nodes] + self._sums[2 * nodes + 1]
            if nodes[0] == 1:
                break
            nodes = nodes >> 1
            nodes = nodes[np.flatnonzero(np.diff(nodes, prepend=-1))]  # ascending, so equal ones are neighbours

    def find(self, prefix: Float64) -> Positions:
        """Leaves at which the running sum passes `prefix` [n], each in [0, total)."""
        running = np.cumsum(self._sums[self._shortcut : 2 * self._shortcut])
        # Rounding may put a prefix past the end: then it belongs to the last node that is not empty.
        last = np.searchsorted(running, running[-1])
        found = np.minimum(np.searchsorted(running, prefix, side="right"), last)
        rest = prefix - np.where(found > 0, running[found - 1], 0.0)
        nodes: Positions = found + self._shortcut
        while nodes[0] < self._leaves:
            left = 2 * nodes
            below = self._sums[left]
            # A right child that is empty is never entered, whatever the rounding says.
            right = (rest >= below) & (self._sums[left + 1] > 0)
            rest -= np.where(right, below, 0.0)
            nodes = left + right
        return nodes - self._leaves
