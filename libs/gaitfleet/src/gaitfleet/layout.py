"""The state layout: which number of a recorded state row means what.

A state row is one float32 vector. The layout names each of its columns, gives the unit and the positive direction,
and is hashed, so that a worker, the replay API and an analyst can tell at once whether they speak of the same row.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from gaitfleet.errors import LayoutError


@dataclass(frozen=True, slots=True)
class Column:
    """One number of a state row.

    Parameters
    ----------
    name
        Path-like and unique within the layout, for example ``body_pos/pelvis/y``.
    unit
        SI unit, for example ``m``, ``rad/s``; ``1`` for a pure number.
    positive
        What a positive value means, for example ``forward``; empty where the sign carries no meaning.
    group
        The block the column belongs to, for example ``body_pos``.
    """

    name: str
    unit: str
    positive: str
    group: str


@dataclass(frozen=True)
class StateLayout:
    """An ordered list of columns and its hash."""

    columns: tuple[Column, ...]

    def __post_init__(self) -> None:
        if len(self._positions) != len(self.columns):
            names = sorted(column.name for column in self.columns)
            twice = next(a for a, b in pairwise(names) if a == b)
            raise LayoutError(f"column {twice!r} stands twice in the layout")

    def __len__(self) -> int:
        return len(self.columns)

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {column.name: i for i, column in enumerate(self.columns)}

    @cached_property
    def hash(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 over names and units, in order."""
        text = json.dumps([[c.name, c.unit] for c in self.columns], separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def index(self, name: str) -> int:
        """Position of a column.

        Raises
        ------
        LayoutError
            When the layout has no such column; the message names the nearest ones.
        """
        try:
            return self._positions[name]
        except KeyError:
            near = get_close_matches(name, self._positions, n=3)
            hint = f"; did you mean {', '.join(near)}?" if near else ""
            raise LayoutError(f"no column {name!r} in a layout of {len(self)} columns{hint}") from None

    def indices(self, names: Iterable[str]) -> npt.NDArray[np.intp]:
        """Positions of several columns, in the order asked for."""
        return np.array([self.index(name) for name in names], dtype=np.intp)
