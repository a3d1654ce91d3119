"""What is told beside the skeleton: velocity, score, reward terms, muscle activations."""

from __future__ import annotations

from functools import cache

import numpy as np
from PIL import ImageDraw, ImageFont

from gaitfleet.playback.scene import INK, START, Box, Colour
from gaitfleet.playback.story import Story
from gaitfleet.task.prosthetics_measures import STEP_SECONDS
from gaitfleet.trajectory import Float64

FAINT: Colour = (150, 158, 165)
TRACK: Colour = (228, 232, 235)
LINE: Colour = (62, 112, 160)
GAIN: Colour = (92, 158, 110)
LOSS: Colour = (202, 98, 84)
QUIET = np.array([240.0, 214.0, 190.0])
ACTIVE = np.array([196.0, 52.0, 44.0])

ROWS = 25
"""Lines of text that the panel is high; fonts and gaps follow from it."""


class Panel:
    """Draws the story of an episode at one of its steps into a box of a canvas."""

    def __init__(self, draw: ImageDraw.ImageDraw, box: Box, story: Story, step: int) -> None:
        self._draw = draw
        self._left, self._top, self._right, bottom = box
        self._row = (bottom - self._top) / ROWS
        self._story = story
        self._step = step

    def paint(self) -> None:
        """Draw everything: title and clock, velocity, score, reward terms, activations."""
        story, step = self._story, self._step
        self._text(0, story.title, colour=FAINT)
        self._text(0, f"{(step + 1) * STEP_SECONDS:.2f} s", right=True)
        self._text(1.6, "forward velocity")
        self._text(1.6, f"{story.velocity[step]:+.2f} of {story.target[step]:.2f} m/s", right=True, colour=LINE)
        self._curve(2.9, 2.6)
        self._text(6.0, "score, official")
        self._text(6.0, f"{story.score[step]:.1f}", right=True, colour=LINE)
        self._text(7.5, "reward terms of this step")
        after = self._terms(8.8)
        self._text(after + 0.4, "muscle activations: right, left", colour=INK)
        self._activations(after + 1.8)

    def _text(self, row: float, text: str, *, right: bool = False, colour: Colour = INK) -> None:
        x = self._right if right else self._left
        y = self._top + (row + 0.5) * self._row
        self._draw.text((x, y), text, fill=colour, font=_font(self._row), anchor="rm" if right else "lm")

    def _curve(self, row: float, rows: float) -> None:
        """Velocity up to this step, and the target's as a thin line."""
        story = self._story
        top, bottom = self._top + row * self._row, self._top + (row + rows) * self._row
        both = np.concatenate([story.velocity, story.target, [0.0]])
        low, high = both.min(), both.max() + 1e-6
        xs = np.linspace(self._left, self._right, max(story.steps, 2))

        def line(values: Float64, colour: Colour, width: float) -> None:
            ys = bottom - (values - low) / (high - low) * (bottom - top)
            points = np.stack([xs[: len(values)], ys], axis=1).ravel().tolist()
            self._draw.line(points, fill=colour, width=max(1, round(width * self._row)))

        line(np.zeros(len(xs)), TRACK, 0.08)
        line(story.target, START, 0.06)
        line(story.velocity[: self._step + 1], LINE, 0.16)

    def _terms(self, row: float) -> float:
        """One signed bar a term; the longest of the episode fills its side. Returns the row below."""
        terms = self._story.terms
        height = min(1.0, 6.5 / len(terms))
        largest = max(1e-6, *(float(np.abs(values).max()) for values in terms.values()))
        zero = self._left + 0.71 * (self._right - self._left)
        reach = self._right - zero
        for name, values in terms.items():
            top = self._top + row * self._row
            middle, half = top + height * self._row / 2, 0.3 * height * self._row
            length = float(values[self._step]) / largest * reach
            label = name.replace("_", " ")
            self._draw.text((self._left, middle), label, fill=INK, font=_font(self._row * height), anchor="lm")
            start, end = sorted((zero, zero + length))
            self._draw.rectangle((start, middle - half, end, middle + half), fill=GAIN if length > 0 else LOSS)
            row += height
        line = (zero, self._top + (row - height * len(terms)) * self._row, zero, self._top + row * self._row)
        self._draw.line(line, fill=FAINT, width=max(1, round(0.06 * self._row)))
        return row

    def _activations(self, row: float) -> None:
        """Bars in two columns: the muscles of the right leg, and those of the left."""
        width = (self._right - self._left) / 2
        height = (ROWS - row) / 11  # the intact leg has 11 muscles
        for column, side in enumerate("rl"):
            left = self._left + column * width
            names = [name for name in self._story.activations if name.endswith(f"_{side}")]
            for i, name in enumerate(names):
                self._muscle(left, row + i * height, (0.94 * width, height * self._row), name)

    def _muscle(self, left: float, row: float, size: tuple[float, float], name: str) -> None:
        value = float(np.clip(self._story.activations[name][self._step], 0, 1))
        middle, half = self._top + row * self._row + size[1] / 2, 0.32 * size[1]
        label = name.rpartition("_")[0].replace("_", " ")
        self._draw.text((left, middle), label, fill=INK, font=_font(0.9 * size[1]), anchor="lm")
        start, end = left + 0.5 * size[0], left + size[0]
        colour = tuple((QUIET + (ACTIVE - QUIET) * value).astype(int).tolist())
        self._draw.rectangle((start, middle - half, end, middle + half), fill=TRACK)
        self._draw.rectangle((start, middle - half, start + value * (end - start), middle + half), fill=colour)


@cache
def _font(row: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font, as large as a row of that many pixels allows: no font of the system is needed."""
    return ImageFont.load_default(size=max(6.0, 0.82 * row))
