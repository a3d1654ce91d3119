"""Whether evaluation episodes pass the gate of a stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gaitfleet.course_settings import GateSettings
from gaitfleet.wire import EpisodeSummary


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was judged, and how.

    Parameters
    ----------
    passed
        Whether every criterion holds.
    evidence
        Policies and number of episodes, and for each criterion what was asked for and what was measured.
    """

    passed: bool
    evidence: dict[str, Any]


def judge(gate: GateSettings, episodes: Sequence[EpisodeSummary], needed: int) -> Verdict | None:
    """The verdict over the newest policies that are evaluated to the end; None while there are too few of them.

    Parameters
    ----------
    episodes
        Evaluation episodes of the stage, in any order.
    needed
        Episodes that make an evaluation.
    """
    by_policy: dict[int, dict[int, EpisodeSummary]] = {}
    for episode in episodes:  # one of each seed: an evaluator that was started again plays its seeds once more
        by_policy.setdefault(episode.policy_version, {})[episode.seed] = episode
    complete = sorted((version for version, played in by_policy.items() if len(played) >= needed), reverse=True)
    policies = complete[: gate.policies]
    if len(policies) < gate.policies:
        return None
    judged = [episode for version in policies for episode in by_policy[version].values()]
    evidence: dict[str, Any] = {"policies": policies, "episodes": len(judged)}
    passed = True
    for name, asked, measured, holds in _criteria(gate, judged):
        evidence[name] = {"asked": asked, "measured": measured}
        passed &= holds
    return Verdict(passed, evidence)


def _criteria(gate: GateSettings, episodes: Sequence[EpisodeSummary]) -> list[tuple[str, Any, float, bool]]:
    """Name, bound, measured value and whether it holds, of every criterion that is stated."""

    def mean(value: Callable[[EpisodeSummary], float | None]) -> float:
        return sum(value(episode) or 0.0 for episode in episodes) / len(episodes)

    at_least: list[tuple[str, float | None, Callable[[EpisodeSummary], float | None]]] = [
        ("mean_return", gate.mean_return, lambda episode: episode.simulator_return),
        ("mean_speed", gate.mean_speed, lambda episode: episode.mean_speed_m_per_s),
        ("mean_distance", gate.mean_distance, lambda episode: episode.distance_m),
        ("mean_foot_contacts", gate.mean_foot_contacts, lambda episode: episode.foot_contacts),
    ]
    criteria: list[tuple[str, Any, float, bool]] = [
        (name, bound, mean(value), mean(value) >= bound) for name, bound, value in at_least if bound is not None
    ]
    if gate.survival is not None:
        steps = gate.survival.steps
        share = mean(lambda episode: float(episode.steps >= steps))
        criteria.append(("survival", gate.survival.model_dump(), share, share >= gate.survival.share))
    if gate.mean_drift is not None:
        drift = mean(lambda episode: abs(episode.drift_m or 0.0))
        criteria.append(("mean_drift", gate.mean_drift, drift, drift < gate.mean_drift))
    return criteria
