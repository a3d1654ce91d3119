"""What a rollout worker asks of a simulator."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import numpy.typing as npt

from gaitfleet.layout import StateLayout
from gaitfleet.pose import Pose

Float32 = npt.NDArray[np.float32]


class SimulatorFailure(Exception):  # noqa: N818  (a failure of the simulation, not of the program)
    """The simulator could not go on; the environment must be reset, or better its process replaced.

    Parameters
    ----------
    message
        For people.
    kind
        A short word for counting: ``integrator`` (it gave up), ``non_finite`` (it went on to NaN or infinity) or
        ``reset`` (it could not find the first pose).
    """

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message, kind)
        self.message = message
        self.kind = kind

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"


class Environment(Protocol):
    """A simulator that writes its state rows into the caller's buffers and never touches them again."""

    state_size: int
    action_size: int

    def reset(
        self,
        seed: int,
        state: Float32,
        target_velocity: npt.NDArray[np.floating] | None = None,
        pose: Pose | None = None,
    ) -> None:
        """Begin an episode and write its first row into `state`, [S].

        Parameters
        ----------
        seed
            Of whatever is random in the simulator itself. The same seed and actions give the same rows, whatever was
            played before.
        target_velocity
            [T+1, 3] in m/s, one per state row, for tasks that have one.
        pose
            Where to begin, for tasks that can; None for the simulator's own pose.

        Raises
        ------
        ValueError
            When `target_velocity` or `pose` is not what this simulator takes.
        SimulatorFailure
            When the simulator cannot take up its first pose.
        """

    def step(self, action: Float32, state: Float32) -> tuple[float, bool, bool]:
        """Advance by one simulator step under `action`, [A], and write the next row into `state`, [S].

        Returns
        -------
        reward
            The simulator's own.
        terminated, truncated
            As the simulator itself says. Ending rules and the time limit of the task are the caller's.

        Raises
        ------
        ValueError
            When a value of `action` is outside the simulator's bounds or not a number. Nothing was simulated.
        SimulatorFailure
            When the simulator fails during the step. `state` was not written.

        Whether row and reward are finite is the caller's to check, with `check_finite`.
        """

    def close(self) -> None:
        """Free what the simulator holds."""


def check_finite(row: Float32, reward: float, layout: StateLayout) -> None:
    """Refuse a step that led to NaN or infinity.

    Parameters
    ----------
    row
        [S], the state after the step.
    reward
        Of the step.

    Raises
    ------
    SimulatorFailure
        Of kind ``non_finite``; the message names column and value.
    """
    # A sum is finite only if all its parts are, and takes one call; a sum that overflows proves nothing.
    if math.isfinite(np.add.reduce(row) + reward):
        return
    for name, value in (*zip((column.name for column in layout.columns), row, strict=True), ("the reward", reward)):
        if not math.isfinite(value):
            raise SimulatorFailure(f"{name} is {value}", "non_finite")
