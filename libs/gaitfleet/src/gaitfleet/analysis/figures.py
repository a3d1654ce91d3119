"""Pictures of an analysis, drawn by matplotlib without a display; colours are those of Okabe and Ito, safe for the
colour-blind."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator, PercentFormatter

from gaitfleet.analysis.collect import ACTION_BINS, Analysis
from gaitfleet.quality import RULES
from gaitfleet.trajectory import Float64
from gaitfleet.wire import EpisodeSummary

BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, GREY, BLACK = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#56B4E9",
    "#777777",
    "#000000",
)
PALETTE = (BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, GREY, BLACK)

ENDING_COLORS = {
    "time_limit": BLUE,
    "fall": VERMILION,
    "environment": ORANGE,
    "rule": PURPLE,
    "preempted": GREY,
    "simulator_failure": BLACK,
}

SLICES = 30
"""Equal parts of the history over which means and shares are taken."""

WIDTH_INCHES = 6.6
"""Narrow, so that the letters are still legible where a telephone shows the picture 10 cm wide."""

_STYLE: dict[Any, Any] = {
    "font.size": 12,
    "axes.titlesize": 12.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#444444",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 11,
    "figure.constrained_layout.use": True,
}


@dataclass(frozen=True)
class Picture:
    """A picture and what it says.

    Parameters
    ----------
    name
        Of its file, without the suffix.
    says
        One sentence under it.
    """

    name: str
    title: str
    says: str
    png: bytes


def pictures(analysis: Analysis) -> list[Picture]:
    """Every picture there is something to draw for."""
    if not analysis.history:
        return []
    drawn = [_draw(analysis, *each) for each in _PICTURES]
    return [picture for picture in drawn if picture is not None]


def _draw(
    analysis: Analysis, name: str, title: str, says: str, draw: Callable[[Analysis, Figure], bool]
) -> Picture | None:
    with rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH_INCHES, 4.0), facecolor="white")
        if not draw(analysis, figure):
            return None
        target = io.BytesIO()
        figure.savefig(target, format="png", dpi=150)
    return Picture(name, title, says, target.getvalue())


class _Clock:
    """Hours since the first episode shown, and equal slices of that time."""

    def __init__(self, history: Sequence[EpisodeSummary]) -> None:
        since = min(episode.stored_at for episode in history)
        self.hours = np.array([(episode.stored_at - since).total_seconds() / 3600 for episode in history])
        end = max(float(self.hours.max()), 1e-6)
        self.slice = np.minimum((self.hours / end * SLICES).astype(int), SLICES - 1)
        self.middles = (np.arange(SLICES) + 0.5) * end / SLICES

    def mean(self, values: Float64) -> tuple[Float64, Float64]:
        """Middles of the slices that have an episode, and the mean there."""
        used = np.unique(self.slice)
        return self.middles[used], np.array([values[self.slice == part].mean() for part in used])

    def label(self, axes: Axes) -> None:
        """Name the axis."""
        axes.set_xlabel("hours since the first episode shown")


def _returns(analysis: Analysis, figure: Figure) -> bool:
    figure.set_size_inches(WIDTH_INCHES, 5.8)
    clock = _Clock(analysis.history)
    roles = np.array([episode.role for episode in analysis.history])
    upper, lower = figure.subplots(2, 1, sharex=True)
    for axes, name, title in (
        (upper, "simulator_return", "official score"),
        (lower, "learned_return", "return that is learned"),
    ):
        values = np.array([getattr(episode, name) for episode in analysis.history])
        for role, color in (("random", GREY), ("train", SKY)):
            here = roles == role
            if here.any():
                axes.plot(clock.hours[here], values[here], ".", color=color, markersize=4, alpha=0.7, label=role)
        training = np.where(roles == "train", values, np.nan)
        axes.plot(*_rolling(clock.hours, training), color=BLUE, linewidth=2, label="train, running median")
        here = roles == "evaluate"
        if here.any():
            style = {"color": VERMILION, "markersize": 6, "markeredgecolor": "white", "markeredgewidth": 0.6}
            axes.plot(clock.hours[here], values[here], "D", label="evaluate", **style)
        axes.set_title(title)
    clock.label(lower)
    handles, labels = upper.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, columnspacing=1.2, handletextpad=0.4)
    return True


def _rolling(hours: Float64, values: Float64, half: int = 10) -> tuple[Float64, Float64]:
    """Median of every known value and `half` to either side; of fewer at both ends."""
    known = np.flatnonzero(np.isfinite(values))
    of = values[known]
    return hours[known], np.array([np.median(of[max(0, i - half) : i + half + 1]) for i in range(len(of))])


def _terms(analysis: Analysis, figure: Figure) -> bool:
    training = [episode for episode in analysis.history if episode.role != "evaluate"]
    if not training:
        return False
    names = list(dict.fromkeys(name for episode in training for name in episode.reward_terms))
    per_step = {
        name: np.array([episode.reward_terms.get(name, 0.0) / episode.steps for episode in training]) for name in names
    }
    largest = sorted(names, key=lambda name: -np.abs(per_step[name]).mean())[: len(PALETTE)]
    clock = _Clock(training)
    axes = figure.subplots()
    for name, color, style in zip(largest, PALETTE, ("-", "--") * len(PALETTE), strict=False):
        axes.plot(*clock.mean(per_step[name]), color=color, linestyle=style, linewidth=2, label=name)
    axes.axhline(0, color="#444444", linewidth=0.8)
    axes.set_ylabel("mean per step")
    clock.label(axes)
    figure.legend(loc="outside lower center", ncols=3)
    return True


def _endings(analysis: Analysis, figure: Figure) -> bool:
    clock = _Clock(analysis.history)
    reasons = [name for name, _ in Counter(episode.ending_reason for episode in analysis.history).most_common()]
    given = np.array([episode.ending_reason for episode in analysis.history])
    axes = figure.subplots()
    used = np.unique(clock.slice)
    bottom = np.zeros(len(used))
    width = clock.middles[0] * 2 * 0.94
    for reason in reasons:
        share = np.array([(given[clock.slice == part] == reason).mean() for part in used])
        axes.bar(clock.middles[used], share, width, bottom, color=ENDING_COLORS[reason], label=reason)
        bottom += share
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_ylim(0, 1)
    clock.label(axes)
    figure.legend(loc="outside lower center", ncols=4)
    return True


def _lengths(analysis: Analysis, figure: Figure) -> bool:
    distances = [episode.distance_m for episode in analysis.history]
    walker = any(distance is not None for distance in distances)
    if walker:
        figure.set_size_inches(WIDTH_INCHES, 5.2)
    clock = _Clock(analysis.history)
    panels = figure.subplots(2 if walker else 1, 1, sharex=True, squeeze=False)[:, 0]
    steps = np.array([episode.steps for episode in analysis.history], float)
    _cloud(panels[0], clock.hours, steps, "length in steps", BLUE)
    panels[0].set_ylim(bottom=0)
    if walker:
        forward = np.array([np.nan if distance is None else distance for distance in distances])
        _cloud(panels[1], clock.hours, forward, "distance forward in metres", GREEN)
        panels[1].axhline(0, color="#444444", linewidth=0.8)
    clock.label(panels[-1])
    return True


def _cloud(axes: Axes, hours: Float64, values: Float64, title: str, color: str) -> None:
    axes.plot(hours, values, ".", color=color, markersize=4, alpha=0.5)
    axes.plot(*_rolling(hours, values), color="black", linewidth=1.6)
    axes.set_title(title)


def _findings(analysis: Analysis, figure: Figure) -> bool:
    names = list(RULES)[::-1]
    counts = [analysis.findings[name].episodes if name in analysis.findings else 0 for name in names]
    axes = figure.subplots()
    colors = [VERMILION if RULES[name].kind == "fault" else BLUE for name in names]
    bars = axes.barh(names, counts, color=colors)
    axes.bar_label(bars, padding=4)
    axes.set_xlim(0, max(5, *counts) * 1.12)
    axes.set_xlabel(f"episodes, of {analysis.read} read")
    axes.grid(axis="y", visible=False)
    return True


def _actions(analysis: Analysis, figure: Figure) -> bool:
    if not analysis.read:
        return False
    count = len(analysis.action_names)
    figure.set_size_inches(WIDTH_INCHES, 1.6 + 0.27 * count)
    axes = figure.subplots()
    image = axes.imshow(
        analysis.action_histogram,
        aspect="auto",
        cmap="cividis",
        vmin=0,
        extent=(0, 1, count - 0.5, -0.5),
        interpolation="nearest",
    )
    axes.set_yticks(range(count), analysis.action_names)
    axes.set_xlabel(f"from the lowest to the highest action, in {ACTION_BINS} parts")
    axes.grid(visible=False)
    bar = figure.colorbar(image, ax=axes, format=PercentFormatter(1, decimals=0))
    bar.set_label("share of the steps")
    return True


def _limits(analysis: Analysis, figure: Figure, count: int = 15) -> bool:
    used = sorted(((column.used, column.name) for column in analysis.columns if column.used is not None), reverse=True)
    if not used:
        return False
    figure.set_size_inches(WIDTH_INCHES, 4.6)
    names = [name for _, name in used[:count][::-1]]
    shares = [min(2.0, share) for share, _ in used[:count][::-1]]  # far beyond is as bad as twice
    axes = figure.subplots()
    axes.barh(names, shares, color=[VERMILION if share > 1 else BLUE for share in shares])
    axes.set_xlim(0, max(1.05, *shares))
    axes.xaxis.set_major_locator(MultipleLocator(0.5 if max(shares) > 1.1 else 0.2))
    axes.axvline(1, color="black", linewidth=1.2, linestyle="--")
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.set_xlabel("of the way to the limit")
    axes.tick_params(axis="y", labelsize=10)
    axes.grid(axis="y", visible=False)
    return True


_PICTURES: tuple[tuple[str, str, str, Callable[[Analysis, Figure], bool]], ...] = (
    (
        "returns",
        "Returns",
        "Every episode of the history. Evaluation plays without noise, by the official rules.",
        _returns,
    ),
    ("terms", "Reward terms", "Weighted terms of training episodes, before the scale: the eight largest.", _terms),
    ("endings", "Endings", "Why episodes ended, as shares of each thirtieth of the time shown.", _endings),
    (
        "lengths",
        "Lengths and distances",
        "Simulator steps and, for the walker, the way of its pelvis. Black: running median.",
        _lengths,
    ),
    ("findings", "Findings", "Red: the data are wrong. Blue: the data are right, but it is not walking.", _findings),
    (
        "actions",
        "Actions",
        "What the simulator received, each row one action value. Both ends bright: saturated.",
        _actions,
    ),
    (
        "limits",
        "Nearest to their limits",
        "The columns that went farthest towards what is physically possible.",
        _limits,
    ),
)
