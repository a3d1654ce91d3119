"""Presets: which terms are rewarded, and with which weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gaitfleet.task.prosthetics_reward import coach_terms, effort_terms, posture_terms, speed_terms
from gaitfleet.task.prosthetics_reward.term import Term

TERMS: dict[str, Term] = {
    term.name: term for module in (speed_terms, effort_terms, posture_terms, coach_terms) for term in module.TERMS
}
"""Every term by name."""


@dataclass(frozen=True, slots=True)
class Limit:
    """Bounds on the sum of some weighted terms, before the scale; of all where `terms` is None. What they cut off is a
    term too, so that terms still add up."""

    name: str
    terms: tuple[str, ...] | None
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Preset:
    """Weights by term.

    Parameters
    ----------
    summary
        What it is for and where it is from.
    weights
        Weight of every term, in the order in which they are added up.
    round2_weights
        Other weights for round 2; None: the same.
    limit
        Bounds on the sum of some of the terms.
    variants
        Terms that this preset computes in its own way.
    follows_target
        False where the target velocity is round 1's, whatever the episode's.
    """

    summary: str
    weights: Mapping[str, float]
    round2_weights: Mapping[str, float] | None = None
    limit: Limit | None = None
    variants: Mapping[str, Term] = field(default_factory=dict)
    follows_target: bool = True

    def weights_in(self, round_: int) -> Mapping[str, float]:
        """The weights in round 1 or 2."""
        return self.round2_weights if round_ == 2 and self.round2_weights is not None else self.weights

    def term(self, name: str) -> Term:
        """The term of that name as this preset computes it."""
        return self.variants.get(name) or TERMS[name]


_MATTIAS_SHAPING = {"unflexed_knee": -1.0, "splayed_legs": -5.0}

PRESETS: dict[str, Preset] = {
    "round1": Preset("official reward of round 1 (osim-rl 2.1.5)", {"alive": 9.0, "speed_error": -1.0}),
    "round2": Preset(
        "official reward of round 2 (osim-rl 2.1.5)", {"alive": 10.0, "target_velocity_error": -1.0, "effort": -0.001}
    ),
    "walk": Preset(
        "finds a gait from scratch; every term is from a shaping of 2018 or 2019 that did so",
        {
            "alive": 1.0,
            "forward_velocity": 3.0,
            "lateral_velocity": -2.0,
            "lean_back": -4.0,
            "low_pelvis": -10.0,
            "heading": -1.0,
            "feet_crossing": -10.0,
            "straight_knee": -1.0,
            "effort": -0.02,
        },
        limit=Limit("beyond_limits", None, -15.0, 20.0),
    ),
    "run_fastest": Preset(
        "1st of 2018 (PARL), stage 1: discovers a gait; its learner scaled it by 0.04",
        {
            "shin_advance": 1.0,
            "limited_lean_back": -0.15 * 0.05,
            "limited_lean_left": -0.15 * 0.05,
            "overextended_knee": -0.15 * 0.03,
        },
    ),
    "fixed_target_speed": Preset(
        "1st of 2018 (PARL), stages 2 to 4: a steady gait at `target_speed`; its learner scaled it by 0.04",
        {"alive": 36.0, "target_speed_error": -1.0, "sideways_speed": -1.0, "excitation_norm": -5.0},
    ),
    "catalyst": Preset(
        "3rd of 2018 (Catalyst), round 2: the official reward less 8, and legs that do not cross; it scaled by 0.1",
        {"alive": 2.0, "target_velocity_error": -1.0, "effort": -0.001, "crossing_volume": 10.0},
    ),
    "mattias": Preset(
        "4th of 2018 (Mattias), both rounds: the official reward and a posture worth at most 9; it did not scale",
        {
            "alive": 9.0,
            "speed_error": -1.0,
            **_MATTIAS_SHAPING,
            "heading": -10.0,
            "feet_separation_error": -10.0,
        },
        round2_weights={
            "alive": 10.0,
            "capped_official_penalty": -1.0,
            **_MATTIAS_SHAPING,
            "heading_error": -20.0,
            "feet_heading_error": -20.0,
            "feet_separation_error": -10.0,
        },
        limit=Limit(
            "posture_beyond_limit",
            (*_MATTIAS_SHAPING, "heading", "heading_error", "feet_heading_error", "feet_separation_error"),
            -9.0,
            0.0,
        ),
    ),
    "coach": Preset(
        "the 21 terms of the 2018 system, mended: knees bend the right way, and the target is the episode's",
        coach_terms.WEIGHTS,
    ),
    "coach-2018": Preset(
        "the 21 terms of the 2018 system as they were",
        coach_terms.WEIGHTS,
        variants=coach_terms.AS_WRITTEN,
        follows_target=False,
    ),
}
"""Every preset by its name in `task.reward.preset`."""
