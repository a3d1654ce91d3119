"""Writing the history, without letting anybody flood it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any

from gaitfleet.episode import EpisodeMetadata
from gaitfleet.wire import EpisodeSummary, Event
from replay_api.constants import MAX_WORKERS_PER_RUN, REJECTION_EVENTS_PER_MINUTE, TELL_INTERVAL_SECONDS, TELL_SECONDS
from replay_api.errors import ServiceError, UnavailableError
from replay_api.metrics import Metrics
from replay_api.services.background import Background
from replay_api.storage.events import EventStore


class EventLog:
    """The history of every run, and the counts of refused episodes and of findings."""

    def __init__(self, store: EventStore, background: Background, metrics: Metrics) -> None:
        self._store = store
        self._background = background
        self._metrics = metrics
        self._rejected: dict[str, Counter[str]] = {}
        self._found: dict[str, Counter[str]] = {}
        self._found_of_worker: dict[str, Counter[tuple[str, str]]] = {}
        self._window: dict[tuple[str, str], tuple[int, int, int]] = {}  # (run, reason): minute, kept, left out

    async def add(self, run: str, kind: str, **data: Any) -> None:
        """Keep an event.

        Raises
        ------
        UnavailableError
            When the database does not. What is told is done already: whoever asks for it again must find the event
            missing.
        """
        await self._store.append(self._store.event(run, kind, data))

    async def complete(self, run: str, kind: str, known: Mapping[str, Any], *, again: bool, **more: Any) -> None:
        """Keep an event of what was asked for; where that comes `again`, only if the attempt before did not come to it.

        Parameters
        ----------
        known
            Particulars by which the event of that attempt is known.
        more
            Its other particulars.

        Raises
        ------
        UnavailableError
            When the database does not answer.
        """
        if not again or not await self.has(run, kind, **known):
            await self.add(run, kind, **known, **more)

    async def tell(self, run: str, kind: str, **data: Any) -> None:
        """Keep an event of what is done and cannot be asked for again: where the database does not answer, it is told
        when it does, and lost only if this process ends before."""
        event = self._store.event(run, kind, data)
        try:
            await self._store.append(event)
        except UnavailableError:
            self._background.start(f"event/{run}/{event.sequence}", partial(self._tell_later, event))

    async def _tell_later(self, event: Event) -> None:
        until = time.monotonic() + TELL_SECONDS
        attempts = [event]
        while time.monotonic() < until:
            await asyncio.sleep(TELL_INTERVAL_SECONDS)
            try:
                if not await self._store.kept(attempts):
                    attempts.append(self._store.anew(event))
                    await self._store.append(attempts[-1])
                return
            except UnavailableError:
                continue  # logged where it happened

    async def has(self, run: str, kind: str, **data: Any) -> bool:
        """Whether an event of this kind with these particulars, and maybe others, is in the history."""
        return any(data.items() <= event.data.items() for event in await self._store.page(run, None, kind, None))

    async def newest(self, run: str, kind: str, limit: int) -> list[Event]:
        """The newest events of a kind, newest first."""
        return await self._store.newest(run, kind, limit)

    def rejected(self, run: str) -> dict[str, int]:
        """Refused episodes by reason, since the start."""
        return dict(self._rejected.get(run, {}))

    def findings(self, run: str) -> dict[str, int]:
        """Episodes by finding, since the start."""
        return dict(self._found.get(run, {}))

    async def found(self, summary: EpisodeSummary) -> None:
        """Count the findings of a stored episode; events are kept of a worker's first, tenth, hundredth, … of each."""
        run = summary.run
        by_worker = self._found_of_worker.setdefault(run, Counter())
        for finding in summary.findings:
            self._found.setdefault(run, Counter())[finding.name] += 1
            self._metrics.findings.labels(run, finding.name).inc()
            key = summary.worker, finding.name
            if key not in by_worker and len(by_worker) >= MAX_WORKERS_PER_RUN:
                continue  # whoever invents workers fills neither the memory nor the history
            by_worker[key] += 1
            if not _is_power_of_ten(count := by_worker[key]):
                continue
            data = finding.model_dump(exclude={"name", "count"}) | {"finding": finding.name, "episodes": count}
            data |= {"episode_id": str(summary.episode_id), "worker": summary.worker, "role": summary.role}
            try:
                await self.add(run, "episode_finding", **data)
            except UnavailableError:
                return  # it stands in the episode, too

    async def reject(self, run: str, error: ServiceError, metadata: EpisodeMetadata | None) -> None:
        """Count a refused episode, and keep an event unless this reason had its share this minute."""
        reason = error.reason or "other"
        self._rejected.setdefault(run, Counter())[reason] += 1
        self._metrics.rejected.labels(run, reason).inc()
        minute = int(time.monotonic() // 60)
        then, kept, left_out = self._window.get((run, reason), (minute, 0, 0))
        if then != minute:
            kept = 0
        if kept >= REJECTION_EVENTS_PER_MINUTE:
            self._window[run, reason] = (minute, kept, left_out + 1)
            return
        self._window[run, reason] = (minute, kept + 1, 0)
        data: dict[str, Any] = {"reason": reason, "field": error.field, "detail": error.detail[:500]}
        if metadata is not None:
            data |= {"episode_id": str(metadata.episode_id), "worker": metadata.worker, "role": metadata.role}
        if left_out:
            data["more_of_this_reason_not_kept"] = left_out
        try:
            await self.add(run, "episode_rejected", **data)
        except UnavailableError:
            return  # the refusal holds without the event


def _is_power_of_ten(count: int) -> bool:
    return str(count).strip("0") == "1"
