"""Episodes that are the same as another one."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from uuid import UUID

import numpy as np

from gaitfleet.episode import Episode
from gaitfleet.quality.any_task import MIN_STEPS
from gaitfleet.quality.finding import Finding
from gaitfleet.quality.rules import REPEATED_EPISODE


@dataclass(frozen=True, slots=True)
class Played:
    """What is remembered of an episode to know it again.

    Parameters
    ----------
    digest
        Over its rows and actions; None when it is too short to be compared.
    """

    digest: bytes | None
    episode_id: UUID
    seed: int
    policy_version: int
    explored: bool

    @classmethod
    def of(cls, episode: Episode) -> Played:
        """What is remembered of this one."""
        metadata, trajectory = episode.metadata, episode.trajectory
        digest = None
        if trajectory.steps >= MIN_STEPS:
            content = hashlib.sha256(np.ascontiguousarray(trajectory.state).data)  # processors have instructions for it
            content.update(np.ascontiguousarray(trajectory.action).data)
            digest = content.digest()
        explored = metadata.exploration != "none"
        return cls(digest, metadata.episode_id, metadata.seed, metadata.policy_version, explored)


class RepeatWatch:
    """Finds episodes of one run that are the same as an earlier one.

    Without noise a policy may repeat itself, as OpenSim's walker always starts from the same pose; two policies may
    not.

    Parameters
    ----------
    capacity
        Episodes remembered, the latest.
    """

    def __init__(self, capacity: int = 10_000) -> None:
        self._capacity = capacity
        self._known: dict[bytes, Played] = {}

    def __call__(self, played: Played) -> Finding | None:
        """Hold an episode against those before, and remember it. The same episode twice is no finding."""
        if played.digest is None:
            return None
        first = self._known.setdefault(played.digest, played)
        if len(self._known) > self._capacity:
            del self._known[next(iter(self._known))]
        if first.episode_id == played.episode_id:
            return None
        if not (first.explored and played.explored) and first.policy_version == played.policy_version:
            return None
        detail = (
            f"the same rows and actions as episode {first.episode_id} (seed {first.seed}, policy "
            f"{first.policy_version}); this one has seed {played.seed}, policy {played.policy_version}"
        )
        return REPEATED_EPISODE.broken(detail, 1)
