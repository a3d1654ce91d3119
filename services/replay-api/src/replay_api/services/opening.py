"""Reading a run from the stores into memory."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import datetime, timedelta

from gaitfleet.task.stages import stage_tasks
from gaitfleet.wire import RunDescription
from replay_api.constants import RATE_WINDOW_SECONDS
from replay_api.metrics import Metrics
from replay_api.services import loading
from replay_api.services.heads import Heads
from replay_api.services.limiter import Limiter, LimiterRule
from replay_api.services.memory import Memory
from replay_api.services.open_run import OpenRun
from replay_api.services.sampling import Sampler
from replay_api.services.tally import Tally
from replay_api.storage.checkpoint_records import CheckpointRecords
from replay_api.storage.episodes import EpisodeStore, RoleTotal
from replay_api.storage.mongo import DatabaseClock
from replay_api.storage.objects import CheckpointStore
from replay_api.storage.replicas import ReplicaStore
from replay_api.storage.runs import RunRecord, RunStore


def inherited_transitions(description: RunDescription) -> int:
    """Transitions that a run has from its parents, as far as they fit."""
    return min(sum(parent.transitions for parent in description.parents), description.experiment.replay.capacity)


@dataclass(frozen=True, slots=True)
class Stores:
    """Everything that is kept outside this process."""

    runs: RunStore
    episodes: EpisodeStore
    records: CheckpointRecords
    objects: CheckpointStore
    clock: DatabaseClock
    replicas: ReplicaStore


async def prepared(
    record: RunRecord, stores: Stores, metrics: Metrics, threads: Executor
) -> tuple[loading.LoadPlan, OpenRun]:
    """A run that counts what is stored, and the episodes that are to be loaded into it."""
    description = record.description
    experiment, replay = description.experiment, description.experiment.replay
    tasks = stage_tasks(experiment)
    await stores.clock.ask()
    planned_at = stores.clock.earliest()
    settled = planned_at - timedelta(seconds=RATE_WINDOW_SECONDS)
    plan = await loading.plan_of(description, stores.episodes)
    tally = await _tally(record, settled, stores.episodes)
    memory = Memory(description, tasks[description.stage].description, tally.stage_steps)
    cache = memory.cache()
    planned_transitions = loading.transitions_in(plan.episodes)
    restarted = experiment.stage_names[0] not in plan.stages

    def missing(minimum: int) -> int:
        return max(0, min(minimum, replay.capacity // 2) - cache.transitions)

    def ready() -> bool:
        minimum = opened.limiter.rule.min_size
        if opened.loading and not all(source.filled(minimum) for source in opened.sources):
            return False
        if restarted:  # half of the capacity always fits, however short episodes are
            return missing(minimum) == 0
        needed = min(minimum, planned_transitions, replay.capacity) if opened.loading else 1
        return cache.transitions >= max(1, needed)

    opened = OpenRun(
        description=description,
        stage_tasks=tasks,
        record=record,
        cache=cache,
        sampler=Sampler(),
        sources=await memory.sources(plan, stores.episodes),
        limiter=Limiter(
            LimiterRule.of(experiment, record.limits),
            inserted=await _inserted(record, plan, stores.episodes),
            sampled=record.sampled,
            ready=ready,
            inherited=inherited_transitions(description),
            credit=record.credit,
            missing=missing if restarted else None,
        ),
        tally=tally,
        heads=Heads(stores.objects),
        metrics=metrics,
        threads=threads,
        flushed=record.sampled,
        planned_at=planned_at,
    )
    metrics.open_run(opened.run)
    await _remember(opened, plan, settled, stores.episodes)
    opened.end_sources()
    return plan, opened


def count_deleted(opened: OpenRun, before: RunRecord, after: RunRecord) -> None:
    """Count what retention deleted while the run was read as if none of it had been seen.

    What was seen before it was deleted is counted twice: at most what is deleted in the time of one reading. The other
    way it would be missed, and whoever samples would wait for as much that will never come.

    Parameters
    ----------
    before, after
        The run's document as it was then, and afterwards.
    """
    opened.record, tally, stage = after, opened.tally, opened.stage_name
    opened.limiter.inserted += after.deleted_transitions - before.deleted_transitions
    for role, total in after.deleted.items():
        known = before.deleted.get(role, RoleTotal(0, 0, 0))
        tally.episodes[role] = tally.episodes.get(role, 0) + total.episodes - known.episodes
        tally.steps += total.steps - known.steps
    tally.stage_steps += after.deleted_stage_steps.get(stage, 0) - before.deleted_stage_steps.get(stage, 0)


async def _inserted(record: RunRecord, plan: loading.LoadPlan, episodes: EpisodeStore) -> int:
    """Transitions inserted in the whole run; those stored after the plan are counted when they are followed."""
    inserted = loading.transitions_in(plan.own) + record.deleted_transitions
    if plan.own:
        inserted += await episodes.transitions_before(record.description.run, plan.own[-1])
    return inserted


async def _tally(record: RunRecord, settled: datetime, episodes: EpisodeStore) -> Tally:
    """What was played, whether it is still stored or not."""
    description = record.description
    stage = description.experiment.stage_names[description.stage]
    steps = await episodes.stage_steps(description.run, stage, settled) if stage else 0
    totals = await episodes.totals(description.run, settled)
    for role, deleted in record.deleted.items():
        totals[role] = totals[role] + deleted if role in totals else deleted
    return Tally(totals, stage, steps + record.deleted_stage_steps.get(stage, 0))


async def _remember(opened: OpenRun, plan: loading.LoadPlan, settled: datetime, episodes: EpisodeStore) -> None:
    """Count the episodes of the last minute one by one, and take the latest returns from before it."""
    run = opened.run
    for role in ("train", "random"):
        for summary in reversed(await episodes.latest(run, role, limit=20)):
            opened.tally.remember(summary)
    evaluated = await episodes.newest_evaluated(run)
    if evaluated is not None:
        for summary in reversed(await episodes.evaluations(run, evaluated)):
            opened.tally.remember(summary)
    latest = await episodes.stored_since(run, settled)
    known = {episode.key for episode in plan.known(latest)}
    for episode in latest:
        if episode.key in known or episode.role == "evaluate":
            opened.recent.add(episode.key)
            opened.tally.count(episode)
