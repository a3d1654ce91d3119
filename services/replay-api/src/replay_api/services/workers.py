"""Who plays: reports of the rollout workers, in memory, and what they count."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass

from gaitfleet.episode import Role
from gaitfleet.wire import WorkerReport, WorkerStatus
from replay_api.constants import MAX_WORKERS_PER_RUN, WORKER_EXPIRY_SECONDS
from replay_api.errors import LimitedError

MAX_KINDS = 100
"""Kinds of failures that are counted apart; workers name them."""

OTHER = "other"


@dataclass(frozen=True, slots=True)
class _Heard:
    report: WorkerReport
    at: float


class WorkerBook:
    """Workers of one run that were heard of lately, and simulator failures by kind since the start."""

    def __init__(self) -> None:
        self._heard: dict[str, _Heard] = {}
        self._left: dict[str, dict[str, int]] = {}  # failures last told by workers that have left, and may come back
        self._failures: Counter[str] = Counter()

    def report(self, worker: str, report: WorkerReport) -> bool:
        """Take a report; True when the worker is new.

        Raises
        ------
        LimitedError
            When there are too many workers to remember.
        """
        before = self._heard.get(worker)
        if before is None and len(self._heard) >= MAX_WORKERS_PER_RUN:
            detail = f"{MAX_WORKERS_PER_RUN} workers are known already"
            raise LimitedError(detail, reason="workers", retry_after_seconds=WORKER_EXPIRY_SECONDS)
        known = self._left.pop(worker, {}) if before is None else before.report.failures
        for kind, count in report.failures.items():
            then = known.get(kind, 0)
            if kind not in self._failures and len(self._failures) >= MAX_KINDS:
                kind = OTHER  # noqa: PLW2901
            self._failures[kind] += count - then if count >= then else count  # a smaller count: the worker began anew
        self._heard[worker] = _Heard(report, time.monotonic())
        return before is None

    def leave(self, worker: str) -> bool:
        """Forget a worker but for what it has told of failures; False when it was not known."""
        heard = self._heard.pop(worker, None)
        if heard is None:
            return False
        if heard.report.failures:
            self._left[worker] = heard.report.failures
        if len(self._left) > MAX_WORKERS_PER_RUN:
            del self._left[next(iter(self._left))]
        return True

    def silent(self) -> list[str]:
        """Those that were not heard of for too long."""
        limit = time.monotonic() - WORKER_EXPIRY_SECONDS
        return [worker for worker, heard in self._heard.items() if heard.at < limit]

    @property
    def failures(self) -> dict[str, int]:
        """Simulator failures by kind."""
        return dict(self._failures)

    def roles(self) -> Counter[Role]:
        """How many of those heard of lately play for what."""
        return Counter(heard.report.role for heard in self._heard.values())

    def policies(self, role: Role) -> set[int]:
        """What those heard of lately act with that play for this."""
        return {heard.report.policy_version for heard in self._heard.values() if heard.report.role == role}

    def statuses(self) -> list[WorkerStatus]:
        """Those heard of lately, by name."""
        now = time.monotonic()
        return [
            WorkerStatus(worker=worker, seconds_since_report=now - heard.at, **heard.report.model_dump())
            for worker, heard in sorted(self._heard.items())
        ]
