"""Every metric that the services export, read from their registries."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from replay_api.metrics import Metrics as ReplayApiMetrics
from replay_api.services.run_metrics import RunCollector
from rollout.metrics import Metrics as RolloutMetrics
from trainer.metrics import TrainerMetrics


@dataclass(frozen=True)
class Exported:
    """One family, under the name that its samples have (`…_total` for counters)."""

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str


def registries() -> dict[str, CollectorRegistry]:
    """The registry of each service, as it is made at start."""
    api = ReplayApiMetrics()
    api.state_prices({}, 1.0)
    api.registry.register(RunCollector(list))
    trainer = CollectorRegistry()
    TrainerMetrics("run", trainer)
    return {"replay-api": api.registry, "rollout": RolloutMetrics("run").registry, "trainer": trainer}


def exported(registry: CollectorRegistry) -> Iterator[Exported]:
    """The families of one registry, by name, without those of the process that every library exports."""
    found = []
    for collector, names in registry._collector_to_names.items():
        labels = {name: tuple(getattr(collector, "_labelnames", ())) for name in names}
        for family in collector.collect():
            name = f"{family.name}_total" if family.type == "counter" else family.name
            if re.match(r"rl_", name):
                own = labels.get(family.name) or tuple(getattr(family, "_labelnames", ()))
                found.append(Exported(name, family.type, own, family.documentation.rstrip(".")))
    return iter(sorted(found, key=lambda metric: metric.name))


def all_metrics() -> dict[str, Exported]:
    """Every metric of every service, by name."""
    return {metric.name: metric for registry in registries().values() for metric in exported(registry)}


def tables() -> str:
    """The tables of docs/metrics.md."""
    parts = []
    for service, registry in registries().items():
        rows = [f"### {service}", "", "| metric | type | labels | meaning |", "|---|---|---|---|"]
        for metric in exported(registry):
            labels = ", ".join(f"`{label}`" for label in metric.labels) or "–"
            rows.append(f"| `{metric.name}` | {metric.kind} | {labels} | {metric.meaning} |")
        parts.append("\n".join(rows))
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    print(tables(), end="")
