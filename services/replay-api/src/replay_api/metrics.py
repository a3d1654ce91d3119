"""What Prometheus sees. Labels are bounded: runs that exist, roles, reasons, route templates; never an episode or a
step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)

from gaitfleet.episode import Role
from gaitfleet.quality.rules import RULES
from replay_api import __version__
from replay_api.settings import Component

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_LAG_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_LAG_STEPS = (0, 100, 300, 1000, 3000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
_RUN = ["run_id"]


class Metrics:
    """Every metric of one application; several applications in one process do not meet."""

    def __init__(self) -> None:
        # a second series for every counter, which nobody asks for
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._build_api()
        self._build_replay()
        self._build_storage()
        self._build_checkpoints()
        self._build_cost()

    def open_run(self, run: str) -> None:
        """Begin every counter of a run at zero: a counter that appears with its first event has no increase then."""
        for counter in (
            *(self.inserted_items, self.ingested_bytes, self.sampled_items, self.retired_items),
            *(self.duplicates, self.corrupt_episodes),
        ):
            counter.labels(run)
        for role in get_args(Role):
            self.inserted_steps.labels(run, role)
            self.inserted_episodes.labels(run, role)
        for side in ("insert", "sample"):
            self.limited.labels(run, side)
        for finding in RULES:
            self.findings.labels(run, finding)
        self.blocked_seconds.labels(run, "sample")
        self.rejected.labels(run, "other")
        for result in ("ok", "repeated", "fenced", "error"):
            self.publications.labels(run, result)
        for code in ("200", "304", "404", "503"):
            self.polls.labels(run, code)

    def state_prices(self, dollars_per_hour: Mapping[Component, float], budget_dollars_per_hour: float | None) -> None:
        """What one pod of each component costs, and what all of them may."""
        for component, price in dollars_per_hour.items():
            self._price.labels(component).set(price)
        if budget_dollars_per_hour is not None:
            self._gauge("rl_cost_budget_dollars_per_hour", "What all pods together may cost.", []).set(
                budget_dollars_per_hour
            )

    def _counter(self, name: str, text: str, labels: list[str]) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, labels: list[str]) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, labels: list[str], buckets: tuple[float, ...] = _SECONDS) -> Histogram:
        return Histogram(name, text, labels, buckets=buckets, registry=self.registry)

    def _build_api(self) -> None:
        self.requests = self._counter("rl_api_requests_total", "Requests answered.", ["route", "method", "code"])
        self.request_seconds = self._histogram(
            "rl_api_request_duration_seconds", "From the first byte in to the last byte out.", ["route", "method"]
        )
        self.inflight = self._gauge("rl_api_inflight_requests", "Requests being worked on.", [])
        self.loop_lag = self._histogram(
            "rl_api_event_loop_lag_seconds", "How late a timer of the event loop ran, every 5 ms.", [], _LAG_SECONDS
        )
        self.loop_busy = self._histogram(
            "rl_api_event_loop_busy_seconds",
            "How much of the event loop's lag is processor time of this process; the rest is waiting for a core.",
            [],
            _LAG_SECONDS,
        )
        build = self._gauge("rl_build_info", "1 for every process; the version is a label.", ["component", "version"])
        build.labels("replay-api", __version__).set(1)

    def _build_replay(self) -> None:
        self.inserted_items = self._counter("rl_replay_inserted_items_total", "Transitions stored for learning.", _RUN)
        self.inserted_steps = self._counter(
            "rl_replay_inserted_steps_total", "Simulator steps stored.", ["run_id", "role"]
        )
        self.inserted_episodes = self._counter(
            "rl_replay_inserted_episodes_total", "Episodes stored.", ["run_id", "role"]
        )
        self.ingested_bytes = self._counter("rl_replay_ingested_bytes_total", "Episode bytes received, as sent.", _RUN)
        self.sampled_items = self._counter("rl_replay_sampled_items_total", "Transitions sampled.", _RUN)
        self.retired_items = self._counter(
            "rl_replay_retired_items_total", "Transitions deleted from the database.", _RUN
        )
        self.duplicates = self._counter("rl_replay_duplicate_episodes_total", "Episodes posted again.", _RUN)
        self.rejected = self._counter("rl_replay_rejected_episodes_total", "Episodes refused.", ["run_id", "reason"])
        self.findings = self._counter(
            "rl_replay_findings_total", "Stored episodes that did not pass a check.", ["run_id", "finding"]
        )
        self.policy_lag = self._histogram(
            "rl_replay_insert_policy_lag_steps", "Head minus the policy that acted, at insertion.", _RUN, _LAG_STEPS
        )
        self.evaluation_return = self._gauge(
            "rl_eval_return_mean", "Mean official score of the latest policy whose evaluation finished.", _RUN
        )
        self.blocked_seconds = self._counter(
            "rl_replay_limiter_blocked_seconds_total", "Time that requests waited for the limiter.", ["run_id", "side"]
        )
        self.limited = self._counter(
            "rl_replay_limited_requests_total", "Requests that the limiter answered 429.", ["run_id", "reason"]
        )
        self.rebuild_seconds = self._gauge(
            "rl_replay_index_rebuild_seconds", "Filling the memory took this long.", _RUN
        )
        self.corrupt_episodes = self._counter(
            "rl_replay_corrupt_episodes_total", "Stored episodes that cannot be read, or learned from.", _RUN
        )

    def _build_storage(self) -> None:
        self.mongo_seconds = self._histogram("rl_mongo_command_duration_seconds", "MongoDB commands.", ["command"])
        self.mongo_errors = self._counter(
            "rl_mongo_errors_total",
            "MongoDB commands that failed; `heartbeat`: a server that does not answer at all.",
            ["command"],
        )
        self.mongo_checked_out = self._gauge("rl_mongo_pool_checked_out", "MongoDB connections in use.", [])
        self.s3_seconds = self._histogram("rl_s3_request_duration_seconds", "Checkpoint store requests.", ["op"])
        self.s3_bytes = self._counter("rl_s3_bytes_total", "Checkpoint store bytes.", ["direction"])
        self.s3_errors = self._counter("rl_s3_errors_total", "Checkpoint store requests that failed.", ["op", "code"])
        self.gc_deleted = self._counter(
            "rl_gc_deleted_objects_total", "Objects of the checkpoint store deleted.", ["reason"]
        )
        self.gc_orphans = self._gauge("rl_gc_orphan_objects", "Objects without a record at the last look.", _RUN)

    def _build_checkpoints(self) -> None:
        self.publications = self._counter(
            "rl_checkpoint_publish_total",
            "Publications: `ok`, `repeated` (the same bytes again), `fenced`, `error`.",
            ["run_id", "result"],
        )
        self.publish_seconds = self._histogram(
            "rl_checkpoint_publish_duration_seconds", "Publications that succeeded.", _RUN
        )
        self.polls = self._counter(
            "rl_checkpoint_polls_total",
            "Requests for the policy, by answer: 200, 304, 404 before the first, 503 while the store is away.",
            ["run_id", "code"],
        )

    def _build_cost(self) -> None:
        self._price = self._gauge(
            "rl_cost_price_dollars_per_hour", "Price of one pod, as the settings say.", ["component"]
        )
