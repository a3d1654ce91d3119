"""A fleet in simulated time: workers, a trainer behind the samples-per-insert limiter, and Kubernetes' autoscaler.

The autoscaler follows the rendered ScaledObject: its limits, policies and windows. What it is fed is the recording
rule `rl:rollout_desired_replicas`, computed here as the rule computes it; a test holds this against Prometheus.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

TICK = 15
"""Seconds; also the autoscaler's period and the scrape interval."""

WINDOW = 300 // TICK
START_SECONDS = 60
"""From the autoscaler's decision to a worker's first insert."""

TOLERANCE = 0.1
"""Kubernetes leaves the number of pods alone while the metric is this close to it."""

Sample = dict[str, float | None]


@dataclass
class Fleet:
    """Workers and a trainer.

    Parameters
    ----------
    demand
        Transitions a second that the trainer can sample, by time in seconds; 0 when it is away.
    rate
        Transitions a second that one worker inserts.
    jitter
        Relative deviation of that rate, drawn each tick.
    """

    demand: Callable[[int], float]
    rate: float = 2.0
    samples_per_insert: float = 100.0
    min_size: float = 1000.0
    jitter: float = 0.0
    workers: int = 1
    inserted: float = 0.0
    sampled: float = 0.0
    waited: float = 0.0
    simulated: float = 0.0
    history: list[Sample] = field(default_factory=list)
    _started: deque[tuple[int, int]] = field(default_factory=deque)
    _random: random.Random = field(default_factory=lambda: random.Random(1))

    def scale(self, workers: int, now: int) -> None:
        """New workers work after a while, superfluous ones go at once."""
        if workers > self.workers:
            self._started.append((now, workers - self.workers))
        self.workers = workers

    def tick(self, now: int) -> None:
        """A tick of work, then a scrape."""
        starting = sum(count for since, count in self._started if now - since < START_SECONDS)
        active = max(0, self.workers - starting)
        self.simulated += active * TICK
        self.inserted += active * self.rate * TICK * self._random.uniform(1 - self.jitter, 1 + self.jitter)
        demand = self.demand(now)
        if demand:
            owed = (self.inserted - self.min_size) * self.samples_per_insert - self.sampled
            sampled = min(demand * TICK, max(0.0, owed)) if self.inserted >= self.min_size else 0.0
            self.sampled += sampled
            self.waited += TICK * (1 - sampled / (demand * TICK))
        self.history.append(
            {
                "inserted": self.inserted,
                "sampled": self.sampled,
                "simulated": self.simulated,
                "workers": self.workers,  # scraped from their start on
                "waited": self.waited if demand else None,
                "held": 1.0 if demand else None,
            }
        )

    def desired(self) -> float:
        """`rl:rollout_desired_replicas`, by the formula of rules/recording.yaml."""
        newest = self.history[-1]
        if newest["held"] is None:
            return 0.0
        wait_share = self._rate("waited")
        demand = self._rate("sampled") / max(1 - wait_share, 0.05)
        recent = [sample["workers"] or 0.0 for sample in self.history[-WINDOW - 1 :]]
        capacity = self._rate("inserted") / (sum(recent) / len(recent)) if sum(recent) else 0.0
        workers = newest["workers"] or 0.0
        if capacity == 0 or demand == 0:
            return workers
        needed = demand / self.samples_per_insert / capacity
        return workers if 0.95 * needed <= workers <= 1.15 * needed + 1 else math.ceil(needed)

    def _rate(self, name: str) -> float:
        values = [value for sample in self.history[-WINDOW - 1 :] if (value := sample[name]) is not None]
        return 0.0 if len(values) < 2 else (values[-1] - values[0]) / ((len(values) - 1) * TICK)


class Autoscaler:
    """Kubernetes' horizontal autoscaler, as far as it matters here.

    Parameters
    ----------
    scaled_object
        The spec of the ScaledObject.
    """

    def __init__(self, scaled_object: dict[str, Any]) -> None:
        self.least: int = scaled_object["minReplicaCount"]
        self.most: int = scaled_object["maxReplicaCount"]
        self._behavior = scaled_object["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
        self._wanted: list[tuple[int, int]] = []
        self._sizes: list[tuple[int, int]] = []

    def decide(self, metric: float, current: int, now: int) -> int:
        """The new number of workers."""
        wanted = current if abs(metric / current - 1) <= TOLERANCE else math.ceil(metric)
        wanted = min(self.most, max(self.least, wanted))
        self._wanted.append((now, wanted))
        self._sizes.append((now, current))
        window = self._behavior["scaleDown"]["stabilizationWindowSeconds"]
        wanted = max(wanted, min(current, max(size for at, size in self._wanted if at > now - window)))
        if wanted > current:
            wanted = min(wanted, max(self._bounds("scaleUp", current, now, +1)))
        elif wanted < current:
            wanted = max(wanted, min(self._bounds("scaleDown", current, now, -1)))
        return wanted

    def _bounds(self, direction: str, current: int, now: int, sign: int) -> list[int]:
        bounds = []
        for policy in self._behavior[direction]["policies"]:
            sizes = [size for at, size in self._sizes if at > now - policy["periodSeconds"]]
            base = (min if sign > 0 else max)([*sizes, current])
            amount = policy["value"] * base / 100 if policy["type"] == "Percent" else policy["value"]
            bounds.append(math.ceil(base + amount) if sign > 0 else math.floor(base - amount))
        return bounds


def simulate(fleet: Fleet, scaled_object: dict[str, Any], minutes: int) -> list[int]:
    """The number of workers, a value a tick."""
    autoscaler = Autoscaler(scaled_object)
    sizes = []
    for now in range(0, minutes * 60, TICK):
        fleet.tick(now)
        fleet.scale(autoscaler.decide(fleet.desired(), fleet.workers, now), now)
        sizes.append(fleet.workers)
    return sizes
