"""Which runs there are, and which of them this process holds in memory."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from concurrent.futures import Executor
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from gaitfleet.errors import ExperimentError
from gaitfleet.experiment import Experiment
from gaitfleet.task.stages import stage_tasks
from gaitfleet.wire import Limits, LimitsChange, RunDescription
from replay_api.constants import (
    FOLLOW_OVERLAP_SECONDS,
    FOLLOW_SECONDS,
    LATE_INTERVAL_SECONDS,
    LATE_OVERLAP_SECONDS,
    WATCH_SECONDS,
)
from replay_api.errors import ExperimentConflictError, RejectedError, RunMissingError, UnavailableError
from replay_api.metrics import Metrics
from replay_api.services import counting, loading
from replay_api.services.demonstrations import shown
from replay_api.services.event_log import EventLog
from replay_api.services.following import Following
from replay_api.services.limiter import LimiterRule
from replay_api.services.open_run import OpenRun
from replay_api.services.opening import Stores, count_deleted, prepared
from replay_api.services.warm_starts import check_warm_start
from replay_api.settings import Settings
from replay_api.storage.mongo import now
from replay_api.storage.runs import RunRecord

PREPARATIONS = 4
"""Times that a run is read at most until another replica deletes nothing meanwhile: reading a large one takes longer
than it takes to delete some of it."""

_log = logging.getLogger(__name__)


class RunRegistry:
    """Creates runs, opens them when they are used, and gives their memory back when nobody does."""

    def __init__(
        self, stores: Stores, events: EventLog, metrics: Metrics, settings: Settings, threads: Executor
    ) -> None:
        self._stores = stores
        self._events = events
        self._metrics = metrics
        self._settings = settings
        self._threads = threads
        self._following = Following(stores.replicas, stores.episodes, stores.clock, settings.max_decompressed_bytes)
        self._held: set[str] = set()
        self._open: dict[str, OpenRun] = {}
        self._opening: dict[str, asyncio.Task[OpenRun]] = {}

    @property
    def opened(self) -> list[OpenRun]:
        """Runs that are in memory."""
        return list(self._open.values())

    async def create(self, run: str, experiment: Experiment) -> tuple[RunDescription, bool]:
        """Create a run; its description, and whether it is new.

        Raises
        ------
        RejectedError
            When the experiment's task cannot be made, or what it takes from other runs cannot be had.
        ExperimentConflictError
            When the run exists with another experiment.
        """
        description = await self.taking(self.describe(run, experiment))
        if await self._stores.runs.insert(description):
            if (lost := self._open.get(run)) is not None:
                self._give_up(lost)
            await self.tell_start(description)
            return description, True
        existing = (await self.record(run)).description
        if existing.experiment_hash != experiment.hash:
            hashes = f"{existing.experiment_hash}, this one is {experiment.hash}"
            detail = f"run {run!r} has the experiment {hashes}: choose another id"
            raise ExperimentConflictError(detail, field="run", reason="experiment")
        await self.tell_start(existing, again=True)
        return existing, False

    async def taking(self, new: RunDescription) -> RunDescription:
        """A run with what it takes from others; as it is when there is one of its name already.

        Raises
        ------
        RejectedError
            When its warm start or its demonstrations cannot be had.
        """
        experiment, stores = new.experiment, self._stores
        if await stores.runs.get(new.run) is not None:
            return new
        if experiment.warm_start is not None:
            await check_warm_start(new, experiment.warm_start, stores.runs, stores.records)
        if experiment.demonstrations is None:
            return new
        parents = await shown(new, experiment.demonstrations, stores.runs, stores.episodes, stores.clock)
        return new.model_copy(update={"demonstrations": parents})

    async def tell_start(self, description: RunDescription, *, again: bool = False) -> None:
        """Write the first events of a new run; `again`: those that its creation did not come to."""
        experiment = description.experiment
        told: dict[str, dict[str, Any]] = {"run_started": {"experiment_hash": description.experiment_hash}}
        if description.demonstrations:
            transitions = sum(parent.transitions for parent in description.demonstrations)
            runs = [parent.run for parent in description.demonstrations]
            told["demonstrations_shown"] = {"runs": runs, "transitions": transitions}
        if experiment.curriculum is not None:
            told["stage_entered"] = {"stage": experiment.stage_names[0], "index": 0}
        for kind, data in told.items():
            await self._events.complete(description.run, kind, {}, again=again, **data)

    def describe(self, run: str, experiment: Experiment) -> RunDescription:
        """A run that does not exist yet.

        Raises
        ------
        RejectedError
            When the task of one of the experiment's stages cannot be made.
        """
        try:
            task = stage_tasks(experiment)[0].description
        except ExperimentError as error:
            raise RejectedError(str(error), field="task", reason="experiment") from None
        return RunDescription(
            run=run,
            experiment=experiment,
            experiment_hash=experiment.hash,
            layout_hash=task.state_layout.hash,
            observation_hash=task.observation_hash,
            created_at=now(),
        )

    async def record(self, run: str) -> RunRecord:
        """A run's document.

        Raises
        ------
        RunMissingError
            When there is none.
        """
        record = await self._stores.runs.get(run)
        if record is None:
            raise RunMissingError(run)
        return record

    async def open(self, run: str) -> OpenRun:
        """A run in memory; opened by the first who asks, while the others wait.

        Raises
        ------
        RunMissingError
            When there is none.
        """
        opened = self._open.get(run)
        if opened is None:
            opened = await asyncio.shield(self._opening.get(run) or self._begin(run, self._open_now(run)))
        opened.used_at = time.monotonic()
        return opened

    def reopen(self, opened: OpenRun) -> None:
        """Hold the run anew, in the stage that its document names; who asks for it meanwhile waits.

        Everything in memory follows from what is stored, so this is how observation and reward of every held
        transition become those of the stage. Episodes that are on their way into the memory that is given up are found
        in the database.
        """
        if self._open.get(opened.run) is opened:
            del self._open[opened.run]
            self._begin(opened.run, self._open_again(opened))

    def _give_up(self, opened: OpenRun) -> None:
        """Forget a run that is not in the database any more; one of its name may have been created since."""
        if self._open.get(opened.run) is opened:
            _log.warning("the database has lost this run; its memory is given back", extra={"run": opened.run})
            del self._open[opened.run]
            opened.flushed, opened.additions.pending = opened.limiter.sampled, 0  # no other run's samples
            opened.closing.set()
            for task in opened.tasks:
                task.cancel()

    def _begin(self, run: str, work: Coroutine[Any, Any, OpenRun]) -> asyncio.Task[OpenRun]:
        opening = self._opening[run] = asyncio.ensure_future(work)

        def done(task: asyncio.Task[OpenRun]) -> None:
            self._opening.pop(run, None)
            if not task.cancelled() and task.exception() is not None:
                _log.warning("the run cannot be opened", extra={"run": run, "error": repr(task.exception())})

        opening.add_done_callback(done)
        return opening

    async def _open_again(self, opened: OpenRun) -> OpenRun:
        await self._close(opened)
        return await self._open_now(opened.run, before=opened)

    async def preload(self) -> None:
        """Open the runs that were in use when the last process ended, but for those that cannot be opened.

        Raises
        ------
        UnavailableError
            When the database does not answer.
        """
        await self._stores.clock.ask()
        since = self._stores.clock.now() - timedelta(seconds=self._settings.preload_active_seconds)
        for description in await self._stores.runs.all():
            await self._preload(description.run, since)

    async def _preload(self, run: str, since: datetime) -> None:
        try:
            record = await self.record(run)
            held = record.lease is not None and record.lease.lease.expires_at >= since
            if held or await self._stores.episodes.keys_since(run, since, limit=1):
                await self.open(run)
        except Exception:  # whatever it is, the others are to be opened; this one is when somebody asks for it
            _log.exception("the run cannot be opened in advance", extra={"run": run})

    async def close(self) -> None:
        """Write what is written behind, and stop."""
        await asyncio.gather(*map(self._close, list(self._open.values())))

    async def close_idle(self) -> None:
        """Give the memory of unused runs back."""
        limit = time.monotonic() - self._settings.cache_idle_seconds
        for opened in list(self._open.values()):
            if opened.used_at < limit and not opened.limiter.limits().waiting_samplers:
                _log.info("nobody uses this run; its memory is given back", extra={"run": opened.run})
                await self._close(opened)

    async def _close(self, opened: OpenRun) -> None:
        self._open.pop(opened.run, None)
        for task in opened.tasks:
            task.cancel()
        opened.closing.set()  # the flusher is not cancelled: an increment cut off might be counted twice
        await asyncio.gather(*opened.tasks, *opened.flusher, return_exceptions=True)
        await opened.heads.close()
        with suppress(UnavailableError):
            await self._stores.runs.end_additions(opened.run, opened.additions.by)

    async def _open_now(self, run: str, before: OpenRun | None = None) -> OpenRun:
        record = await self.record(run)
        await self._following.announce()
        for _ in range(PREPARATIONS):
            plan, opened = await prepared(record, self._stores, self._metrics, self._threads)
            before_it, record = record, await self.record(run)
            # what retention deleted meanwhile is neither in the store nor in the count that this began with
            if record.deleted_transitions == before_it.deleted_transitions:
                break
        else:
            count_deleted(opened, before_it, record)
        if before is not None:  # what waits for a policy goes on waiting, and workers have not left
            opened.heads, opened.workers = before.heads, before.workers
        if run in self._held:  # what was sent to the database before may come there now
            opened.unsettle()
        self._held.add(run)
        opened.heads.follow(record)
        if record.head is not None:  # a crash between the head and its record
            await self._stores.records.put(record.head)
        limit = self._settings.max_decompressed_bytes
        opened.tasks += [
            asyncio.ensure_future(loading.fill(opened, self._stores.episodes, plan.episodes, limit)),
            asyncio.ensure_future(self._watch(opened)),
            asyncio.ensure_future(self._following.keep_announcing()),
        ]
        opened.flusher.append(asyncio.ensure_future(counting.flush_often(opened, self._stores.runs)))
        self._open[run] = opened
        return opened

    async def change_limits(self, opened: OpenRun, change: LimitsChange) -> Limits:
        """Change the limiter, for good.

        Raises
        ------
        RejectedError
            When the limiter could block both sides for ever with these numbers.
        """
        experiment, limiter = opened.description.experiment, opened.limiter
        while True:
            await self.look(opened)
            rule = limiter.rule.changed(change)
            rule.check(experiment.algorithm.batch_size)
            known, credit = opened.record.limits, limiter.credit_for(rule)
            if await self._stores.runs.set_limits(opened.run, known, change, credit=credit):
                break  # otherwise another replica has changed them meanwhile, and this might not go with that
        await self.look(opened)
        await self._events.add(opened.run, "limits_changed", **change.model_dump(exclude_none=True))
        return (await self.open(opened.run)).limiter.limits()

    async def _watch(self, opened: OpenRun) -> None:
        """Follow what other replicas do with this run."""
        looked = late = time.monotonic()
        while True:
            await asyncio.sleep(FOLLOW_SECONDS)
            began = time.monotonic()
            try:
                if began >= late + LATE_INTERVAL_SECONDS:
                    await self._following.search(opened, "late", LATE_OVERLAP_SECONDS)
                    late = began
                else:
                    await self._following.search(opened, "new", FOLLOW_OVERLAP_SECONDS)
                if began >= looked + WATCH_SECONDS:
                    looked = began
                    await self.look(opened)
                    for worker in opened.workers.silent():
                        await self._events.add(opened.run, "worker_left", worker=worker, silent=True)
                        opened.workers.leave(worker)  # not before it is told: the next look goes on here
            except UnavailableError:
                continue  # logged where it happened; the next look tries again
            except RunMissingError:
                return  # given up
            except Exception:
                _log.exception("following a run failed", extra={"run": opened.run})

    async def look(self, opened: OpenRun) -> None:
        """Read the run's document and take over what has changed.

        Raises
        ------
        RunMissingError
            When the database has lost the run, whose memory is then given back.
        """
        record = await self._stores.runs.get(opened.run)
        if record is None or record.description.created_at != opened.description.created_at:
            self._give_up(opened)
            raise RunMissingError(opened.run)
        opened.record = record
        if record.description.stage != opened.description.stage:
            self.reopen(opened)  # another replica has moved it
            return
        opened.limiter.sampled += max(0, record.sampled - opened.flushed)  # another replica's
        opened.flushed = max(opened.flushed, record.sampled)
        rule = LimiterRule.of(opened.description.experiment, record.limits)
        if (rule, record.credit) != (opened.limiter.rule, opened.limiter.credit):
            opened.limiter.change(rule, record.credit)
        opened.heads.follow(record)
