"""Finds what is wrong with a Grafana dashboard, as Grafana's own dashboard-linter does and somewhat beyond."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

from tests.observability.exported import Exported
from tests.observability.promql import OF_COUNTERS, Selector, selectors, substituted

Json = dict[str, Any]

PANELS = {"timeseries", "stat", "gauge", "bargauge", "heatmap", "table", "state-timeline"}
"""Types that current Grafana has; `graph`, `singlestat` and their like are gone."""

WINDOWS = {"$__rate_interval", "1m", "15m", "1h"}
"""Ranges in use: a fixed one must be long, but for annotations, which look at single scrapes."""

PROMETHEUS_OWN = {"ALERTS", "up", "process_cpu_seconds_total", "process_resident_memory_bytes"}


def findings(dashboard: Json, known: Mapping[str, Exported]) -> list[str]:
    """Everything that is wrong with a dashboard; empty when nothing is."""
    return [*_frame(dashboard), *_panels(dashboard, known), *_layout(dashboard)]


def panels(dashboard: Json) -> list[Json]:
    """Every panel that shows something."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def _frame(dashboard: Json) -> Iterator[str]:
    if not re.fullmatch(r"gaitfleet-[a-z-]{3,30}", dashboard.get("uid", "")):
        yield "uid is not fixed"
    if "id" in dashboard:
        yield "has an id, which belongs to one Grafana"
    for name in ("title", "description", "tags", "schemaVersion", "refresh", "timezone"):
        if not dashboard.get(name):
            yield f"has no {name}"
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    sources = [variable for variable in variables.values() if variable["type"] == "datasource"]
    if [source["name"] for source in sources] != ["datasource"]:
        yield "has not exactly one variable `datasource`"
    text = str(dashboard)
    for name, variable in variables.items():
        if f"${name}" not in text and f"${{{name}}}" not in text:
            yield f"variable {name} is not used"
        if variable["type"] == "query" and variable["datasource"]["uid"] != "${datasource}":
            yield f"variable {name} has a fixed data source"
    for name in set(re.findall(r"\$\{?([a-z]\w*)", text)) - set(variables):
        yield f"variable {name} does not exist"


def _panels(dashboard: Json, known: Mapping[str, Exported]) -> Iterator[str]:
    titles = [panel["title"] for panel in panels(dashboard)]
    for panel in panels(dashboard):
        for finding in _panel(panel, known):
            yield f"{panel['title']}: {finding}"
    ids = [panel["id"] for panel in dashboard["panels"]]
    if len(ids) != len(set(ids)):
        yield "two panels have one id"
    if not all(titles):
        yield "a panel has no title"
    for mark in dashboard["annotations"]["list"]:
        for finding in _expression(mark["expr"], known):
            yield f"annotation {mark['name']}: {finding}"


def _panel(panel: Json, known: Mapping[str, Exported]) -> Iterator[str]:
    defaults = panel["fieldConfig"]["defaults"]
    if panel["type"] not in PANELS:
        yield f"type {panel['type']} is not a current one"
    if len(panel.get("description", "")) < 5:
        yield "has no description"
    if not defaults.get("unit"):
        yield "has no unit"
    if not defaults.get("thresholds", {}).get("steps"):
        yield "has no thresholds"
    if not panel["targets"]:
        yield "has no query"
    for target in (panel, *panel["targets"]):
        if target["datasource"].get("uid") != "${datasource}":
            yield "has a fixed data source"
    letters = [target["refId"] for target in panel["targets"]]
    if len(letters) != len(set(letters)):
        yield "two queries have one refId"
    for target in panel["targets"]:
        if not target.get("legendFormat"):
            yield f"{target['refId']} has no legend"
        yield from _expression(target["expr"], known)
        missing = set(re.findall(r"{{(\w+)}}", target["legendFormat"])) - _grouped(target["expr"])
        if missing:
            yield f"the legend names {missing}, which the query does not keep"


def _grouped(expression: str) -> set[str]:
    grouped = re.findall(r"\bby \(([^)]*)\)", expression)
    return {label.strip() for labels in grouped for label in labels.split(",")}


def _expression(expression: str, known: Mapping[str, Exported]) -> Iterator[str]:
    try:
        found = selectors(substituted(expression))
    except ValueError as error:
        yield f"cannot be parsed: {error}"
        return
    for window in re.findall(r"\[([^\]:]+)", expression):
        if window not in WINDOWS:
            yield f"range {window} fits neither the scrape interval nor a long look"
    if re.search(r"histogram_quantile\((?!0\.\d+, sum by \(le[^)]*\) \(rate\()", expression):
        yield "a quantile is not one of a rate summed by le"
    if re.search(r"_bucket", expression) and not re.search(r"by \(le", expression):
        yield "buckets are added up without le"
    for selector in found:
        yield from _selector(selector, known)


def _selector(selector: Selector, known: Mapping[str, Exported]) -> Iterator[str]:
    base = re.sub(r"_(bucket|sum|count)$", "", selector.metric)
    metric = known.get(selector.metric) or known.get(base)
    if metric is None:
        if selector.metric not in PROMETHEUS_OWN:
            yield f"{selector.metric} does not exist"
        return
    counts = selector.metric.endswith("_total") or (metric.kind == "histogram" and selector.metric != metric.name)
    if counts and selector.function not in OF_COUNTERS:
        yield f"{selector.metric} counts, and is shown raw"
    if not counts and selector.function in {"rate", "increase"}:
        yield f"{selector.metric} does not count, but its rate is taken"
    matched = {name for name, _ in selector.matchers}
    if "namespace" not in matched and selector.metric != "rl_build_info":
        yield f"{selector.metric} is not limited to the namespace"
    if "run_id" in metric.labels and "run_id" not in matched:
        yield f"{selector.metric} is not limited to the run"
    unknown = matched - set(metric.labels) - {"namespace"}
    if unknown:
        yield f"{selector.metric} has no labels {unknown}"


def _layout(dashboard: Json) -> Iterator[str]:
    places = [(panel["title"], panel["gridPos"]) for panel in dashboard["panels"]]
    for title, place in places:
        if place["x"] < 0 or place["x"] + place["w"] > 24:
            yield f"{title}: leaves the grid"
    for (one, a), (other, b) in combinations(places, 2):
        apart = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        if not apart and not (a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]):
            yield f"{one} and {other} overlap"
