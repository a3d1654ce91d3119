"""Checks of the walker's rows: what a skeleton, its muscles and time cannot do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from gaitfleet.layout import Column, StateLayout
from gaitfleet.quality.any_task import MIN_STEPS
from gaitfleet.quality.finding import Finding, Rule
from gaitfleet.quality.limits import column_limits, is_height
from gaitfleet.quality.repeats import row_sums
from gaitfleet.quality.rules import (
    ANGLE_JUMP,
    BEYOND_LIMITS,
    CONSTANT_COLUMNS,
    DUPLICATED_ROWS,
    IMPOSSIBLE_HEIGHT,
    PELVIS_DISAGREES,
    POSITION_JUMP,
    TIME_STANDS_STILL,
)
from gaitfleet.task.prosthetics_layout import LOCKED_COORDINATES, Model
from gaitfleet.task.prosthetics_measures import STEP_SECONDS
from gaitfleet.trajectory import Float32, Float64

Mask = npt.NDArray[np.bool_]
Rows = TypeVar("Rows", Float32, Float64)

_DERIVATIVES = {"body_pos": "body_vel", "joint_pos": "joint_vel"}


class WalkerChecks:
    """Everything that is checked of a walker's rows.

    Parameters
    ----------
    layout
        Of the state rows.
    model
        Which of its columns never move.
    fall_height
        Lowest height of the pelvis in m at which any episode of the run goes on.

    Attributes
    ----------
    limits
        Lowest and highest value of every column, each [S].
    """

    def __init__(self, layout: StateLayout, model: Model, fall_height: float) -> None:
        self._layout = layout
        self.limits = column_limits(layout, fall_height)
        self._is_height = np.array([is_height(column) for column in layout.columns])
        self._moving = np.array([_moves(column, model) for column in layout.columns])
        pairs = [
            (i, layout.index(column.name.replace(column.group, _DERIVATIVES[column.group], 1)), column.unit)
            for i, column in enumerate(layout.columns)
            if column.group in _DERIVATIVES
        ]
        self._pairs = {
            rule: np.array([(position, velocity) for position, velocity, of in pairs if of == unit]).T
            for rule, unit in ((POSITION_JUMP, "m"), (ANGLE_JUMP, "rad"))
        }
        self._pelvis = [
            layout.indices(names.format(axis) for axis in "xyz")
            for names in ("body_pos/pelvis/{}", "joint_pos/ground_pelvis/pelvis_t{}")
        ]

    def __call__(self, state: Float32) -> Iterator[Finding]:
        """Findings in rows [T+1, S]."""
        lowest, highest = state.min(axis=0), state.max(axis=0)
        if (lowest < self.limits[0]).any() or (highest > self.limits[1]).any():
            yield from self._limits(state)
        yield from self._pelvis_disagrees(state)
        still, duplicated = repeated_rows(state)
        if still.any():
            detail = f"row {int(still.argmax())} is the same as row {int(still.argmax()) - 1}"
            yield TIME_STANDS_STILL.broken(detail, still.sum(), still.sum())
        if duplicated.any():
            detail = f"row {int(duplicated.argmax())} is the same as an earlier row"
            yield DUPLICATED_ROWS.broken(detail, duplicated.sum(), duplicated.sum())
        resting = lowest == highest
        yield from self._jumps(state, still | duplicated, resting)
        constant = np.flatnonzero(resting & self._moving)
        if len(state) > MIN_STEPS and len(constant) and not still[1:].all():
            column = self._layout.columns[constant[0]]
            detail = f"{column.name} is {state[0, constant[0]]:g} {column.unit} in all {len(state)} rows"
            yield CONSTANT_COLUMNS.broken(detail, len(constant), len(constant))

    def _limits(self, state: Float32) -> Iterator[Finding]:
        low, high = self.limits
        outside = (state < low) | (state > high)
        for rule, columns in ((IMPOSSIBLE_HEIGHT, self._is_height), (BEYOND_LIMITS, ~self._is_height)):
            wrong = outside & columns
            if wrong.any():
                yield self._farthest(rule, state, wrong)

    def _farthest(self, rule: Rule, state: Float32, wrong: Mask) -> Finding:
        low, high = self.limits
        rows, columns = np.nonzero(wrong)
        beyond = np.maximum(low[columns] - state[wrong], state[wrong] - high[columns])
        # relative to the width of the limits: newtons and radians cannot be compared
        width = np.where(np.isfinite(high - low), high - low, 1)
        farthest = (beyond / width[columns]).argmax()
        row, i = rows[farthest], columns[farthest]
        column, value = self._layout.columns[i], state[row, i]
        limit = low[i] if value < low[i] else high[i]
        detail = f"{column.name} is {value:.4g} {column.unit} in row {row}, limit {limit:.4g}"
        return rule.broken(detail, value, wrong.sum(), limit=limit)

    def _pelvis_disagrees(self, state: Float32) -> Iterator[Finding]:
        body, joint = (state[:, columns].astype(np.float64) for columns in self._pelvis)
        apart = np.abs(body - joint)
        if apart.max() > PELVIS_DISAGREES.limit:
            row, axis = np.unravel_index(apart.argmax(), apart.shape)
            name, (is_at, should_be) = "xyz"[axis], (body[row, axis], joint[row, axis])
            detail = f"in row {row} body_pos/pelvis/{name} is {is_at:.4g} m, pelvis_t{name} {should_be:.4g} m"
            rows = (apart > PELVIS_DISAGREES.limit).any(axis=1).sum()
            yield PELVIS_DISAGREES.broken(detail, apart.max(), rows)

    def _jumps(self, state: Float32, repeated: Mask, resting: Mask) -> Iterator[Finding]:
        for rule, (positions, velocities) in self._pairs.items():
            if not _off(state.take(positions, axis=1), state.take(velocities, axis=1)).max(initial=0) > rule.limit / 2:
                continue  # in float32, which rounds off far less than the other half
            position, velocity = state[:, positions].astype(np.float64), state[:, velocities].astype(np.float64)
            off = _off(position, velocity)
            off[repeated[1:] | repeated[:-1]] = 0  # rules of their own say what is wrong there
            off[:, resting[positions] | resting[velocities]] = 0
            if off.size and off.max() > rule.limit:
                step, i = np.unravel_index(off.argmax(), off.shape)
                yield rule.broken(
                    self._jump(state, step, positions[i], velocities[i]), off.max(), (off > rule.limit).sum()
                )

    def _jump(self, state: Float32, step: np.intp, position: int, velocity: int) -> str:
        column, before, after = self._layout.columns[position], *state[step : step + 2, position]
        speed, unit = state[step : step + 2, velocity].mean(), column.unit
        return f"{column.name} goes from {before:.4g} to {after:.4g} {unit} in step {step}, at {speed:.4g} {unit}/s"


def _off(position: Rows, velocity: Rows) -> Rows:
    """How far each step [T, k] leads from where the mean velocity of rows [T+1, k] before and after it does."""
    return np.abs(position[1:] - position[:-1] - STEP_SECONDS / 2 * (velocity[1:] + velocity[:-1]))


def repeated_rows(state: Float32) -> tuple[Mask, Mask]:
    """Rows equal to the one before, and other rows equal to any earlier one, each [T+1]."""
    still, duplicated = np.zeros((2, len(state)), np.bool_)
    # Rows that are equal add up to the same number; only those that do are compared byte by byte.
    sums = row_sums(state)
    _, group, size = np.unique(sums, return_inverse=True, return_counts=True)
    if len(size) == len(state):
        return still, duplicated
    bits = np.ascontiguousarray(state).view(np.uint32)
    still[1:] = (bits[1:] == bits[:-1]).all(axis=1)
    seen: set[bytes] = set()
    for row in np.flatnonzero(~still & (size[group] > 1)):
        key = bits[row].tobytes()
        duplicated[row] = key in seen
        seen.add(key)
    return still, duplicated


def _moves(column: Column, model: Model) -> bool:
    """Whether a column moves in every simulation of the model."""
    parts = column.name.split("/")
    if column.group == "forces" or parts[-1] == "activation" or parts[-1] in LOCKED_COORDINATES[model]:
        return False
    planar = column.group.startswith(("body", "misc")) and model == "2D"
    if not planar:
        return True
    in_plane = "z" if column.group.endswith("_rot") else "xy"
    return parts[-1] in in_plane
