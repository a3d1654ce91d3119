"""Reward terms of what a gait costs."""

from __future__ import annotations

import numpy as np

from gaitfleet.task.prosthetics_reward.term import Steps, term
from gaitfleet.trajectory import Float64


@term("sum of a^2", unit="1", source="official, round 2")
def effort(steps: Steps) -> Float64:
    total = np.zeros(len(steps.after))
    for muscle in steps.walker.muscles:
        total = total + np.square(steps.now(f"muscles/{muscle}/activation"))
    return total


@term("max(effort_floor, ||e||)", unit="1", source="1st of 2018, stages 2 to 4")
def excitation_norm(steps: Steps) -> Float64:
    # muscle after muscle, so that one row and a whole episode add up in the same order
    total = np.zeros(len(steps.action))
    for excitation in steps.action.T.astype(np.float64, order="C"):
        total = total + np.square(excitation)
    return np.maximum(steps.settings.effort_floor, np.sqrt(total))


TERMS = (effort, excitation_norm)
