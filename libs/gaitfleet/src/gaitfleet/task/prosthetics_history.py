"""An observation and what it was earlier in the same episode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from gaitfleet.layout import StateLayout
from gaitfleet.trajectory import Float32

Rows = npt.NDArray[np.intp]


class Observation(Protocol):
    """What a policy sees of single state rows.

    Attributes
    ----------
    summary
        What it is, in a line.
    notes
        Formulas, and what differs from its source.
    names, units
        Of the values, in order.
    """

    summary: ClassVar[str]
    notes: ClassVar[tuple[str, ...]]
    names: tuple[str, ...]
    units: tuple[str, ...]

    def __init__(self, layout: StateLayout, prosthetic: bool) -> None: ...

    def __call__(self, state: Float32, target_velocity: Float32) -> Float32:
        """Observations [n, O] of rows [n, S] and target velocities [n, 3], each from its own row only."""


class History:
    """An observation, followed by earlier ones of the same episode, the latest first.

    An episode has nothing before its first row, so that row stands for whatever would lie before it.

    Parameters
    ----------
    observation
        Of single rows.
    length
        How many earlier rows are seen; 0 for none.
    every
        Simulator steps from one of them to the next.
    kept
        Positions of the values that are seen of the earlier rows; None: all of them.
    """

    def __init__(
        self, observation: Observation, length: int, *, every: int = 1, kept: Sequence[int] | None = None
    ) -> None:
        self._observation = observation
        self._ago = every * np.arange(length + 1)
        self._kept: Rows = np.array(range(len(observation.names)) if kept is None else kept, np.intp)
        earlier = [f"t-{ago}/{observation.names[i]}" for ago in self._ago[1:] for i in self._kept]
        self.names: tuple[str, ...] = (*observation.names, *earlier)
        self.units: tuple[str, ...] = (*observation.units, *[observation.units[i] for i in self._kept] * length)

    def __call__(self, state: Float32, target_velocity: Float32, at: Rows) -> Float32:
        """Observations float32 [n, O] of the rows `at` [n] of an episode.

        Parameters
        ----------
        state
            [m, S], the episode from its first row to the last of `at`, or further.
        target_velocity
            [m, 3] in m/s.
        """
        if len(self._ago) == 1:
            return self._observation(state[at], target_velocity[at])
        wanted = np.maximum(at[:, None] - self._ago, 0)  # [n, length + 1]
        rows, place = np.unique(wanted, return_inverse=True)
        observed = self._observation(state[rows], target_velocity[rows])
        now, *earlier = (observed[column] for column in place.reshape(wanted.shape).T)
        return np.concatenate([now, *(values[:, self._kept] for values in earlier)], axis=1)
