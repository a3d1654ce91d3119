"""`gaitfleet analyze`: what the episodes of a run hold."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from gaitfleet.analysis.collect import Analysis, collect
from gaitfleet.analysis.tables import finding_rows, overview
from gaitfleet.command.inspection import DEFAULT_URL, Url, connected, print_table
from gaitfleet.errors import AnalysisError, GaitfleetError

PAGE = "analysis.html"


def analyze(
    run: Annotated[str | None, typer.Argument(envvar="GAITFLEET_RUN", help="Id of the run; unset: the newest.")] = None,
    output: Annotated[Path | None, typer.Option(help="Write analysis.html and the pictures as PNG here.")] = None,
    episodes: Annotated[
        int, typer.Option(min=1, max=100_000, help="Newest episodes of which every row is read.")
    ] = 300,
    history: Annotated[
        int, typer.Option(min=1, max=100_000, help="Newest episodes whose summaries are shown over time.")
    ] = 5000,
    url: Url = DEFAULT_URL,
) -> None:
    """Check a run's episodes and show returns, reward terms, endings, findings, column ranges, actions and lengths."""
    try:
        if output is not None:
            _need_the_extra()
        with connected(url, run) as client, Console(stderr=True).status("reading episodes") as state:
            analysis = collect(
                client, episodes=episodes, history=history, progress=lambda read: state.update(f"read {read} episodes")
            )
        for table in (_overview(analysis), _findings(analysis), _outliers(analysis)):
            print_table(table)
        if output is not None:
            _write(analysis, output)
    except GaitfleetError as error:
        typer.echo(f"gaitfleet: {error}", err=True)
        raise typer.Exit(1) from None


def _need_the_extra() -> None:
    try:
        import gaitfleet.analysis.page  # noqa: F401
    except ModuleNotFoundError as error:
        raise AnalysisError(f"pictures need {error.name}, of an extra: pip install 'gaitfleet[analyze]'") from None


def _write(analysis: Analysis, output: Path) -> None:
    from gaitfleet.analysis.figures import pictures
    from gaitfleet.analysis.page import render

    drawn = pictures(analysis)
    try:
        output.mkdir(parents=True, exist_ok=True)
        for picture in drawn:
            (output / f"{picture.name}.png").write_bytes(picture.png)
        (output / PAGE).write_text(render(analysis, drawn), encoding="utf-8")
    except OSError as error:
        raise AnalysisError(f"{output}: {error.strerror}") from None
    typer.echo(f"{output / PAGE}, and {len(drawn)} pictures beside it")


def _overview(analysis: Analysis) -> Table:
    table = _table(f"run {analysis.run.run}")
    table.show_header = False
    for name, text in overview(analysis):
        table.add_row(name, text)
    return table


def _findings(analysis: Analysis) -> Table:
    table = _table("findings")
    table.show_header = False
    rows = finding_rows(analysis)
    for row in rows:
        count = f"{row.episodes} episode{'s' * (row.episodes != 1)}"
        table.add_row(row.name, f"{count}. {row.says} Worst: {row.detail}; episode {row.example}")
    if not rows:
        table.add_row("none", "every episode that was read passes every check")
    return table


def _outliers(analysis: Analysis) -> Table:
    """Columns beyond their limits; without any, those that came nearest."""
    columns = [column for column in analysis.columns if column.beyond]
    limited = [column for column in analysis.columns if column.used is not None]
    if not columns:
        columns = sorted(limited, key=lambda column: -(column.used or 0))[:5]
    beyond = sum(column.beyond > 0 for column in analysis.columns)
    table = _table(f"columns beyond their limits: {beyond}" if beyond else "no column beyond its limits; the nearest")
    for name in ("", "unit", "minimum", "1 %", "median", "99 %", "maximum", "limits", "beyond"):
        table.add_column(name, justify="left" if name in ("", "unit") else "right", no_wrap=True)
    for column in columns:
        numbers = (f"{value:.4g}" for value in (column.minimum, *column.quantiles, column.maximum))
        table.add_row(column.name, column.unit, *numbers, f"{column.low:.4g} … {column.high:.4g}", str(column.beyond))
    return table


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
