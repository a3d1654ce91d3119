"""Which checkpoints are kept, and the deletion of the others and of objects that nobody refers to."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Collection, Sequence

from gaitfleet.experiment import CheckpointSettings
from gaitfleet.wire import CheckpointInfo
from replay_api.constants import ORPHAN_SECONDS
from replay_api.errors import UnavailableError
from replay_api.metrics import Metrics
from replay_api.services.heads import checkpoint_key, policy_key, step_of
from replay_api.services.open_run import OpenRun
from replay_api.services.opening import Stores
from replay_api.services.registry import RunRegistry

BEGUN_EVALUATIONS = 8
"""Checkpoints at most that are kept for what has begun of their evaluation: some are never finished."""

_log = logging.getLogger(__name__)


def superfluous(
    checkpoints: Sequence[CheckpointInfo], rule: CheckpointSettings, needed: Collection[int]
) -> list[CheckpointInfo]:
    """Checkpoints that the rule does not keep.

    Kept are the newest `keep_last`, of the older ones the first in every `keep_every_steps`, and the steps `needed`.

    Parameters
    ----------
    checkpoints
        All of a run, newest first.
    """
    firsts: dict[int, int] = {}
    for info in checkpoints:  # newest first, so the last one seen of a stretch is its first
        firsts[info.step // rule.keep_every_steps] = info.step
    kept = {info.step for info in checkpoints[: rule.keep_last]} | set(firsts.values()) | set(needed)
    return [info for info in checkpoints if info.step not in kept]


def under_evaluation(checkpoints: Sequence[CheckpointInfo], stage: str, episodes: int) -> list[int]:
    """Steps of the checkpoints whose evaluation in a stage has begun, down to the newest that is finished: were it
    deleted before, it could not become the best.

    Parameters
    ----------
    checkpoints
        All of a run, newest first.
    episodes
        That make an evaluation.
    """
    begun: list[int] = []
    for info in checkpoints:
        if info.evaluation_episodes and info.evaluation_stage == stage:
            begun.append(info.step)
            if info.evaluation_episodes >= episodes:
                break
    return begun[:BEGUN_EVALUATIONS]


class Thinning:
    """Deletes checkpoints after a publication."""

    def __init__(self, registry: RunRegistry, stores: Stores, metrics: Metrics) -> None:
        self._registry = registry
        self._stores = stores
        self._metrics = metrics
        self._orphans: defaultdict[str, dict[str, float]] = defaultdict(dict)  # when each was first seen

    async def thin(self, opened: OpenRun) -> None:
        """Delete what is superfluous: first the record, then the objects, so that nothing listed is missing."""
        try:
            checkpoints = await self._stores.records.all(opened.run)
            rule = opened.description.experiment.checkpoints
            for info in superfluous(checkpoints, rule, await self._needed(opened, checkpoints)):
                if info.step in await self._heads(opened):
                    continue  # an evaluation has made it the best meanwhile
                await self._stores.records.delete(opened.run, info.step)
                for key in (policy_key(info), checkpoint_key(info)):
                    await self._stores.objects.delete(key)
                    self._metrics.gc_deleted.labels("thinned").inc()
            await self._delete_orphans(opened)
        except UnavailableError:
            _log.warning("thinning stopped early; the next publication goes on", extra={"run": opened.run})

    async def _needed(self, opened: OpenRun, checkpoints: Sequence[CheckpointInfo]) -> set[int]:
        episodes = opened.description.experiment.evaluation.episodes
        judged = under_evaluation(checkpoints, opened.stage_name, episodes)
        return {*await self._heads(opened), *judged, *opened.workers.policies("evaluate")}

    async def _heads(self, opened: OpenRun) -> list[int]:
        record = await self._registry.record(opened.run)
        return [info.step for info in (record.head, record.best) if info is not None]

    async def _delete_orphans(self, opened: OpenRun) -> None:
        keys = [key async for key in self._stores.objects.find(f"runs/{opened.run}/")]
        record = await self._registry.record(opened.run)  # after the list: whatever was listed and is used is in it
        known = [*await self._stores.records.all(opened.run), *(info for info in (record.head, record.best) if info)]
        used = {key for info in known for key in (checkpoint_key(info), policy_key(info))}
        head = 0 if record.head is None else record.head.step
        orphans = [key for key in keys if key not in used]
        self._metrics.gc_orphans.labels(opened.run).set(len(orphans))
        # Above the head it may be of a publication under way; below, it can never become the head.
        doomed = [key for key in orphans if (step := step_of(key)) is not None and step <= head]
        moment = time.monotonic()
        seen = self._orphans[opened.run] = {key: self._orphans[opened.run].get(key, moment) for key in doomed}
        for key, since in seen.items():
            if moment - since >= ORPHAN_SECONDS:
                await self._stores.objects.delete(key)
                self._metrics.gc_deleted.labels("orphan").inc()
