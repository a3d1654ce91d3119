"""Episodes that are the same as another one."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from uuid import UUID

import numpy as np
import numpy.typing as npt

from gaitfleet.episode import Episode
from gaitfleet.quality.any_task import MIN_STEPS
from gaitfleet.quality.finding import Finding
from gaitfleet.quality.rules import REPEATED_EPISODE
from gaitfleet.trajectory import Float32


@dataclass(frozen=True, slots=True)
class Played:
    """What is remembered of an episode to know it again.

    Parameters
    ----------
    digest
        Over the sum of every row's bits and of every action's, which no two simulations share: a tenth of the time
        that a digest of all their bytes takes. None when it is too short to be compared.
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
            sums = row_sums(trajectory.state).tobytes() + row_sums(trajectory.action).tobytes()
            digest = hashlib.sha256(sums).digest()
        explored = metadata.exploration != "none"
        return cls(digest, metadata.episode_id, metadata.seed, metadata.policy_version, explored)


def row_sums(rows: Float32) -> npt.NDArray[np.uint64]:
    """Sum of the bits of every row [n, k], taken as whole numbers, [n]: rows that are equal have the same."""
    sums: npt.NDArray[np.uint64] = np.ascontiguousarray(rows).view(np.uint32).sum(axis=1, dtype=np.uint64)
    return sums


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
