"""What the services export keeps Prometheus' conventions and is documented."""

from __future__ import annotations

import re
from pathlib import Path

from tests.observability.exported import exported, registries, tables

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"
BOUNDED = {
    *("run_id", "role", "outcome", "phase", "reason", "finding", "name", "result", "code", "side"),
    *("route", "method", "command", "op", "direction", "component", "version", "source"),
}
"""Labels whose values are few: what the code says, runs that exist, or commands and codes of MongoDB, S3 and HTTP."""


def test_every_metric_is_documented_as_it_is() -> None:
    """The tables are printed by `python -m tests.observability.exported`."""
    assert tables() in DOCUMENT.read_text(encoding="utf-8")


def test_no_two_services_mean_different_things_by_one_name() -> None:
    seen: dict[str, str] = {}
    for service, registry in registries().items():
        for metric in exported(registry):
            if metric.name != "rl_build_info":
                assert seen.setdefault(metric.name, service) == service


def test_names_and_labels_keep_the_conventions() -> None:
    for registry in registries().values():
        for metric in exported(registry):
            assert re.fullmatch(r"rl_[a-z0-9]+(_[a-z0-9]+)+", metric.name)
            assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
            assert not re.search(r"_(ms|millis|minutes|mb|kb|percent)(_|$)", metric.name), metric.name
            assert metric.meaning
            assert set(metric.labels) <= BOUNDED, metric.name
