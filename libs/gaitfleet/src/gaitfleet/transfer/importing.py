"""From the bodies of an export into a run, through the same door as every other episode."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from gaitfleet import codec
from gaitfleet.client import Backoff, ReplayClient
from gaitfleet.episode import encode_for_run
from gaitfleet.errors import (
    ApiUnavailableError,
    CodecError,
    ConflictError,
    ExperimentError,
    LimitedError,
    RejectedError,
    TransferError,
)
from gaitfleet.task.compatibility import check_replayable
from gaitfleet.task.stages import tasks_by_stage
from gaitfleet.transfer.bodies import read_body, read_manifest
from gaitfleet.wire import EpisodeReceipt, EpisodeSummary, RunDescription

ATTEMPTS = 8
"""Tries while the API is away or asks to wait: about half a minute."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of one episode.

    Parameters
    ----------
    stored
        False when it was there already, or was refused.
    problem
        Why it was refused; None when it was not.
    """

    summary: EpisodeSummary
    stored: bool
    problem: str | None = None


def import_episodes(client: ReplayClient, target: RunDescription, directory: Path) -> Iterator[Imported]:
    """Post every exported episode to a run, oldest first. Each is stored whole or not at all.

    Raises
    ------
    ApiError
        When the API is away for long, or does not let this client post.
    """
    for summary in read_manifest(directory):
        try:
            curriculum = target.experiment.curriculum is not None
            body = encode_for_run(read_body(directory, summary), target.run, curriculum=curriculum)
            receipt = _post(client, body)
        except (TransferError, CodecError, RejectedError, ConflictError) as error:
            yield Imported(summary, stored=False, problem=str(error))
        else:
            yield Imported(summary, stored=receipt.stored)


def check_importable(source: RunDescription, target: RunDescription, episodes: Collection[EpisodeSummary]) -> None:
    """Refuse at once what would be refused episode by episode.

    Raises
    ------
    TransferError
        When the rows of one run are not those of the other, its curriculum has not the stages of the episodes, or the
        training episodes cannot be learned from in its task.
    """
    if source.layout_hash != target.layout_hash:
        raise TransferError(
            f"the episodes of {source.run!r} have layout {source.layout_hash}, "
            f"run {target.run!r} has layout {target.layout_hash}: their states are not the same"
        )
    stages = target.experiment.stage_names
    strange = sorted({episode.stage for episode in episodes} - {*stages})
    if target.experiment.curriculum is not None and strange:
        played = f"in stage {strange[0]!r}" if strange[0] else "without a curriculum"
        raise TransferError(
            f"episodes of {source.run!r} were played {played}, the curriculum of run {target.run!r} has "
            f"{', '.join(map(repr, stages))}: an episode counts in the stage that it names"
        )
    _check_learnable(source, target, {episode.stage for episode in episodes if episode.role != "evaluate"})


def _check_learnable(source: RunDescription, target: RunDescription, played: Collection[str]) -> None:
    """Hold the tasks of the stages that were played against those in which their episodes will count."""
    tasks = tasks_by_stage(target.experiment)
    for stage, recorded in tasks_by_stage(source.experiment).items():
        if stage in played:
            try:
                check_replayable(recorded, tasks[stage if target.experiment.curriculum is not None else ""])
            except ExperimentError as error:
                raise TransferError(
                    f"run {target.run!r} cannot learn from the episodes of {source.run!r}: {error}"
                ) from None


def _post(client: ReplayClient, body: bytes) -> EpisodeReceipt:
    backoff, frame = Backoff(), codec.compress(body)
    for _ in range(ATTEMPTS - 1):
        try:
            return client.post_frame(frame)
        except (LimitedError, ApiUnavailableError) as error:
            time.sleep(backoff.next_seconds(at_least=error.retry_after_seconds))
    return client.post_frame(frame)
