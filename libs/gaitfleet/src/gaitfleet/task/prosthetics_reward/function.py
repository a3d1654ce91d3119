"""The weighted terms of an episode."""

from __future__ import annotations

from difflib import get_close_matches

import numpy as np

from gaitfleet.errors import ExperimentError
from gaitfleet.experiment import ProstheticsRewardSettings
from gaitfleet.layout import StateLayout
from gaitfleet.task.prosthetics_reward.presets import PRESETS, TERMS
from gaitfleet.task.prosthetics_reward.term import Steps, Walker
from gaitfleet.trajectory import Float64, Trajectory


class RewardFunction:
    """Weighted terms of an episode.

    Parameters
    ----------
    layout
        Of the state rows.
    settings
        Preset, and weights that differ from its own.
    prosthetic
        Which skeleton the rows are of.
    round_
        1 or 2 of the challenge.

    Raises
    ------
    ExperimentError
        When a weight names a term that does not exist.
    """

    def __init__(self, layout: StateLayout, settings: ProstheticsRewardSettings, prosthetic: bool, round_: int) -> None:
        for name in settings.weights:
            if name not in TERMS:
                near = get_close_matches(name, TERMS, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"terms are {', '.join(TERMS)}"
                raise ExperimentError(f"task.reward.weights: unknown term {name!r}; {hint}")
        self._settings = settings
        self._walker = Walker(layout, prosthetic)
        self._preset = PRESETS[settings.preset]
        self.weights = {**self._preset.weights_in(round_), **settings.weights}
        self._functions = {name: self._preset.term(name).function for name in self.weights}

    def __call__(self, trajectory: Trajectory) -> dict[str, Float64]:
        """Weighted terms by name, each [T]."""
        steps = Steps(self._walker, self._settings, trajectory, self._preset.follows_target)
        terms = {name: weight * self._functions[name](steps) for name, weight in self.weights.items()}
        limit = self._preset.limit
        if limit is not None:
            limited = terms if limit.terms is None else [name for name in limit.terms if name in terms]
            total = added([terms[name] for name in limited], trajectory.steps)
            terms[limit.name] = np.clip(total, limit.low, limit.high) - total
        return terms

    def total(self, trajectory: Trajectory) -> Float64:
        """The sum of the terms, before the scale, [T]."""
        return added(list(self(trajectory).values()), trajectory.steps)


def added(terms: list[Float64], steps: int) -> Float64:
    """The sum of terms [T], one after the other."""
    total: Float64 = np.zeros(steps)
    for term in terms:
        total = total + term
    return total
