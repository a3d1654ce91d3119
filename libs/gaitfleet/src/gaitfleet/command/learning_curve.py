"""How a run's score grew with the experience it was given: evaluation scores by environment steps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from gaitfleet.client import ReplayClient
from gaitfleet.errors import GaitfleetError
from gaitfleet.trajectory import Float64
from gaitfleet.wire import EpisodeSummary

GRID_POINTS = 200
"""Points of a mean curve."""


class NoCurveError(GaitfleetError):
    """A run that has not been evaluated, or not since the oldest training episode that retention has left."""


@dataclass(frozen=True)
class LearningCurve:
    """Scores of one run in one stage of its curriculum: those of different stages do not compare.

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
    stage
        Its name; empty without a curriculum.
    left_out
        Policies that were evaluated before the oldest training episode that retention has left: after how many steps,
        nobody knows any more.
    """

    run: str
    environment_steps: Float64
    score: Float64
    episodes: tuple[int, ...]
    policy_version: tuple[int, ...]
    stage: str = ""
    left_out: int = 0


def read_curves(client: ReplayClient, run: str) -> list[LearningCurve]:
    """The curves of a run, one a stage, from the summaries of all its episodes.

    Raises
    ------
    NoCurveError
        When there is nothing to draw.
    """
    status = client.status()  # counts what was deleted; asked first, so that it has what is deleted meanwhile, too
    episodes = list(client.every_episode())
    listed = sum(episode.steps for episode in episodes if episode.stored_at <= status.at)
    return curves_of(run, episodes, deleted_steps=max(0, status.environment_steps - listed))


def curves_of(run: str, episodes: Iterable[EpisodeSummary], *, deleted_steps: int = 0) -> list[LearningCurve]:
    """The curves that these episodes, in any order, make. Imported evaluations are of no policy of the run.

    Parameters
    ----------
    deleted_steps
        Simulator steps of the training episodes that retention has deleted: the oldest.

    Raises
    ------
    NoCurveError
        When there is nothing to draw.
    """
    steps = 0
    stages: dict[str, dict[int, _Evaluation]] = {}
    for episode in sorted(episodes, key=lambda episode: (episode.stored_at, episode.episode_id)):
        if episode.role != "evaluate":
            steps += episode.steps
        elif episode.origin is None:
            of_stage = stages.setdefault(episode.stage, {})
            evaluation = of_stage.setdefault(episode.policy_version, _Evaluation(steps))
            evaluation.scores[episode.seed] = episode.simulator_return
    if not stages:
        raise NoCurveError(f"run {run!r} has no evaluation episodes; was it played without an evaluator?")
    curves = [_curve(run, stage, evaluations, deleted_steps) for stage, evaluations in stages.items()]
    curves = [curve for curve in curves if curve.policy_version]
    if not curves:
        raise NoCurveError(f"run {run!r} was not evaluated since the oldest training episode that retention has left")
    return curves


@dataclass(frozen=True, slots=True)
class _Evaluation:
    """Of a policy in a stage.

    Parameters
    ----------
    listed_steps
        Steps of the training episodes that were stored before it and are still there.
    scores
        By seed: an evaluator that was started again plays its seeds once more.
    """

    listed_steps: int
    scores: dict[int, float] = field(default_factory=dict)


def _curve(run: str, stage: str, evaluations: dict[int, _Evaluation], deleted_steps: int) -> LearningCurve:
    """Of evaluations by policy, in the order in which they began."""
    known = {version: one for version, one in evaluations.items() if one.listed_steps or not deleted_steps}
    return LearningCurve(
        run=run,
        environment_steps=np.array([one.listed_steps + deleted_steps for one in known.values()], np.float64),
        score=np.array([np.mean(list(one.scores.values())) for one in known.values()], np.float64),
        episodes=tuple(len(one.scores) for one in known.values()),
        policy_version=tuple(known),
        stage=stage,
        left_out=len(evaluations) - len(known),
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
