"""Gauges that are read when Prometheus asks, instead of set whenever they change."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from gaitfleet.episode import Role
from replay_api.services.cache import TIMES_SAMPLED_BOUNDS
from replay_api.services.open_run import OpenRun

Reader = Callable[[OpenRun], float | None]


def _age(run: OpenRun) -> float | None:
    stored_at = run.cache.oldest_stored_at()
    return None if stored_at is None else max(0.0, time.time() - stored_at)


_GAUGES: tuple[tuple[str, str, Reader], ...] = (
    ("rl_replay_items", "Transitions in memory.", lambda run: run.cache.transitions),
    ("rl_replay_capacity_items", "Transitions that fit.", lambda run: run.cache.capacity),
    (
        "rl_replay_bytes",
        "Memory of the transitions.",
        lambda run: sum(cache.nbytes for cache in (run.cache, *(source.cache for source in run.sources))),
    ),
    ("rl_replay_oldest_item_age_seconds", "Age of the oldest transition in memory.", _age),
    ("rl_replay_spi_target_ratio", "Samples per insert asked for.", lambda run: run.limiter.rule.samples_per_insert),
    (
        "rl_replay_spi_error_items",
        "Samples owed beyond the offset.",
        lambda run: run.limiter.balance - run.limiter.rule.offset,
    ),
    (
        "rl_replay_limiter_waiting_requests",
        "Sample requests that wait.",
        lambda run: run.limiter.limits().waiting_samplers,
    ),
    ("rl_replay_ready", "1 when stored episodes are loaded.", lambda run: float(not run.loading)),
    (
        "rl_eval_return_best",
        "Mean official score of the best checkpoint.",
        lambda run: None if run.record.best is None else run.record.best.evaluation_return,
    ),
    (
        "rl_checkpoint_published_timestamp_seconds",
        "When the head last moved.",
        lambda run: None if run.record.head is None else run.record.head.published_at.timestamp(),
    ),
    (
        "rl_checkpoint_step",
        "Step of the newest checkpoint.",
        lambda run: None if run.record.head is None else run.record.head.step,
    ),
    (
        "rl_checkpoint_bytes",
        "Size of the newest checkpoint.",
        lambda run: None if run.record.head is None else run.record.head.size_bytes,
    ),
    (
        "rl_curriculum_stage",
        "Position of the stage that the run is in, from 0; absent without a curriculum.",
        lambda run: None if run.description.experiment.curriculum is None else run.description.stage,
    ),
    (
        "rl_replay_reward_weight_ratio",
        "Weight of the present reward; below 1 that of the stage before is blended into it.",
        lambda run: run.reward_weight,
    ),
    (
        "rl_checkpoint_lease_epoch",
        "Epoch of the run's lease: one more with every start of a trainer.",
        lambda run: run.record.epoch,
    ),
)


class RunCollector(Collector):
    """Gauges of every open run."""

    def __init__(self, runs: Callable[[], Iterable[OpenRun]]) -> None:
        self._runs = runs

    def collect(self) -> Iterator[Metric]:
        runs = list(self._runs())
        for name, text, read in _GAUGES:
            family = GaugeMetricFamily(name, text, labels=["run_id"])
            for run in runs:
                value = read(run)
                if value is not None:
                    family.add_metric([run.run], value)
            yield family
        yield _workers(runs)
        yield _shares(runs)
        yield _returns(runs)
        yield _evicted(runs)
        yield _unsampled(runs)
        yield _times_sampled(runs)


def _workers(runs: Iterable[OpenRun]) -> Metric:
    family = GaugeMetricFamily(
        "rl_replay_workers", "Workers heard of in the last half minute.", labels=["run_id", "role"]
    )
    for run in runs:
        heard = run.workers.roles()
        for role in get_args(Role):
            family.add_metric([run.run, role], heard[role])
    return family


def _shares(runs: Iterable[OpenRun]) -> Metric:
    text = "Share of every batch that comes from a source: the run itself, the stage before, demonstrations."
    family = GaugeMetricFamily("rl_replay_batch_share_ratio", text, labels=["run_id", "source"])
    for run in runs:
        shares = {source.name: source.share for source in run.sources if source.cache.transitions}
        for name, share in {"run": 1.0 - sum(shares.values()), **shares}.items():
            family.add_metric([run.run, name], share)
    return family


def _returns(runs: Iterable[OpenRun]) -> Metric:
    family = GaugeMetricFamily(
        "rl_replay_return_mean", "Mean official score of the latest episodes stored.", labels=["run_id", "role"]
    )
    for run in runs:
        for role, returns in run.tally.returns().items():
            family.add_metric([run.run, role], returns.mean_simulator_return)
    return family


def _evicted(runs: Iterable[OpenRun]) -> Metric:
    family = CounterMetricFamily(
        "rl_replay_evicted_items", "Transitions that left the memory.", labels=["run_id", "reason"]
    )
    for run in runs:
        family.add_metric([run.run, "capacity"], run.cache.evictions.transitions)
    return family


def _unsampled(runs: Iterable[OpenRun]) -> Metric:
    text = "Transitions that left the memory and were never sampled."
    family = CounterMetricFamily("rl_replay_evicted_unsampled_items", text, labels=["run_id"])
    for run in runs:
        family.add_metric([run.run], run.cache.evictions.unsampled)
    return family


def _times_sampled(runs: Iterable[OpenRun]) -> Metric:
    family = HistogramMetricFamily(
        "rl_replay_item_times_sampled",
        "How often a transition was sampled before it left the memory.",
        labels=["run_id"],
    )
    for run in runs:
        counts = run.cache.times_sampled_at_eviction
        total = 0
        buckets = []
        for bound, count in zip((*map(float, TIMES_SAMPLED_BOUNDS), "+Inf"), counts.tolist(), strict=True):
            total += count
            buckets.append((str(bound), float(total)))
        family.add_metric([run.run], buckets=buckets, sum_value=run.cache.times_sampled_sum)
    return family
