"""Judging published policies by their evaluation episodes."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, pstdev

from gaitfleet.wire import CheckpointInfo
from replay_api.metrics import Metrics
from replay_api.services.event_log import EventLog
from replay_api.services.one_at_a_time import OneAtATime
from replay_api.services.open_run import OpenRun
from replay_api.storage.checkpoint_records import CheckpointRecords
from replay_api.storage.episodes import EpisodeStore, Evaluated
from replay_api.storage.runs import Evaluation, RunStore

CHOICES = 8
"""Times that the best is chosen at most until the choice stands; whoever notes the evaluation that came in between
chooses, too."""


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
        self._one_at_a_time = OneAtATime()

    async def note(self, opened: OpenRun, policy_version: int, stage: str, *, again: bool = False) -> None:
        """Count a new evaluation episode of a policy; one of a stage that is over changes nothing.

        The best checkpoint has the highest mean over at least `evaluation.episodes` episodes; it is found anew every
        time, so that the result does not depend on the order of arrival. The official score alone decides: it is what
        checkpoints of any task are compared by. It does not say that the policy walks (in round 2 a statue has 83 % of
        the maximum); how many episodes walked stands beside it in the event. Scores of
        other stages are of other tasks: they do not compare.

        `again` says that the episode was stored before: the attempt that did may have counted it, and have ended before
        the event was kept.
        """
        if stage != opened.stage_name or not policy_version:  # 0: of another run's policy, imported
            return
        async with self._one_at_a_time(opened.run):
            needed = opened.description.experiment.evaluation.episodes
            episodes = await self._episodes.evaluated(opened.run, policy_version, stage)
            if not episodes:
                return
            mean_score = mean(episode.score for episode in episodes)
            score = Evaluation(mean_score, len(episodes), stage)
            before = await self._records.evaluated(opened.run, policy_version, score)
            await self._runs.evaluated(opened.run, policy_version, score)
            if len(episodes) < needed:
                return
            self._metrics.evaluation_return.labels(opened.run).set(mean_score)
            # several may be stored before the first of them is noted, and the last one noted twice
            judged = {"policy_version": policy_version} | ({"stage": stage} if stage else {})
            if before is None or again:  # only the history knows
                ended = await self._events.has(opened.run, "evaluation_finished", **judged)
            else:
                ended = before.evaluation_stage == stage and before.evaluation_episodes >= needed
            if not ended:
                await self._events.add(opened.run, "evaluation_finished", **judged, **figures_of(episodes))
            if before is not None:
                await self._choose_best(opened, needed)

    async def _choose_best(self, opened: OpenRun, needed: int) -> None:
        """Name the best, and look again: another replica may have chosen by a later evaluation meanwhile, and this one
        have undone it."""
        chosen: CheckpointInfo | None = None
        for _ in range(CHOICES):
            best = await self._best(opened, needed)
            if best is None or best == chosen:
                break
            await self._runs.set_best(opened.run, best)
            chosen = best
        if chosen is None:
            return
        record = await self._runs.get(opened.run)
        if record is not None:
            opened.record = record
            opened.heads.follow(record)

    async def _best(self, opened: OpenRun, needed: int) -> CheckpointInfo | None:
        judged = [
            info
            for info in await self._records.all(opened.run)
            if info.evaluation_episodes >= needed and info.evaluation_stage == opened.stage_name
        ]
        return max(judged, key=lambda info: (_score(info), info.step), default=None)


def figures_of(episodes: Sequence[Evaluated]) -> dict[str, int | float]:
    """What the event says of a policy's evaluation; what only walkers have is left out elsewhere."""
    scores = [episode.score for episode in episodes]
    figures: dict[str, int | float] = {
        "episodes": len(episodes),
        "mean_simulator_return": mean(scores),
        "deviation_simulator_return": pstdev(scores),
        "mean_steps": mean(episode.steps for episode in episodes),
    }
    ways = [episode.distance_m for episode in episodes if episode.distance_m is not None]
    contacts = [episode.foot_contacts for episode in episodes if episode.foot_contacts is not None]
    walked = [episode.walked for episode in episodes if episode.walked is not None]
    if ways:
        figures["mean_distance_m"] = mean(ways)
    if contacts:
        figures["mean_foot_contacts"] = mean(contacts)
    if walked:
        figures["walked_episodes"] = sum(walked)
    return figures


def _score(info: CheckpointInfo) -> float:
    return float("-inf") if info.evaluation_return is None else info.evaluation_return
