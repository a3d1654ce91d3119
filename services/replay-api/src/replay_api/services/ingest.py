"""Taking in episodes: everything is checked before anything is kept, and nothing is acknowledged before it is
durable."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor

from gaitfleet.wire import EpisodeReceipt, EpisodeSummary
from replay_api.errors import EpisodeConflictError, LimitedError, RejectedError, ServiceError
from replay_api.metrics import Metrics
from replay_api.services.curriculum import Curriculum
from replay_api.services.evaluation import Evaluations
from replay_api.services.event_log import EventLog
from replay_api.services.intake import BrokenEpisodeError, Checked, check_body
from replay_api.services.one_at_a_time import OneAtATime
from replay_api.services.open_run import OpenRun
from replay_api.services.registry import RunRegistry
from replay_api.services.retention import Retention
from replay_api.settings import Settings
from replay_api.storage.episodes import EpisodeStore, key_of
from replay_api.storage.mongo import DatabaseClock

MAX_UNANSWERED = 10_000
"""Episodes remembered at most whose insertion the database has not answered: some are never posted again."""


class Ingest:
    """Checks, keeps and admits episodes."""

    def __init__(
        self,
        registry: RunRegistry,
        episodes: EpisodeStore,
        evaluations: Evaluations,
        curriculum: Curriculum,
        retention: Retention,
        events: EventLog,
        metrics: Metrics,
        settings: Settings,
        threads: Executor,
        clock: DatabaseClock,
    ) -> None:
        self._registry = registry
        self._episodes = episodes
        self._evaluations = evaluations
        self._curriculum = curriculum
        self._retention = retention
        self._events = events
        self._metrics = metrics
        self._limit_bytes = settings.max_decompressed_bytes
        self._threads = threads
        self._clock = clock
        self._one_at_a_time = OneAtATime()
        self._unanswered: dict[str, None] = {}  # episodes that may be stored and were not counted

    async def post(self, opened: OpenRun, body: bytes, *, compressed: bool) -> EpisodeReceipt:
        """Keep an episode.

        Raises
        ------
        RejectedError
            When it breaks a rule; names the field and the value.
        EpisodeConflictError
            When other bytes are stored under its id.
        LimitedError
            When inserts are limited and the trainer is behind.
        """
        self._metrics.ingested_bytes.labels(opened.run).inc(len(body))
        checked = await self._check(opened, body, compressed=compressed)
        if opened.position(checked.summary.stage) > opened.description.stage:
            opened = await self._in_stage(opened, checked.summary.stage)
            checked = await self._check(opened, body, compressed=compressed)
        if checked.transitions is not None and not opened.limiter.insert_allowed:
            self._metrics.limited.labels(opened.run, "insert").inc()
            detail = "the trainer is behind and inserts are limited: " + opened.limiter.explain(1)
            raise LimitedError(detail, reason="inserts_limited", retry_after_seconds=2)
        # Shielded: once the insert is sent, the episode must also reach the memory, whatever becomes of the request.
        stored = await asyncio.shield(asyncio.ensure_future(self._keep_alone(opened, checked)))
        summary = checked.summary
        return EpisodeReceipt(episode_id=summary.episode_id, stored=stored, transitions=summary.transitions)

    async def refuse(self, run: str, error: ServiceError) -> None:
        """Count an episode that was refused before it could be read."""
        await self._events.reject(run, error, None)

    async def _in_stage(self, opened: OpenRun, stage: str) -> OpenRun:
        """The run in a later stage, which another replica may have entered.

        Raises
        ------
        RejectedError
            When nobody has.
        """
        await self._registry.look(opened)
        opened = await self._registry.open(opened.run)
        if opened.position(stage) > opened.description.stage:
            detail = f"stage is {stage!r}, the run is in {opened.stage_name!r}: it cannot be from the future"
            error = RejectedError(detail, field="stage", reason="future_stage")
            await self._events.reject(opened.run, error, None)
            raise error
        return opened

    async def _check(self, opened: OpenRun, body: bytes, *, compressed: bool) -> Checked:
        def work() -> Checked:
            return check_body(body, compressed=compressed, run=opened, limit_bytes=self._limit_bytes)

        try:
            checked = await asyncio.get_running_loop().run_in_executor(self._threads, work)
            await self._check_policy_version(opened, checked)
        except BrokenEpisodeError as broken:
            await self._events.reject(opened.run, broken.refusal, broken.metadata)
            raise broken.refusal from None
        return checked

    async def _check_policy_version(self, opened: OpenRun, checked: Checked) -> None:
        version = checked.summary.policy_version
        if version > opened.heads.step:
            await self._registry.look(opened)  # another replica may have moved the head
        if version > (head := opened.heads.step):
            detail = f"policy_version is {version}, the newest policy is {head}: it cannot be from the future"
            error = RejectedError(detail, field="policy_version", reason="future_policy")
            await self._events.reject(opened.run, error, None)
            raise error

    async def _keep_alone(self, opened: OpenRun, checked: Checked) -> bool:
        """One post of an episode at a time: two could not tell which of them has stored it, and admit it twice."""
        key = key_of(opened.run, checked.summary.episode_id)
        async with self._one_at_a_time(key):
            checked.summary.stored_at = self._clock.now()
            return await self._keep(opened, checked)

    async def _keep(self, opened: OpenRun, checked: Checked) -> bool:
        summary = checked.summary
        if (repeated := opened.repeats(checked.played)) is not None:
            summary.findings.append(repeated)
        key = key_of(opened.run, summary.episode_id)
        # Noted before the insert, so that the follower does not take in what is on its way here.
        mine = opened.recent.add(key)
        try:
            stored = await self._episodes.insert(summary, checked.content)
        except BaseException:
            if mine:
                opened.recent.discard(key)
                opened.unsettle()
            self._unanswered[key] = None
            if len(self._unanswered) > MAX_UNANSWERED:
                del self._unanswered[next(iter(self._unanswered))]
            raise
        if stored or key in self._unanswered:  # not what another attempt, or another replica, has counted
            self._count(opened, summary)
        self._unanswered.pop(key, None)
        if not stored:
            if mine:
                opened.recent.discard(key)  # kept by an attempt whose answer was lost: the follower takes it in
                opened.unsettle()
            await self._compare(opened, checked)
            if summary.role == "evaluate":  # the attempt that stored it may have ended before it was noted, or judged
                await self._evaluations.note(opened, summary.policy_version, summary.stage, again=True)
                await self._curriculum.consider(opened, summary)
            return False
        if opened.closing.is_set():  # a new stage has begun meanwhile, and its memory finds the episode in the database
            return True
        await opened.admit(summary, checked.transitions)
        await self._events.found(summary)
        if summary.role == "evaluate":
            await self._evaluations.note(opened, summary.policy_version, summary.stage)
        await self._curriculum.consider(opened, summary)
        self._retention.consider(opened)
        return True

    def _count(self, opened: OpenRun, summary: EpisodeSummary) -> None:
        """Count what this replica has stored; the others take it in, too, and sums over replicas count it once."""
        metrics, labels = self._metrics, (opened.run, summary.role)
        metrics.inserted_episodes.labels(*labels).inc()
        metrics.inserted_steps.labels(*labels).inc(summary.steps)
        if summary.role != "evaluate":
            metrics.inserted_items.labels(opened.run).inc(summary.transitions)
            metrics.policy_lag.labels(opened.run).observe(max(0, opened.heads.step - summary.policy_version))

    async def _compare(self, opened: OpenRun, checked: Checked) -> None:
        summary = checked.summary
        self._metrics.duplicates.labels(opened.run).inc()
        digest = await self._episodes.digest(opened.run, summary.episode_id)
        if digest not in (None, summary.content_digest):
            detail = (
                f"episode {summary.episode_id} is stored with digest {digest}, this body has {summary.content_digest}"
            )
            raise EpisodeConflictError(detail, field="episode_id", reason="differs")
