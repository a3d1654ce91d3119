"""Checks that hold for every task."""

from __future__ import annotations

import numpy as np

from gaitfleet.quality.finding import Finding
from gaitfleet.quality.rules import FROZEN_ACTIONS, TIME_STANDS_STILL
from gaitfleet.task.interface import TaskDescription
from gaitfleet.trajectory import Trajectory

MIN_STEPS = 10
"""Shorter episodes say too little about what moves and what repeats."""

MIN_DECISIONS = 20
"""Decisions from which their spread is judged."""


def frozen_actions(trajectory: Trajectory, task: TaskDescription, exploration: str) -> Finding | None:
    """Whether the decisions hardly differ although noise was asked for."""
    decided = trajectory.action[trajectory.decision_steps]
    if exploration == "none" or len(decided) < MIN_DECISIONS:
        return None
    spread = decided.std(axis=0, dtype=np.float64) / (task.action_high - task.action_low)
    widest = int(spread.argmax())
    if spread[widest] >= FROZEN_ACTIONS.limit:
        return None
    name = task.action_names[widest]
    detail = (
        f"{len(decided)} decisions under {exploration} noise; {name} varies most, by {spread[widest]:.2g} of its range"
    )
    return FROZEN_ACTIONS.broken(detail, spread[widest], len(decided))


def nothing_moves(trajectory: Trajectory) -> Finding | None:
    """Whether all rows are one and the same."""
    if trajectory.steps < MIN_STEPS or not (trajectory.state == trajectory.state[0]).all():
        return None
    return TIME_STANDS_STILL.broken("every row is the same as row 0", trajectory.steps, trajectory.steps)
