"""How a run's score grew with the experience it was given: evaluation scores by environment steps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from gaitfleet.client import ReplayClient
from gaitfleet.errors import GaitfleetError
from gaitfleet.trajectory import Float64
from gaitfleet.wire import EpisodeSummary

GRID_POINTS = 200
"""Points of a mean curve."""


class NoCurveError(GaitfleetError):
    """A run that has not been evaluated."""


@dataclass(frozen=True)
class LearningCurve:
    """Scores of one run.

    Parameters
    ----------
    run
        Its id.
    environment_steps
        float64 [N]. Simulator steps of training stored when the policy's evaluation began, ascending.
    score
        float64 [N]. Mean simulator return of the policy's evaluation episodes.
    episodes
        [N]. How many these were.
    policy_version
        [N]. Updates that the policy had.
    """

    run: str
    environment_steps: Float64
    score: Float64
    episodes: tuple[int, ...]
    policy_version: tuple[int, ...]


def read_curve(client: ReplayClient, run: str) -> LearningCurve:
    """The curve of a run, from the summaries of all its episodes.

    Raises
    ------
    NoCurveError
        When it holds no evaluation episode.
    """
    return curve_of(run, client.every_episode())


def curve_of(run: str, episodes: Iterable[EpisodeSummary]) -> LearningCurve:
    """The curve that these episodes, in any order, make.

    Raises
    ------
    NoCurveError
        When none of them is of role `evaluate`.
    """
    steps = 0
    began: dict[int, int] = {}
    scores: dict[int, list[float]] = {}
    for episode in sorted(episodes, key=lambda episode: (episode.stored_at, episode.episode_id)):
        if episode.role != "evaluate":
            steps += episode.steps
            continue
        began.setdefault(episode.policy_version, steps)
        scores.setdefault(episode.policy_version, []).append(episode.simulator_return)
    if not scores:
        raise NoCurveError(f"run {run!r} has no evaluation episodes; was it played without an evaluator?")
    versions = sorted(scores)
    return LearningCurve(
        run=run,
        environment_steps=np.array([began[version] for version in versions], np.float64),
        score=np.array([np.mean(scores[version]) for version in versions]),
        episodes=tuple(len(scores[version]) for version in versions),
        policy_version=tuple(versions),
    )


@dataclass(frozen=True)
class Band:
    """Mean and standard deviation over the runs of a group, at the same environment steps, float64 [M]."""

    environment_steps: Float64
    mean: Float64
    deviation: Float64


def band_of(curves: Sequence[LearningCurve]) -> Band:
    """The group's band where all its runs have scores; between two evaluations a run's score is interpolated."""
    first = max(curve.environment_steps[0] for curve in curves)
    last = max(first, min(curve.environment_steps[-1] for curve in curves))
    grid = np.linspace(first, last, GRID_POINTS)
    scores = np.stack([np.interp(grid, curve.environment_steps, curve.score) for curve in curves])
    return Band(grid, scores.mean(0), scores.std(0))
