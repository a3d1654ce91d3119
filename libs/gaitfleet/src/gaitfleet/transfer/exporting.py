"""From the replay API to the parts of an export, one episode at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID

from gaitfleet.client import ReplayClient
from gaitfleet.episode import Episode, content_digest, decode_episode
from gaitfleet.errors import NotFoundError, TransferError
from gaitfleet.wire import EpisodeSummary


class Part(Protocol):
    """One form in which episodes are written."""

    def __contains__(self, episode_id: UUID) -> bool:
        """Whether it holds this episode already."""

    def add(self, summary: EpisodeSummary, body: bytes, episode: Episode) -> None:
        """Write an episode."""


def chosen_episodes(
    client: ReplayClient, *, role: str | None, since: datetime | None, newest: int | None
) -> Iterator[EpisodeSummary]:
    """Episodes of the client's run, newest first.

    Parameters
    ----------
    since
        Only episodes made at or after this moment, by the time in their ids.
    newest
        At most this many.
    """
    for summary in client.every_episode(newest=newest, role=role):
        if since is not None and _made_at(summary.episode_id) < since.timestamp():
            return
        yield summary


def export_episode(client: ReplayClient, summary: EpisodeSummary, parts: Sequence[Part]) -> bool | None:
    """Write an episode to the parts that lack it: True when one did, False when none, None when the episode is gone.

    Raises
    ------
    TransferError
        When the body that arrives is not the one that the summary speaks of.
    """
    lacking = [part for part in parts if summary.episode_id not in part]
    if not lacking:
        return False
    try:
        body = client.episode_content(summary.episode_id)
    except NotFoundError:
        return None  # deleted by the run's cap since it was listed
    if content_digest(body) != summary.content_digest:
        raise TransferError(f"episode {summary.episode_id} arrived damaged: its digest is not {summary.content_digest}")
    episode = decode_episode(body)
    for part in lacking:
        part.add(summary, body, episode)
    return True


def _made_at(episode_id: UUID) -> float:
    """Seconds since the epoch: the first 48 bits of a UUIDv7 are milliseconds (RFC 9562)."""
    return (episode_id.int >> 80) / 1000
