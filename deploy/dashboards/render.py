"""Draws a dashboard of the chart with data from a Prometheus, for documents; it is no Grafana.

    python -m deploy.dashboards.render overview --prometheus http://127.0.0.1:9090 --minutes 30 --output overview.png

Titles, units, colours of thresholds, sizes and places of the panels are those of the dashboard's JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import matplotlib.pyplot as plt
from matplotlib import dates
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator

Json = dict[str, Any]

DIRECTORY = Path(__file__).parents[1] / "helm" / "gaitfleet" / "dashboards"
BACKGROUND, PANEL, BORDER, TEXT, FAINT = "#111217", "#181b1f", "#2a2d34", "#ccccdc", "#8e8e9e"
PALETTE = ("#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#5794f2", "#b877d9", "#705da0", "#37872d", "#fade2a")
COLOURS = {"green": "#73bf69", "yellow": "#fade2a", "red": "#f2495c", "blue": "#5794f2"}
CELL_WIDTH, CELL_HEIGHT = 0.70, 0.36
"""Inches of a cell of Grafana's grid."""


class Source:
    """Where the data is, and which part of it is drawn."""

    def __init__(self, url: str, *, end: float, minutes: float, run: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=60.0)
        self.end, self.seconds, self._run = end, 60 * minutes, run

    def series(self, target: Json) -> list[tuple[str, list[datetime], list[float]]]:
        """Legend, times and values of every line of a query."""
        step = max(10.0, self.seconds / 200)
        window = f"{max(60, int(4 * step))}s"
        expression = target["expr"].replace("$__rate_interval", window)
        expression = expression.replace("$namespace", ".*").replace("$run", self._run)
        span = {"start": self.end - self.seconds, "end": self.end, "step": step}
        answer = self._client.get("/api/v1/query_range", params={"query": expression, **span}).raise_for_status()
        found = []
        for result in answer.json()["data"]["result"]:
            name = target["legendFormat"]
            for label in re.findall(r"{{(\w+)}}", name):
                name = name.replace(f"{{{{{label}}}}}", result["metric"].get(label, ""))
            points = [(datetime.fromtimestamp(at), float(value)) for at, value in result["values"]]
            found.append((name.strip(), [at for at, _ in points], [value for _, value in points]))
        return sorted(found)


def render(dashboard: Json, source: Source) -> Figure:
    """The dashboard as a figure."""
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in dashboard["panels"])
    figure = plt.figure(figsize=(24 * CELL_WIDTH, (height + 1.4) * CELL_HEIGHT), facecolor=BACKGROUND)
    rows = height + 1.4
    figure.text(0.006, 1 - 0.75 / rows, dashboard["title"], color=TEXT, fontsize=14, weight="bold", va="center")
    begin, end = (datetime.fromtimestamp(at) for at in (source.end - source.seconds, source.end))
    figure.text(
        0.994, 1 - 0.75 / rows, f"{begin:%H:%M} to {end:%H:%M}", color=FAINT, fontsize=10, ha="right", va="center"
    )
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        left, bottom = place["x"] / 24, 1 - (place["y"] + place["h"] + 1.4) / rows
        box = (left + 0.002, bottom + 0.06 / rows, place["w"] / 24 - 0.004, (place["h"] - 0.15) / rows)
        if panel["type"] == "row":
            figure.text(
                left + 0.006, bottom + 0.45 / rows, f"⌄ {panel['title']}", color=TEXT, fontsize=10.5, va="center"
            )
            continue
        frame = FancyBboxPatch(box[:2], box[2], box[3], "round,pad=0,rounding_size=0.002", transform=figure.transFigure)
        frame.set(facecolor=PANEL, edgecolor=BORDER, linewidth=0.8)
        figure.add_artist(frame)
        figure.text(box[0] + 0.005, box[1] + box[3] - 0.55 / rows, panel["title"], color=TEXT, fontsize=9, va="center")
        draw = _stat if panel["type"] == "stat" else _lines
        draw(figure, panel, box, rows, source)
    return figure


def _stat(figure: Figure, panel: Json, box: tuple[float, float, float, float], rows: float, source: Source) -> None:
    found = [one for target in panel["targets"] for one in source.series(target)]
    values = [value for _, _, line in found for value in line if not math.isnan(value)]
    x, y, width, height = box
    if not values:
        figure.text(x + width / 2, y + height / 2, "no data", color=FAINT, fontsize=11, ha="center", va="center")
        return
    colour = _threshold(panel, values[-1])
    figure.text(
        x + width / 2,
        y + height * 0.53,
        _format(panel, values[-1]),
        color=colour,
        fontsize=19,
        ha="center",
        va="center",
    )
    axes = _axes(figure, (x + 0.003, y + 0.05 / rows, width - 0.006, height * 0.26))
    axes.axis("off")
    _, times, line = found[0]
    axes.plot(times, line, color=colour, linewidth=1)
    low, high = min(values), max(values)
    axes.fill_between(times, line, low - 0.05 * (high - low), color=colour, alpha=0.18, linewidth=0)


def _lines(figure: Figure, panel: Json, box: tuple[float, float, float, float], rows: float, source: Source) -> None:
    x, y, width, height = box
    axes = _axes(figure, (x + 0.034, y + 1.75 / rows, width - 0.042, height - 3.05 / rows))
    found = [one for target in panel["targets"] for one in source.series(target)]
    colours = [PALETTE[n % len(PALETTE)] for n in range(len(found))]
    if panel["fieldConfig"]["defaults"]["custom"]["stacking"]["mode"] == "normal":
        times = sorted({at for _, line, _ in found for at in line})
        stack = [[dict(zip(line, values, strict=True)).get(at, 0.0) for at in times] for _, line, values in found]
        axes.stackplot(times, stack, colors=colours, alpha=0.45, linewidth=0)
    for (_, times, values), colour in zip(found, colours, strict=True):
        if panel["fieldConfig"]["defaults"]["custom"]["stacking"]["mode"] != "normal":
            axes.plot(times, values, color=colour, linewidth=1.4)
    _style(axes, panel, source)
    handles = [plt.Line2D([], [], color=colour, linewidth=3) for colour in colours]
    names = [name for name, _, _ in found]
    axes.legend(
        handles,
        names,
        loc="upper left",
        bbox_to_anchor=(x + 0.004, y + 0.95 / rows),
        bbox_transform=figure.transFigure,
        ncols=6,
        fontsize=7.5,
        frameon=False,
        labelcolor=FAINT,
        handlelength=1.2,
        columnspacing=1.2,
        borderaxespad=0,
    )


def _axes(figure: Figure, box: tuple[float, float, float, float]) -> Axes:
    axes: Axes = figure.add_axes(box)
    axes.set(facecolor=PANEL, zorder=2)
    return axes


def _style(axes: Axes, panel: Json, source: Source) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    begin, end = (datetime.fromtimestamp(at) for at in (source.end - source.seconds, source.end))
    axes.set_xlim(begin, end)
    if "min" in defaults:
        axes.set_ylim(bottom=defaults["min"])
    axes.set_axisbelow(True)
    axes.grid(color=BORDER, linewidth=0.6)
    axes.tick_params(colors=FAINT, labelsize=7.5, length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.xaxis.set_major_locator(dates.AutoDateLocator(maxticks=6))
    axes.xaxis.set_major_formatter(dates.DateFormatter("%H:%M"))
    binary = defaults["unit"] in {"bytes", "Bps"} and axes.get_ylim()[1] > 0
    step = 2.0 ** round(math.log2(axes.get_ylim()[1] / 4)) if binary else 0.0
    axes.yaxis.set_major_locator(MultipleLocator(step) if binary else MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _format(panel, value, axis=True)))


def _threshold(panel: Json, value: float) -> str:
    colour = "green"
    for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]:
        if step["value"] is None or value >= step["value"]:
            colour = step["color"]
    return COLOURS[colour]


def _format(panel: Json, value: float, *, axis: bool = False) -> str:
    """A value in the unit of its panel, as Grafana writes it."""
    defaults = panel["fieldConfig"]["defaults"]
    unit, decimals = defaults["unit"], defaults.get("decimals")
    if unit == "percentunit":
        return f"{100 * value:.3g} %"
    if unit == "currencyUSD":
        return f"${value:,.2f}"
    if unit == "s" and value >= 90:
        return f"{value / 60:.3g} min"
    if unit in {"bytes", "Bps"}:
        for name in ("B", "KiB", "MiB", "GiB"):
            if abs(value) < 1024 or name == "GiB":
                return f"{value:.3g} {name}"
            value /= 1024
    suffix = {"s": " s", "reqps": " req/s", "cps": "/s", "ops": " ops/s"}.get(unit, "")
    if decimals is None or axis:
        return f"{value:,.4g}{suffix}" if abs(value) < 10_000 else f"{value:,.0f}{suffix}"
    return f"{value:,.{decimals}f}{suffix}"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Draw a dashboard with data from a Prometheus.")
    parser.add_argument("dashboard", help="name of a dashboard, for example overview")
    parser.add_argument("--prometheus", required=True, help="base URL")
    parser.add_argument("--minutes", type=float, default=30.0, help="how much is drawn")
    parser.add_argument("--end", type=float, default=time.time(), help="Unix time of the right edge; default now")
    parser.add_argument("--run", default=".*", help="pattern of runs")
    parser.add_argument("--output", type=Path, required=True, help="PNG file")
    options = parser.parse_args()
    plt.rcParams["font.family"] = "DejaVu Sans"
    dashboard = json.loads((DIRECTORY / f"{options.dashboard}.json").read_text(encoding="utf-8"))
    source = Source(options.prometheus, end=options.end, minutes=options.minutes, run=options.run)
    render(dashboard, source).savefig(options.output, dpi=100, facecolor=BACKGROUND)


if __name__ == "__main__":
    main()
