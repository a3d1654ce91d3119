"""Rules that stop an episode which is going nowhere, as the 2018 system had them.

They save the slow simulation of falling bodies. The walker has not fallen yet, so an abort is not a termination;
whether it costs the future all the same is `task.ending.abort_bootstraps`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gaitfleet.experiment import ProstheticsRewardSettings, ProstheticsTask
from gaitfleet.layout import StateLayout
from gaitfleet.task.prosthetics_kinematics import column
from gaitfleet.task.prosthetics_reward import RewardFunction
from gaitfleet.trajectory import Trajectory

_COACHES = ("coach", "coach-2018")


class AbortRules:
    """Which steps end an episode by the rules of `task.ending`; without rules none does."""

    def __init__(self, layout: StateLayout, settings: ProstheticsTask) -> None:
        self._layout = layout
        self._ending = settings.ending
        own = settings.reward
        coach = own if own.preset in _COACHES else ProstheticsRewardSettings(preset="coach")
        self._coach = RewardFunction(layout, coach, settings.prosthetic, settings.round)

    @property
    def any(self) -> bool:
        """Whether there are rules."""
        ending = self._ending
        return (ending.head_behind_pelvis, ending.head_sideways, ending.coach_reward_below) != (None, None, None)

    def __call__(self, trajectory: Trajectory) -> npt.NDArray[np.bool_]:
        """Whether the state after each step breaks a rule, [T]."""
        rows, ending = trajectory.state[1:], self._ending
        aborted = np.zeros(trajectory.steps, np.bool_)
        if ending.head_behind_pelvis is not None:
            pelvis, head = (column(rows, self._layout, f"body_pos/{body}/x") for body in ("pelvis", "head"))
            aborted |= pelvis - head > ending.head_behind_pelvis
        if ending.head_sideways is not None:
            aborted |= np.abs(column(rows, self._layout, "body_pos/head/z")) > ending.head_sideways
        if ending.coach_reward_below is not None:
            aborted |= self._coach.total(trajectory) < ending.coach_reward_below
        return aborted
