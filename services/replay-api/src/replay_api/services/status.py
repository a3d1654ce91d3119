"""How a run stands, from memory."""

from __future__ import annotations

from datetime import datetime

from gaitfleet.wire import Limits, RunStatus, SourceStatus, StageStatus
from replay_api.services.event_log import EventLog
from replay_api.services.open_run import OpenRun


def status_of(opened: OpenRun, events: EventLog, now: datetime) -> RunStatus:
    """The status as `gaitfleet status` shows it; heads and lease are at most a second old.

    Parameters
    ----------
    now
        By the database's clock, as everything that it is held against.
    """
    record, cache = opened.record, opened.cache
    lease = record.lease if record.lease is not None and record.lease.lease.expires_at > now else None
    head = record.head
    limits = opened.limiter.limits()
    return RunStatus(
        run=opened.run,
        at=now,
        stage=_stage(opened),
        episodes=opened.tally.episodes,
        environment_steps=opened.tally.steps,
        environment_steps_per_second=opened.tally.steps_per_second(now.timestamp()),
        transitions_held=cache.transitions,
        transitions_capacity=cache.capacity,
        sources=[
            SourceStatus(name=source.name, share=source.share, transitions_held=source.cache.transitions)
            for source in opened.sources
        ],
        loading=opened.loading,
        returns=opened.tally.returns(),
        limits=limits,
        samples_per_insert=_measured(limits),
        trainer=None if lease is None else lease.progress,
        lease=None if lease is None else lease.lease,
        checkpoint=head,
        checkpoint_age_seconds=None if head is None else (now - head.published_at).total_seconds(),
        checkpoints_published=record.published,
        workers=opened.workers.statuses(),
        failures=opened.workers.failures,
        rejected=events.rejected(opened.run),
        findings=events.findings(opened.run),
    )


def _stage(opened: OpenRun) -> StageStatus | None:
    experiment = opened.description.experiment
    if experiment.curriculum is None:
        return None
    return StageStatus(
        index=opened.description.stage,
        name=opened.stage_name,
        stages=len(experiment.stage_names),
        entered_at=opened.record.stage_entered_at,
        environment_steps=opened.tally.stage_steps,
        reward_weight=opened.reward_weight,
    )


def _measured(limits: Limits) -> float | None:
    beyond = limits.inserted - limits.min_size + limits.credit / limits.samples_per_insert
    return limits.sampled / beyond if beyond > 0 and limits.sampled else None
