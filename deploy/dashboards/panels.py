"""Building blocks of the Grafana dashboards: panels, variables, and a layout that fills rows from the left."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
COLUMNS = 24
"""Width of Grafana's grid."""

HERE = 'namespace=~"$namespace"'
RUN = f'{HERE}, run_id=~"$run"'
"""Matchers of every selector: the second where the metric has the label `run_id`."""

GREEN, YELLOW, RED, BLUE = "green", "yellow", "red", "blue"


@dataclass(frozen=True)
class Query:
    """A PromQL expression and what its lines are called."""

    expression: str
    legend: str = ""


@dataclass(frozen=True)
class Panel:
    """One panel.

    Parameters
    ----------
    kind
        `timeseries`, `stat` or `heatmap`.
    thresholds
        Colour from each value on; the first one has no value.
    stacked
        Whether the lines are piled up.
    decimals
        Digits after the point; None lets Grafana choose.
    """

    title: str
    description: str
    queries: tuple[Query, ...]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8
    height: int = 7
    thresholds: tuple[tuple[str, float | None], ...] = ((GREEN, None),)
    stacked: bool = False
    minimum: float | None = None
    maximum: float | None = None
    decimals: int | None = None


@dataclass(frozen=True)
class Row:
    """Panels below a heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Dashboard:
    """One dashboard; `name` is its file's name and, with a prefix, its fixed uid."""

    name: str
    title: str
    description: str
    rows: tuple[Row, ...]
    by_run: bool = True
    annotations: tuple[Json, ...] = field(default=())


def stat(title: str, description: str, expression: str, unit: str = "short", **more: Any) -> Panel:
    """A number with the line of its history behind it."""
    return Panel(title, description, (Query(expression),), unit, "stat", **({"width": 3, "height": 4} | more))


def lines(title: str, description: str, *queries: tuple[str, str], unit: str = "short", **more: Any) -> Panel:
    """Lines over time, given as pairs of expression and legend."""
    return Panel(title, description, tuple(Query(*query) for query in queries), unit, **more)


def heatmap(title: str, description: str, metric: str, matchers: str, unit: str = "short", **more: Any) -> Panel:
    """How the values of a histogram are distributed over time."""
    expression = f"sum by (le) (increase({metric}_bucket{{{matchers}}}[$__rate_interval]))"
    return Panel(title, description, (Query(expression, "{{le}}"),), unit, "heatmap", **more)


def quantiles(metric: str, matchers: str, *quantile: float, by: str = "") -> tuple[tuple[str, str], ...]:
    """Quantiles of a histogram, as expressions and legends."""
    grouping = f"le, {by}" if by else "le"
    rate = f"sum by ({grouping}) (rate({metric}_bucket{{{matchers}}}[$__rate_interval]))"
    name = f" {{{{{by}}}}}" if by else ""
    return tuple((f"histogram_quantile({q}, {rate})", f"p{q * 100:g}{name}") for q in quantile)


def rate(metric: str, matchers: str, by: str = "") -> str:
    """Events per second, added up over pods."""
    grouping = f" by ({by})" if by else ""
    return f"sum{grouping} (rate({metric}{{{matchers}}}[$__rate_interval]))"


def build(dashboard: Dashboard) -> Json:
    """The dashboard as Grafana imports it."""
    panels: list[Json] = []
    y = 0
    for row in dashboard.rows:
        panels.append({"type": "row", "title": row.title, "collapsed": False, "panels": [], "gridPos": _grid(0, y)})
        y += 1
        x = tallest = 0
        for panel in row.panels:
            if x + panel.width > COLUMNS:
                x, y, tallest = 0, y + tallest, 0
            panels.append(_panel(panel, x, y))
            x, tallest = x + panel.width, max(tallest, panel.height)
        y += tallest
    for number, panel_json in enumerate(panels, 1):
        panel_json["id"] = number
    return {
        "uid": f"gaitfleet-{dashboard.name}",
        "title": f"gaitfleet / {dashboard.title}",
        "description": dashboard.description,
        "tags": ["gaitfleet"],
        "schemaVersion": 39,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "links": [_link()],
        "templating": {"list": _variables(dashboard.by_run)},
        "annotations": {"list": list(dashboard.annotations)},
        "panels": panels,
    }


def annotation(name: str, expression: str, colour: str) -> Json:
    """A mark on every panel where the expression has a value."""
    return {
        "name": name,
        "datasource": DATASOURCE,
        "enable": True,
        "iconColor": colour,
        "expr": expression,
        "titleFormat": name,
        "step": "30s",
    }


def _grid(x: int, y: int, width: int = COLUMNS, height: int = 1) -> Json:
    return {"x": x, "y": y, "w": width, "h": height}


def _panel(panel: Panel, x: int, y: int) -> Json:
    defaults: Json = {
        "unit": panel.unit,
        "color": {"mode": "thresholds" if panel.kind == "stat" else "palette-classic"},
        "thresholds": {
            "mode": "absolute",
            "steps": [{"color": colour, "value": value} for colour, value in panel.thresholds],
        },
    }
    limits = {"min": panel.minimum, "max": panel.maximum, "decimals": panel.decimals}
    defaults |= {name: value for name, value in limits.items() if value is not None}
    options: Json = {}
    if panel.kind == "timeseries":
        defaults["custom"] = _line_style(panel)
        options = {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    elif panel.kind == "stat":
        options = {
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "graphMode": "area",
            "colorMode": "value",
            "textMode": "auto",
        }
    else:
        options = {
            "calculate": False,
            "cellGap": 1,
            "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64},
            "yAxis": {"unit": panel.unit, "axisPlacement": "left"},
        }
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "gridPos": _grid(x, y, panel.width, panel.height),
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": [_target(panel, query, chr(ord("A") + n)) for n, query in enumerate(panel.queries)],
    }


def _line_style(panel: Panel) -> Json:
    limited = len(panel.thresholds) > 1
    return {
        "drawStyle": "line",
        "lineWidth": 2,
        "fillOpacity": 30 if panel.stacked else 8,
        "showPoints": "never",
        "spanNulls": 120_000,
        "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
        "thresholdsStyle": {"mode": "dashed" if limited else "off"},
    }


def _target(panel: Panel, query: Query, letter: str) -> Json:
    return {
        "refId": letter,
        "datasource": DATASOURCE,
        "expr": query.expression,
        "legendFormat": query.legend or panel.title,
        "range": True,
        "format": "heatmap" if panel.kind == "heatmap" else "time_series",
    }


def _variables(by_run: bool) -> list[Json]:
    source = {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "hide": 0}
    variables = [source, _labels("namespace", "Namespace", "label_values(rl_build_info, namespace)")]
    if by_run:
        query = 'label_values(rl_replay_ready{namespace=~"$namespace"}, run_id)'
        variables.append(_labels("run", "Run", query))
    return variables


def _labels(name: str, label: str, query: str) -> Json:
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
        "hide": 0,
    }


def _link() -> Json:
    return {
        "title": "gaitfleet",
        "type": "dashboards",
        "tags": ["gaitfleet"],
        "asDropdown": True,
        "includeVars": True,
        "keepTime": True,
    }
