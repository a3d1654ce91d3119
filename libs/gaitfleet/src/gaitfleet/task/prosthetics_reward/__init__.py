"""The reward of the prosthetics task: named terms, presets of weights, and their sum.

A term is a function of the simulator steps of an episode, with its formula, unit and source beside it; the terms stand
by topic in `speed_terms`, `effort_terms`, `posture_terms` and `coach_terms`. A preset gives each of its terms a weight
(`presets`). `gaitfleet task show PRESET` prints all of it.
"""

from gaitfleet.task.prosthetics_reward.function import RewardFunction
from gaitfleet.task.prosthetics_reward.presets import PRESETS, TERMS, Limit, Preset
from gaitfleet.task.prosthetics_reward.term import Term

__all__ = ["PRESETS", "TERMS", "Limit", "Preset", "RewardFunction", "Term"]
