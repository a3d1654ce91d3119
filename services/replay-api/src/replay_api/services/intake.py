"""From received bytes to an episode that has passed every rule: the part of ingest that computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gaitfleet import codec
from gaitfleet.episode import Episode, EpisodeMetadata, check_episode, content_digest, decode_episode
from gaitfleet.errors import CodecError
from gaitfleet.quality.checks import Verdict
from gaitfleet.quality.repeats import Played
from gaitfleet.task.compatibility import check_decisions
from gaitfleet.trajectory import Float32, Float64
from gaitfleet.wire import EpisodeSummary
from replay_api.errors import RejectedError, ServiceError, TooLargeError
from replay_api.services.open_run import OpenRun
from replay_api.services.retelling import retold
from replay_api.services.transitions import Transitions, check_finite, transitions_of
from replay_api.storage.mongo import milliseconds, now


@dataclass(frozen=True, slots=True)
class Checked:
    """An episode that may be kept.

    Parameters
    ----------
    summary
        What is kept beside the arrays.
    content
        The body, compressed.
    transitions
        Rows for the cache; None for evaluation episodes, which are never sampled, and for those of stages that are not
        learned from any more.
    played
        To know the same episode again.
    """

    summary: EpisodeSummary
    content: bytes
    transitions: Transitions | None
    played: Played


class BrokenEpisodeError(Exception):
    """An episode that breaks a rule: the refusal, and whose it was where that could be read."""

    def __init__(self, refusal: ServiceError, metadata: EpisodeMetadata | None) -> None:
        super().__init__(refusal.detail)
        self.refusal = refusal
        self.metadata = metadata


def check_body(body: bytes, *, compressed: bool, run: OpenRun, limit_bytes: int) -> Checked:
    """Decompress, decode, check and featurise. Runs in a thread: milliseconds of it are spent without the
    interpreter's lock.

    Raises
    ------
    BrokenEpisodeError
        Naming the field and the value.
    """
    metadata: EpisodeMetadata | None = None
    try:
        raw = codec.decompress(body, limit_bytes=limit_bytes) if compressed else body
        episode = decode_episode(raw)
        metadata = episode.metadata
        task = run.task_of(metadata)
        rules = task.for_evaluation() if metadata.role == "evaluate" else task
        check_episode(episode, run.run, rules.description)
        if metadata.origin is not None and metadata.role != "evaluate":
            check_decisions(episode.trajectory, task)
    except RejectedError as error:
        raise BrokenEpisodeError(error, metadata) from None
    except CodecError as error:
        kind = TooLargeError if error.reason == "too_large" else RejectedError
        raise BrokenEpisodeError(kind(str(error), field=error.field, reason=error.reason), metadata) from None
    try:
        terms = task.reward_terms(episode.trajectory)
        reward = task.added(terms, episode.trajectory.steps)
        verdict = run.stage_checks[run.position(metadata.stage)](episode)
        summary = _summary_of(episode, raw, terms, reward, verdict)
        transitions = _learned(episode, run, reward)
        _check_returns(summary)
        if transitions is not None:
            check_finite(transitions)
    except RejectedError as error:
        raise BrokenEpisodeError(error, metadata) from None
    return Checked(summary, body if compressed else codec.compress(body), transitions, Played.of(episode))


def _learned(episode: Episode, run: OpenRun, reward: Float32) -> Transitions | None:
    """Its rows, with the reward [T] by the task that it was played in."""
    metadata = episode.metadata
    if metadata.role == "evaluate" or run.cache_of(metadata.stage) is None:
        return None
    if run.as_recorded(metadata):
        return transitions_of(episode, run.task, run.former_task, reward=reward)
    return transitions_of(retold(episode, run.task), run.task, run.former_task)


def _summary_of(
    episode: Episode, body: bytes, terms: Mapping[str, Float64], reward: Float32, verdict: Verdict
) -> EpisodeSummary:
    """What is kept of an episode beside its arrays."""
    metadata, trajectory = episode.metadata, episode.trajectory
    measured = dict.fromkeys(("distance_m", "mean_speed_m_per_s", "lowest_pelvis_m", "foot_contacts", "drift_m"))
    return EpisodeSummary(
        **metadata.model_dump(exclude={"format", "layout_hash", "started_at", "rows_checksum"}),
        started_at=milliseconds(metadata.started_at),
        steps=trajectory.steps,
        transitions=len(trajectory.decision_steps),
        simulator_return=float(trajectory.reward.sum(dtype=np.float64)),
        learned_return=float(reward.sum(dtype=np.float64)),
        reward_terms={name: float(term.sum()) for name, term in terms.items()},
        action_minimum=float(trajectory.action.min()),
        action_maximum=float(trajectory.action.max()),
        **measured | verdict.measures,
        walked=verdict.walked,
        findings=verdict.findings,
        stored_at=now(),
        content_bytes=len(body),
        content_digest=content_digest(body),
    )


def _check_returns(summary: EpisodeSummary) -> None:
    """The sum of finite rewards can still overflow."""
    for name, value in (("simulator_return", summary.simulator_return), ("learned_return", summary.learned_return)):
        if not np.isfinite(value):
            raise RejectedError(f"{name} is {value}, must be finite", field=name, reason="not_finite")
