"""One HTML page of an analysis that needs nothing but itself: pictures are in it, nothing is fetched, everything is
escaped."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from importlib.resources import files

from jinja2 import Environment, StrictUndefined

from gaitfleet.analysis.collect import Analysis
from gaitfleet.analysis.columns import ColumnRange
from gaitfleet.analysis.figures import Picture
from gaitfleet.analysis.tables import finding_rows, overview
from gaitfleet.quality import RULES


def render(analysis: Analysis, drawn: list[Picture]) -> str:
    """The page."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["number"] = number
    template = environment.from_string(files("gaitfleet.analysis").joinpath("page.html.j2").read_text("utf-8"))
    return template.render(
        run=analysis.run.run,
        made_at=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        overview=overview(analysis),
        findings=finding_rows(analysis),
        silent=[name for name in RULES if name not in analysis.findings],
        outliers=[column for column in analysis.columns if column.beyond],
        columns=analysis.columns,
        limited=sum(column.limited for column in analysis.columns),
        pictures=[(picture, base64.b64encode(picture.png).decode()) for picture in drawn],
        limits=_limits,
    )


def number(value: float) -> str:
    """Four significant digits, with a real minus."""
    return f"{value:.4g}".replace("-", "\u2212").replace("inf", "\u221e")


def _limits(column: ColumnRange) -> str:
    return f"{number(column.low)} … {number(column.high)}" if column.limited else ""
