"""Whether evaluation episodes pass the gate of a stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gaitfleet.course_settings import GateSettings
from replay_api.storage.episodes import Evaluated


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


def judge(gate: GateSettings, evaluations: Mapping[int, Sequence[Evaluated]]) -> Verdict:
    """The verdict over the evaluations of some policies, by version, all of them finished."""
    judged = [episode for episodes in evaluations.values() for episode in episodes]
    evidence: dict[str, Any] = {"policies": list(evaluations), "episodes": len(judged)}
    passed = True
    for name, asked, measured, holds in _criteria(gate, judged):
        evidence[name] = {"asked": asked, "measured": measured}
        passed &= holds
    return Verdict(passed, evidence)


def _criteria(gate: GateSettings, episodes: Sequence[Evaluated]) -> list[tuple[str, Any, float, bool]]:
    """Name, bound, measured value and whether it holds, of every criterion that is stated."""

    def mean(value: Callable[[Evaluated], float | None]) -> float:
        return sum(value(episode) or 0.0 for episode in episodes) / len(episodes)

    at_least: list[tuple[str, float | None, Callable[[Evaluated], float | None]]] = [
        ("mean_return", gate.mean_return, lambda episode: episode.score),
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
