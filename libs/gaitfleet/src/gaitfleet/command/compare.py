"""`gaitfleet compare`: learning curves of several runs."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from gaitfleet.command.inspection import DEFAULT_URL, Json, Url, check_run, connected, print_table
from gaitfleet.command.learning_curve import LearningCurve, band_of, read_curves
from gaitfleet.command.plotting import plot_curves


@dataclass(frozen=True)
class Row:
    """What the table says of a group."""

    group: str
    runs: int
    environment_steps: float
    final: float
    final_deviation: float
    best: float
    mean_over_steps: float


def compare(
    runs: Annotated[list[str], typer.Argument(help="Ids of the runs.")],
    url: Url = DEFAULT_URL,
    by_seed: Annotated[
        bool, typer.Option("--by-seed", help="NAME-seed0, NAME-seed1, … are one group; else every run is its own.")
    ] = False,
    png: Annotated[Path, typer.Option(help="Where the plot goes.")] = Path("compare.png"),
    as_json: Json = False,
) -> None:
    """Learning curves: evaluation scores by environment steps, with a band of one deviation over a group's runs.

    A run with a curriculum has a curve for each stage, because their scores do not compare. Steps of training episodes
    that `retention` has deleted count; policies that were evaluated before the oldest one left are left out.
    """
    groups: dict[str, list[LearningCurve]] = {}
    with connected(url, runs[0]) as client:
        for run in runs:
            check_run(run)
        for run in runs:
            with client.of_run(run) as one:
                for curve in read_curves(one, run):
                    groups.setdefault(group_of(curve, by_seed=by_seed), []).append(curve)
        plot_curves(groups, png)
    for curve in chain.from_iterable(groups.values()):
        if curve.left_out:
            typer.echo(f"gaitfleet compare: {_left_out(curve)}", err=True)
    rows = [summary(name, curves) for name, curves in groups.items()]
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        print_table(_table(rows))
        typer.echo(f"plot: {png}")


def group_of(curve: LearningCurve, *, by_seed: bool) -> str:
    """The run's name, for groups by seed without the seed at its end, and the stage."""
    name = re.sub(r"-seed\d+$", "", curve.run) if by_seed else curve.run
    return f"{name}, {curve.stage}" if curve.stage else name


def summary(name: str, curves: Sequence[LearningCurve]) -> Row:
    """Figures of a group, where all its runs have scores."""
    band = band_of(curves)
    return Row(
        group=name,
        runs=len(curves),
        environment_steps=float(band.environment_steps[-1]),
        final=float(band.mean[-1]),
        final_deviation=float(band.deviation[-1]),
        best=float(band.mean.max()),
        mean_over_steps=float(band.mean.mean()),
    )


def _left_out(curve: LearningCurve) -> str:
    policies = "1 policy was" if curve.left_out == 1 else f"{curve.left_out} policies were"
    return f"{group_of(curve, by_seed=False)}: {policies} evaluated before the oldest training episode that is left"


def _table(rows: Sequence[Row]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("group", "runs", "steps", "final", "±", "best", "mean over steps"):
        table.add_column(name, justify="left" if name == "group" else "right")
    for row in rows:
        figures = (row.final, row.final_deviation, row.best, row.mean_over_steps)
        shown = (f"{figure:,.1f}" for figure in figures)
        table.add_row(row.group, str(row.runs), f"{row.environment_steps:,.0f}", *shown)
    return table
