"""Writing the history, without letting anybody flood it."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from gaitfleet.episode import EpisodeMetadata
from replay_api.constants import REJECTION_EVENTS_PER_MINUTE
from replay_api.errors import ServiceError, UnavailableError
from replay_api.metrics import Metrics
from replay_api.storage.events import EventStore


class EventLog:
    """The history of every run, and the counts of refused episodes."""

    def __init__(self, store: EventStore, metrics: Metrics) -> None:
        self._store = store
        self._metrics = metrics
        self._rejected: dict[str, Counter[str]] = {}
        self._window: dict[tuple[str, str], tuple[int, int, int]] = {}  # (run, reason): minute, kept, left out

    async def add(self, run: str, kind: str, **data: Any) -> None:
        """Keep an event."""
        await self._store.append(run, kind, data)

    def rejected(self, run: str) -> dict[str, int]:
        """Refused episodes by reason, since the start."""
        return dict(self._rejected.get(run, {}))

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
