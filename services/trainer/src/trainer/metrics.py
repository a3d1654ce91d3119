"""The trainer's Prometheus metrics. Every one carries the label ``run_id``."""

from __future__ import annotations

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

from trainer import __version__

SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Buckets for the time of a request."""

LAG_STEPS = (0.0, 100.0, 300.0, 1e3, 3e3, 1e4, 3e4, 1e5, 3e5, 1e6, 3e6)
"""Buckets for the age of a policy in updates."""


class TrainerMetrics:
    """All metrics of one trainer.

    Parameters
    ----------
    run
        Value of the label ``run_id``.
    registry
        Where they are registered; tests give their own.
    """

    def __init__(self, run: str, registry: CollectorRegistry = REGISTRY) -> None:
        # a second series for every counter, which nobody asks for
        disable_created_metrics()  # type: ignore[no-untyped-call]

        def counter(name: str, text: str) -> Counter:
            return Counter(name, text, ["run_id"], registry=registry).labels(run)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(name, text, ["run_id"], registry=registry).labels(run)

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(name, text, ["run_id"], registry=registry, buckets=buckets).labels(run)

        self._run = run
        build = Gauge(
            "rl_build_info",
            "1 for every process; the version is a label.",
            ["component", "version"],
            registry=registry,
        )
        build.labels("trainer", __version__).set(1)
        self._loss = Gauge("rl_trainer_loss", "Latest value of each diagnostic.", ["run_id", "name"], registry=registry)
        self._grad_norm = Gauge(
            "rl_trainer_grad_norm", "Norm of each network's latest gradient.", ["run_id", "name"], registry=registry
        )
        self._phase = Counter(
            "rl_trainer_phase_seconds_total",
            "Seconds of the learning thread: waiting for a batch, copying it, computing, starting a publication.",
            ["run_id", "phase"],
            registry=registry,
        )
        self._publish = Counter(
            "rl_trainer_publish_total",
            "Publications as the trainer saw them: `ok`, `fenced`, `error`.",
            ["run_id", "result"],
            registry=registry,
        )
        self._feed_waits = Counter(
            "rl_trainer_feed_waits_total",
            "Sample requests that gave no batch: held back by the limiter, or unavailable.",
            ["run_id", "reason"],
            registry=registry,
        )
        self.updates = counter("rl_trainer_updates_total", "Updates done by this process.")
        self.batch_fetch = histogram(
            "rl_trainer_batch_fetch_seconds", "Time of a sample request that was answered with batches.", SECONDS
        )
        self.prefetched = gauge("rl_trainer_prefetch_batches", "Batches that are ready to be learned from.")
        self.policy_lag = histogram(
            "rl_trainer_sample_policy_lag_steps",
            "Updates between the policy that acted and now, mean of each batch.",
            LAG_STEPS,
        )
        self.priorities_dropped = counter(
            "rl_trainer_priorities_dropped_total", "Batches whose new priorities could not be sent."
        )
        self.priorities_evicted = counter(
            "rl_trainer_priorities_evicted_total",
            "Transitions that had left the memory, or whose batch another replica had sent, when their priority came.",
        )
        self.publish_duration = histogram(
            "rl_trainer_publish_duration_seconds", "Time from snapshot to the API's receipt.", SECONDS
        )
        self.published_step = gauge("rl_trainer_published_step", "Updates at the latest published checkpoint.")
        self.gpu_memory = gauge("rl_trainer_gpu_memory_bytes", "GPU memory held by tensors; 0 on a CPU.")
        self.lease_epoch = gauge("rl_trainer_lease_epoch", "Epoch of the lease.")
        self.lease_held = gauge("rl_trainer_lease_held", "1 while this trainer holds the run's lease.")
        self.nonfinite = counter("rl_trainer_nonfinite_total", "Times that learning was found to have diverged.")
        self._begin_at_zero()

    def _begin_at_zero(self) -> None:
        """A counter that appears with its first event has no increase then."""
        for phase in ("wait_batch", "h2d", "compute", "publish"):
            self.phase(phase)
        for result in ("ok", "fenced", "error"):
            self.publications(result)
        for reason in ("limited", "unavailable"):
            self.feed_waits(reason)

    def loss(self, name: str) -> Gauge:
        """The gauge of one diagnostic."""
        return self._loss.labels(self._run, name)

    def grad_norm(self, name: str) -> Gauge:
        """The gauge of one network's gradient."""
        return self._grad_norm.labels(self._run, name)

    def phase(self, phase: str) -> Counter:
        """Seconds in one phase: ``wait_batch``, ``h2d``, ``compute`` or ``publish``."""
        return self._phase.labels(self._run, phase)

    def publications(self, result: str) -> Counter:
        """Publications that ended ``ok``, ``fenced`` or ``error``."""
        return self._publish.labels(self._run, result)

    def feed_waits(self, reason: str) -> Counter:
        """Sample requests that ended ``limited`` or ``unavailable``."""
        return self._feed_waits.labels(self._run, reason)
