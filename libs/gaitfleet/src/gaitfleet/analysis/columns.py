"""Ranges of columns over many episodes, in bounded memory."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gaitfleet.trajectory import Float32, Float64

SAMPLED_ROWS = 20_000
"""Rows behind the quantiles; of 412 columns they take 33 MB."""

QUANTILES = (0.01, 0.5, 0.99)


@dataclass(frozen=True, slots=True)
class ColumnRange:
    """What one column was.

    Parameters
    ----------
    name, unit
        As the layout names it.
    minimum, maximum
        Over every row.
    quantiles
        At `QUANTILES`, over a uniform sample of the rows.
    low, high
        Physical limits; infinite where none is known.
    beyond
        Values outside them.
    """

    name: str
    unit: str
    minimum: float
    maximum: float
    quantiles: tuple[float, ...]
    low: float
    high: float
    beyond: int

    @property
    def limited(self) -> bool:
        """Whether anything is known of what it can be."""
        return math.isfinite(self.low) or math.isfinite(self.high)

    @property
    def used(self) -> float | None:
        """How much of the way to a limit the column went, from zero where zero is allowed, else from the middle.

        Above 1 is beyond. None without limits, and for activations, which reach both ends.
        """
        if self.unit == "1" or not (np.isfinite(self.low) and np.isfinite(self.high)):
            return None
        rest = 0.0 if self.low <= 0 <= self.high else (self.low + self.high) / 2
        if self.minimum < self.low == rest:
            return math.inf
        down = 0.0 if self.low == rest else (self.minimum - rest) / (self.low - rest)
        return max((self.maximum - rest) / (self.high - rest), down)


class ColumnRanges:
    """Takes rows and remembers extremes, a uniform sample (Vitter's reservoir), and how many were beyond limits.

    Parameters
    ----------
    names, units
        Of the columns.
    low, high
        Limits, each [S].
    capacity
        Rows in the sample.
    """

    def __init__(
        self, names: list[str], units: list[str], low: Float64, high: Float64, capacity: int = SAMPLED_ROWS
    ) -> None:
        self._names, self._units = names, units
        self._low, self._high = low, high
        self._minimum = np.full(len(names), np.inf)
        self._maximum = np.full(len(names), -np.inf)
        self._beyond = np.zeros(len(names), np.int64)
        self._sample = np.empty((capacity, len(names)), np.float32)
        self._random = np.random.default_rng(0)
        self.rows = 0

    def add(self, rows: Float32) -> None:
        """Take rows [n, S]."""
        self._minimum = np.minimum(self._minimum, rows.min(axis=0))
        self._maximum = np.maximum(self._maximum, rows.max(axis=0))
        self._beyond += ((rows < self._low) | (rows > self._high)).sum(axis=0)
        number = self.rows + np.arange(len(rows))
        capacity = len(self._sample)
        # row number i stays with probability capacity / (i + 1), in the place of a random one
        place = np.where(number < capacity, number, self._random.integers(0, number + 1))
        stays = place < capacity
        self._sample[place[stays]] = rows[stays]
        self.rows += len(rows)

    def ranges(self) -> list[ColumnRange]:
        """All columns, in order; nothing before the first row."""
        if not self.rows:
            return []
        quantiles = np.quantile(self._sample[: self.rows], QUANTILES, axis=0).T
        numbers = zip(self._minimum, self._maximum, self._low, self._high, self._beyond, strict=True)
        return [
            ColumnRange(
                name, unit, float(least), float(most), tuple(map(float, at)), float(low), float(high), int(beyond)
            )
            for name, unit, at, (least, most, low, high, beyond) in zip(
                self._names, self._units, quantiles, numbers, strict=True
            )
        ]
