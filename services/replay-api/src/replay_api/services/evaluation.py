"""Judging published policies by their evaluation episodes."""

from __future__ import annotations

import asyncio

from gaitfleet.wire import CheckpointInfo
from replay_api.metrics import Metrics
from replay_api.services.event_log import EventLog
from replay_api.services.open_run import OpenRun
from replay_api.storage.checkpoint_records import CheckpointRecords
from replay_api.storage.episodes import EpisodeStore
from replay_api.storage.runs import Evaluation, RunStore


class Evaluations:
    """Keeps the mean official score of every checkpoint, and the head `best`."""

    def __init__(
        self, episodes: EpisodeStore, records: CheckpointRecords, runs: RunStore, events: EventLog, metrics: Metrics
    ) -> None:
        self._episodes = episodes
        self._records = records
        self._runs = runs
        self._events = events
        self._metrics = metrics
        self._one_at_a_time = asyncio.Lock()

    async def note(self, opened: OpenRun, policy_version: int, stage: str) -> None:
        """Count a new evaluation episode of a policy; one of a stage that is over changes nothing.

        The best checkpoint has the highest mean over at least `evaluation.episodes` episodes; it is found anew every
        time, so that the result does not depend on the order of arrival. The official score alone decides: it is what
        checkpoints of any task are compared by. It does not say that the policy walks (in round 2 a statue has 83 % of
        the maximum); how many episodes walked stands beside it in the event. Scores of
        other stages are of other tasks: they do not compare.
        """
        if stage != opened.stage_name:
            return
        async with self._one_at_a_time:
            needed = opened.description.experiment.evaluation.episodes
            episodes = await self._episodes.evaluated(opened.run, policy_version, stage)
            if not episodes:
                return
            mean = sum(episode.score for episode in episodes) / len(episodes)
            score = Evaluation(mean, len(episodes), stage)
            kept = await self._records.evaluated(opened.run, policy_version, score)
            await self._runs.evaluated(opened.run, policy_version, score)
            if len(episodes) < needed:
                return
            self._metrics.evaluation_return.labels(opened.run).set(mean)
            if len(episodes) == needed:
                data = {"policy_version": policy_version, "mean_simulator_return": mean, "episodes": needed}
                if any(episode.walked is not None for episode in episodes):
                    data["walked_episodes"] = sum(bool(episode.walked) for episode in episodes)
                await self._events.add(opened.run, "evaluation_finished", **data)
            if kept:
                await self._choose_best(opened, needed)

    async def _choose_best(self, opened: OpenRun, needed: int) -> None:
        judged = [
            info
            for info in await self._records.all(opened.run)
            if info.evaluation_episodes >= needed and info.evaluation_stage == opened.stage_name
        ]
        best = max(judged, key=lambda info: (_score(info), info.step), default=None)
        if best is None:
            return
        await self._runs.set_best(opened.run, best)
        record = await self._runs.get(opened.run)
        if record is not None:
            opened.record = record
            await opened.heads.refresh(record)


def _score(info: CheckpointInfo) -> float:
    return float("-inf") if info.evaluation_return is None else info.evaluation_return
