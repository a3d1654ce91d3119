"""Pictures of an episode: the skeleton, and the panel beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageDraw

from gaitfleet.episode import Episode
from gaitfleet.playback.panel import Panel
from gaitfleet.playback.scene import SKY, Scene
from gaitfleet.playback.skeleton import Skeleton, walker_of
from gaitfleet.playback.story import Story, check_shapes, official_task
from gaitfleet.task import Task

FINER = 2
"""Pictures are drawn this many times larger and then averaged: Pillow's polygons have hard edges."""

SHAPE = 5 / 8
"""Height by width."""

SCENE_WIDTH = 0.52
"""Part of the width that the skeleton has; the rest is the panel's."""

PAPER = (255, 255, 255)


class EpisodeFrames:
    """Draws the states of an episode.

    Parameters
    ----------
    episode
        A walker's episode.
    task
        Whose reward terms are shown; the official ones of the episode's round when None.
    width
        Of a picture in pixels; made even, as video encoders ask.
    directory
        Of the model files; the installed osim-rl's when None.

    Raises
    ------
    PlaybackError
        When the episode is not a walker's or not of this task, or the meshes are missing.
    """

    def __init__(
        self, episode: Episode, task: Task | None = None, *, width: int = 800, directory: Path | None = None
    ) -> None:
        prosthetic = walker_of(episode.metadata.layout_hash)
        check_shapes(episode, prosthetic)
        self._rows = episode.trajectory.state
        self._story = Story.of(episode, task or official_task(episode, prosthetic))
        skeleton = Skeleton(prosthetic, directory)
        self._scene = Scene(skeleton, skeleton.body("pelvis", self._rows[0]).translation)
        self.size = 2 * round(width / 2), 2 * round(width * SHAPE / 2)

    def steps(self, every: int) -> list[int]:
        """Every how-many-th step is shown; the last one always is."""
        shown = list(range(0, self._story.steps, every))
        return shown if shown[-1] == self._story.steps - 1 else [*shown, self._story.steps - 1]

    def draw(self, step: int) -> Image.Image:
        """The picture after a step, counted from 0."""
        width, height = self.size[0] * FINER, self.size[1] * FINER
        canvas = Image.new("RGB", (width, height), SKY)
        draw = ImageDraw.Draw(canvas)
        split, margin = SCENE_WIDTH * width, 0.03 * height
        self._scene.draw(draw, (0, 0, split, height), self._rows[step + 1])
        draw.rectangle((split, 0, width, height), fill=PAPER)
        Panel(draw, (split + margin, margin, width - margin, height - margin), self._story, step).paint()
        return canvas.reduce(FINER)

    def __call__(self, every: int = 1) -> Iterator[Image.Image]:
        """The pictures of `steps(every)`, in order."""
        return map(self.draw, self.steps(every))
