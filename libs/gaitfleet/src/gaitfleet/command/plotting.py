"""Plots, where the extra `gaitfleet[analyze]` is installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gaitfleet.command.learning_curve import LearningCurve, band_of
from gaitfleet.errors import GaitfleetError

INCHES = (8.0, 4.5)


class NoPlotError(GaitfleetError):
    """A plot that cannot be drawn, because the library is missing, or not be written."""


def new_figure() -> tuple[Any, Any]:
    """An empty figure and its axes, without a display.

    Raises
    ------
    NoPlotError
        Naming the extra that is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise NoPlotError("plots need the extra gaitfleet[analyze]") from None
    figure = Figure(figsize=INCHES, layout="constrained")
    axes = figure.subplots()
    axes.grid(visible=True, alpha=0.3)
    return figure, axes


def save(figure: Any, path: Path) -> None:
    """Write a figure as PNG, whatever the file is called.

    Raises
    ------
    NoPlotError
        Naming the file, when it cannot be written.
    """
    try:
        figure.savefig(path, format="png", dpi=120)
    except OSError as error:
        raise NoPlotError(f"{path}: {error.strerror}") from None


def plot_curves(groups: Mapping[str, Sequence[LearningCurve]], path: Path, *, title: str = "") -> None:
    """One line a group with a band of one standard deviation over its runs, as PNG.

    Raises
    ------
    NoPlotError
        When matplotlib is not installed, or the file cannot be written.
    """
    figure, axes = new_figure()
    for name, curves in groups.items():
        band = band_of(curves)
        label = name if len(curves) == 1 else f"{name} ({len(curves)} runs)"
        (line,) = axes.plot(band.environment_steps, band.mean, label=label)
        if len(curves) > 1:
            low, high = band.mean - band.deviation, band.mean + band.deviation
            axes.fill_between(band.environment_steps, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
    axes.set(xlabel="environment steps", ylabel="score of evaluation episodes", title=title)
    axes.legend()
    save(figure, path)
