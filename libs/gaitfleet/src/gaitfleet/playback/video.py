"""GIF and MP4 of a sequence of pictures."""

from __future__ import annotations

import os
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import cast

import imageio_ffmpeg
from PIL import Image

from gaitfleet.errors import PlaybackError

FLAT_COLOURS, SHADES = 48, 80
"""Colours of a GIF's palette: the most frequent ones (ground, bars) exactly, and some for all others (bones)."""

GIF_TICK_MS = 10
"""A GIF counts time in hundredths of a second."""

GIF_LEAST_SECONDS = 0.02
"""The shortest that a picture of a GIF is shown: viewers replace anything below by a tenth of a second."""

LAST_FRAME_MS = 1200
"""How long a GIF rests on its last picture before it starts over."""


def write_gif(path: Path, frames: Iterable[Image.Image], *, frame_seconds: float) -> int:
    """Write an endless GIF and return its number of frames.

    Parameters
    ----------
    frame_seconds
        How long each picture stays, rounded to what the format can say; at least `GIF_LEAST_SECONDS`.

    Raises
    ------
    PlaybackError
        When there is no picture, or the file cannot be written.
    """
    pictures = list(frames)
    if not pictures:
        raise PlaybackError(f"{path}: there is no picture to write")
    palette = _palette(pictures[0], pictures[-1])
    indexed = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    ticks = round(1000 * max(frame_seconds, GIF_LEAST_SECONDS) / GIF_TICK_MS)
    durations = [ticks * GIF_TICK_MS] * (len(indexed) - 1) + [LAST_FRAME_MS]
    try:
        indexed[0].save(
            path, format="GIF", save_all=True, append_images=indexed[1:], duration=durations, loop=0, optimize=False
        )
    except OSError as error:
        raise PlaybackError(f"{path}: {error}") from None
    return len(indexed)


def _palette(first: Image.Image, last: Image.Image) -> Image.Image:
    """One palette for all pictures, so that what stands still keeps its colour in every frame and costs no bytes."""
    both = Image.new("RGB", (first.width, 2 * first.height))
    both.paste(first, (0, 0))
    both.paste(last, (0, first.height))
    counted = sorted(both.getcolors(both.width * both.height) or [], reverse=True)[:FLAT_COLOURS]
    flat = [value for _, colour in counted for value in cast("tuple[int, ...]", colour)]
    shades = both.quantize(SHADES, Image.Quantize.MAXCOVERAGE).getpalette() or []
    palette = Image.new("P", (1, 1))
    palette.putpalette((flat + shades)[: 3 * 256])
    return palette


def write_mp4(path: Path, frames: Iterable[Image.Image], *, frame_seconds: float) -> int:
    """Write an H.264 film, MP4 whatever the file is called, and return its number of frames.

    The encoder is a process of its own.

    Parameters
    ----------
    frame_seconds
        How long each picture stays.

    Raises
    ------
    PlaybackError
        When there is no picture, or the file cannot be written.
    """
    pictures = iter(frames)
    first = next(pictures, None)
    if first is None:
        raise PlaybackError(f"{path}: there is no picture to write")
    if not os.access(path.parent, os.W_OK):  # the encoder's own answer is a page long
        raise PlaybackError(f"{path}: cannot write into {path.parent}")
    writer = imageio_ffmpeg.write_frames(
        str(path),
        first.size,
        fps=1 / frame_seconds,
        codec="libx264",
        quality=8,
        macro_block_size=2,
        output_params=["-f", "mp4"],
    )
    count = 0
    try:
        writer.send(None)
        for picture in chain([first], pictures):
            writer.send(picture.tobytes())
            count += 1
    except OSError as error:
        raise PlaybackError(f"{path}: {error}") from None
    finally:
        writer.close()
    return count
