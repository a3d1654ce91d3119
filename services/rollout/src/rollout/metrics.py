"""What Prometheus sees of a rollout worker. Simulator processes hand their timings over with each episode."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, get_args

import numpy as np
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from gaitfleet.episode import EndingReason, Role
from gaitfleet.trajectory import Float32, Trajectory
from rollout import __version__

Phase = Literal["simulate", "policy", "record", "post", "wait"]

DROPPED = (
    *("repeated", "preempted_evaluation", "partial"),
    *("empty", "spool_failed", "damaged", "rejected", "conflict"),
)
"""Why an episode is dropped; the steps are known of the first three, which the supervisor drops."""

REPLACED = (
    *("episodes", "memory", "process_died", "step_timeout", "startup_timeout"),
    *("startup", "reset", "integrator", "non_finite", "exception"),
)
"""Why a simulator process is replaced: what the supervisor sees, then what the process says itself."""

RETURN_BUCKETS = (
    *(-5000.0, -2000.0, -1000.0, -500.0, -200.0, -100.0, -50.0, -20.0, -10.0, 0.0),
    *(10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 1500.0, 2000.0, 2500.0, 3000.0, 5000.0, 8000.0, 9000.0, 10000.0),
)
"""Simulator returns: round 1 ends at 2,700, round 2 at 10,000, Pendulum begins at -1,600."""

LENGTH_BUCKETS = (5, 10, 20, 50, 75, 100, 150, 200, 250, 300, 400, 500, 750, 1000, 1600, 5000, 10000)
"""Simulator steps: a round-1 fall is at 60 to 100, the time limits are at 300 and 1,000."""

STEP_BUCKETS = (
    *(1e-5, 1e-4, 1e-3, 2e-3, 4e-3, 6e-3, 8e-3),
    *(1e-2, 1.5e-2, 2e-2, 3e-2, 5e-2, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 15.0),
)
"""Seconds: an OpenSim step of 10 ms takes 8 to 20 ms, in extreme poses up to several seconds."""


class StepHistogram(Collector):
    """A histogram that takes a whole episode's values at once; the library's own takes them one by one."""

    def __init__(self, name: str, documentation: str, labels: dict[str, str], buckets: tuple[float, ...]) -> None:
        self._name, self._documentation, self._labels = name, documentation, labels
        self._bounds = buckets
        self._counts = np.zeros(len(buckets) + 1, np.int64)
        self._sum = 0.0

    def observe_all(self, values: Float32) -> None:
        """Count every value."""
        positions = np.searchsorted(self._bounds, values, side="left")
        self._counts = self._counts + np.bincount(positions, minlength=len(self._counts))
        self._sum += float(values.sum(dtype=np.float64))

    def collect(self) -> Iterator[HistogramMetricFamily]:
        bounds = [*(str(bound) for bound in self._bounds), "+Inf"]
        family = HistogramMetricFamily(self._name, self._documentation, labels=list(self._labels))
        cumulative = np.cumsum(self._counts).tolist()
        family.add_metric(list(self._labels.values()), list(zip(bounds, cumulative, strict=True)), self._sum)
        yield family


class Metrics:
    """The worker's metrics, all with the labels `run_id` and `role`.

    Parameters
    ----------
    run
        Id of the run.
    role
        What the worker plays for.
    simulators
        Processes it runs.
    """

    def __init__(self, run: str, role: Role = "train", simulators: int = 1) -> None:
        # a second series for every counter, which nobody asks for
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._labels = (run, role)
        text = "1 for every process; the version is a label."
        build = Gauge("rl_build_info", text, ["component", "version"], registry=self.registry)
        build.labels("evaluation" if role == "evaluate" else "rollout", __version__).set(1)
        self._gauge("simulators", "Simulator processes that the worker runs").set(simulators)
        self._env_steps = self._counter("env_steps", "Simulator steps of finished episodes").labels(*self._labels)
        self._episodes = self._counter("episodes", "Episodes by why they ended", "outcome")
        self._phases = self._counter("phase_seconds", "Wall-clock seconds by what they were spent on", "phase")
        self._retries = self._counter("post_retries", "Posts that must be repeated", "reason")
        self._dropped = self._counter("episodes_dropped", "Episodes that will not reach the replay", "reason")
        self._resets = self._counter("sim_resets", "Simulator processes replaced", "reason")
        self._lost_steps = self._counter("steps_lost", "Simulator steps of dropped episodes", "reason")
        self._sigterms = self._counter("sigterm", "Stop signals received").labels(*self._labels)
        self._spooled = self._gauge("spool_episodes", "Episodes on disk that wait to be posted")
        self._realtime = self._gauge("sim_realtime_ratio", "Simulated seconds per second of the latest episode")
        self._policy_version = self._gauge("policy_version", "Policy of the latest episode; 0 for none")
        self._policy_age = self._gauge("policy_age_seconds", "Since the newest policy arrived; 0 before the first")
        self._drain = self._gauge("sigterm_drain_seconds", "From the stop signal until all was posted or spooled")
        self._returns = self._histogram("episode_return", "Sum of the simulator's own rewards", RETURN_BUCKETS)
        self._lengths = self._histogram("episode_length_steps", "Simulator steps per episode", LENGTH_BUCKETS)
        self._step_seconds = StepHistogram(
            "rl_rollout_sim_step_seconds",
            "Wall-clock time of one simulator step",
            {"run_id": run, "role": role},
            STEP_BUCKETS,
        )
        self.registry.register(self._step_seconds)
        self._begin_at_zero()

    def _begin_at_zero(self) -> None:
        """A counter that appears with its first event has no increase then."""
        for counter, values in (
            (self._episodes, get_args(EndingReason)),
            (self._phases, get_args(Phase)),
            (self._retries, ("limited", "forbidden", "not_found", "unavailable", "error")),
            (self._dropped, DROPPED),
            (self._lost_steps, DROPPED[:3]),
            (self._resets, REPLACED),
        ):
            for value in values:
                counter.labels(*self._labels, value)

    def episode(self, outcome: str, trajectory: Trajectory, step_seconds: Float32) -> None:
        """An episode is over, and will be posted."""
        self._episodes.labels(*self._labels, outcome).inc()
        self._env_steps.inc(trajectory.steps)
        self._returns.observe(float(trajectory.reward.sum(dtype=np.float64)))
        self._lengths.observe(trajectory.steps)
        self._step_seconds.observe_all(step_seconds)

    def phase(self, phase: Phase, seconds: float) -> None:
        """Time was spent."""
        self._phases.labels(*self._labels, phase).inc(seconds)

    def realtime(self, ratio: float) -> None:
        """How fast the latest episode was simulated."""
        self._realtime.set(ratio)

    def post_retry(self, reason: str) -> None:
        """A post must be repeated."""
        self._retries.labels(*self._labels, reason).inc()

    def dropped(self, reason: str, steps: int = 0) -> None:
        """An episode will not reach the replay; so many of its steps are lost, where that is known."""
        self._dropped.labels(*self._labels, reason).inc()
        if steps:
            self._lost_steps.labels(*self._labels, reason).inc(steps)

    def simulator_replaced(self, reason: str) -> None:
        """A simulator process was replaced."""
        self._resets.labels(*self._labels, reason).inc()

    def spooled(self, episodes: int) -> None:
        """Episodes in the spool."""
        self._spooled.set(episodes)

    def acting(self, policy_version: int) -> None:
        """An episode begins with this policy."""
        self._policy_version.set(policy_version)

    def watch_policy_age(self, age_seconds: Callable[[], float]) -> None:
        """Ask this whenever the metrics are read."""
        self._policy_age.set_function(age_seconds)

    def stop_signal(self) -> None:
        """SIGTERM or SIGINT arrived."""
        self._sigterms.inc()

    def drained(self, seconds: float) -> None:
        """The worker has stopped."""
        self._drain.set(seconds)

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(f"rl_rollout_{name}", documentation, ("run_id", "role", *labels), registry=self.registry)

    def _gauge(self, name: str, documentation: str) -> Gauge:
        gauge = Gauge(f"rl_rollout_{name}", documentation, ("run_id", "role"), registry=self.registry)
        return gauge.labels(*self._labels)

    def _histogram(self, name: str, documentation: str, buckets: tuple[float, ...]) -> Histogram:
        labels = ("run_id", "role")
        histogram = Histogram(f"rl_rollout_{name}", documentation, labels, buckets=buckets, registry=self.registry)
        return histogram.labels(*self._labels)
