"""Deleting the oldest training episodes beyond the cap; evaluation episodes are kept."""

from __future__ import annotations

import logging
import math
from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from itertools import accumulate

from replay_api.errors import UnavailableError
from replay_api.metrics import Metrics
from replay_api.services.background import Background
from replay_api.services.open_run import OpenRun
from replay_api.services.registry import RunRegistry
from replay_api.storage.episodes import EpisodeStore, Planned

CHUNK_EPISODES = 32
"""Episodes deleted in one transaction."""

LISTED_EPISODES = 512
"""Oldest episodes that are looked for at once. They stay the oldest, so the search serves until all are deleted."""

DELETED_SHARE = 1 / 32
"""Share of the cap that is deleted at a time: an episode for each that comes would cost more than to store it."""

_log = logging.getLogger(__name__)


class Retention:
    """Keeps the stored transitions of a run under its cap, in the background."""

    def __init__(self, registry: RunRegistry, episodes: EpisodeStore, background: Background, metrics: Metrics) -> None:
        self._registry = registry
        self._episodes = episodes
        self._background = background
        self._metrics = metrics

    def consider(self, opened: OpenRun) -> None:
        """Begin to delete when there is too much; one at a time for each run."""
        cap = opened.description.experiment.retention.max_transitions
        if cap is not None and opened.stored_transitions > cap:
            self._background.start(f"retention/{opened.run}", lambda: self._delete(opened, cap))

    async def _delete(self, opened: OpenRun, cap: int) -> None:
        try:
            await self._registry.look(opened)
            if opened.stored_transitions <= cap:  # another replica was faster
                return
            oldest, opened.oldest = _left(opened), ()  # forgotten if this fails: who knows what is deleted then
            while (excess := opened.stored_transitions - cap + math.ceil(cap * DELETED_SHARE)) > 0:
                oldest = oldest or await self._episodes.oldest_training(opened.run, LISTED_EPISODES)
                if not oldest:
                    return
                oldest = await self._delete_oldest(opened.run, oldest, excess)
                await self._registry.look(opened)
            opened.oldest, opened.oldest_after = oldest, opened.record.deleted_transitions
        except UnavailableError:
            _log.warning("retention stopped early; the next episode begins it again", extra={"run": opened.run})

    async def _delete_oldest(self, run: str, oldest: Sequence[Planned], excess: int) -> Sequence[Planned]:
        """Delete so many transitions, or all of `oldest`; what is left of it, nothing where others delete meanwhile."""
        reached = accumulate(episode.transitions for episode in oldest)
        count = bisect_left(list(reached), excess) + 1
        doomed, left = oldest[:count], oldest[count:]
        for start in range(0, len(doomed), CHUNK_EPISODES):
            deleted = await self._episodes.delete(run, doomed[start : start + CHUNK_EPISODES])
            self._metrics.retired_items.labels(run).inc(deleted)
            if not deleted:
                return ()
        return left


def _left(opened: OpenRun) -> Sequence[Planned]:
    """Of the episodes that retention has found last, those that are still there; none where that cannot be told.

    Other replicas have deleted as many transitions since as the count has moved on, and the oldest first, too.
    """
    moved, left = opened.record.deleted_transitions - opened.oldest_after, deque(opened.oldest)
    while moved > 0 and left:
        moved -= left.popleft().transitions
    return () if moved else list(left)
