"""The skeleton over the ground, drawn by Pillow: triangles from the farthest to the nearest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import ImageDraw

from gaitfleet.playback.skeleton import Skeleton
from gaitfleet.trajectory import Float32, Float64

Colour = tuple[int, int, int]
Box = tuple[float, float, float, float]
"""Left, top, right and bottom in pixels."""

SKY: Colour = (246, 248, 250)
GROUND: Colour = (226, 231, 234)
GRID: Colour = (206, 212, 217)
START: Colour = (196, 92, 74)
SHADOW: Colour = (200, 206, 211)
INK: Colour = (52, 60, 68)
BONE = np.array([238.0, 228.0, 204.0])
PROSTHESIS = np.array([92.0, 138.0, 180.0])

AMBIENT = 0.42
"""Brightness of a surface that faces away from the light, as a part of full."""

LIGHT = np.array([0.45, 0.75, 0.48]) / np.linalg.norm([0.45, 0.75, 0.48])
"""Direction to the light, in ground axes: ahead, above and to the right, where the camera is."""

GRID_STEP_M = 0.5
REACH_M = (9.0, 5.0)
"""How far ground is drawn before and behind the walker, and to its left; the horizon lies beyond the picture."""

NEAR_M = 1.5
"""How far ground is drawn to the walker's right, towards the camera."""

VISIBLE_HEIGHT_M = 2.15
"""Height of the picture at the walker: the model is 1.8 m tall."""


@dataclass(frozen=True, slots=True)
class Camera:
    """A pinhole camera that looks at a point from the walker's right.

    Parameters
    ----------
    focus
        [3] in m, the point in the middle of the picture.
    box
        The picture on the canvas.
    azimuth, elevation
        In rad: how far the camera stands ahead of the walker's right side, and above the focus.
    distance
        Of the camera from the focus, in m.
    """

    focus: Float64
    box: Box
    azimuth: float = 0.42
    elevation: float = 0.14
    distance: float = 6.0

    @property
    def back(self) -> Float64:
        """Unit vector from the focus to the camera, [3]."""
        level = np.cos(self.elevation)
        return np.array([np.sin(self.azimuth) * level, np.sin(self.elevation), np.cos(self.azimuth) * level])

    def project(self, points: Float64) -> Float64:
        """Points [n, 3] in m to [n, 3]: pixels to the right, pixels down, and metres from the camera."""
        back = self.back
        right = np.array([np.cos(self.azimuth), 0.0, -np.sin(self.azimuth)])
        seen = (points - self.focus) @ np.stack([right, -np.cross(back, right), -back], axis=1)
        depth = self.distance + seen[:, 2]
        left, top, width, bottom = self.box
        scale = (bottom - top) / VISIBLE_HEIGHT_M * self.distance / depth
        middle = (left + width) / 2, (top + bottom) / 2
        return np.stack([middle[0] + seen[:, 0] * scale, middle[1] + seen[:, 1] * scale, depth], axis=1)


class Scene:
    """Draws the walker of a state row.

    Parameters
    ----------
    skeleton
        What is drawn.
    start
        [3] in m: where the pelvis began; a line on the ground marks it.
    """

    def __init__(self, skeleton: Skeleton, start: Float64) -> None:
        self._skeleton = skeleton
        self._start = start
        self._colours = np.where(skeleton.prosthesis[:, None], PROSTHESIS, BONE)

    def draw(self, draw: ImageDraw.ImageDraw, box: Box, row: Float32) -> None:
        """Draw the walker of a state row [S] into a box of a canvas, which must be cleared to `SKY`."""
        pelvis = self._skeleton.body("pelvis", row).translation
        camera = Camera(np.array([pelvis[0], 0.9, pelvis[2]]), box)
        self._ground(draw, camera, pelvis)
        points = self._skeleton.points(row)
        self._shadow(draw, camera, points)
        self._bones(draw, camera, points)

    def _ground(self, draw: ImageDraw.ImageDraw, camera: Camera, pelvis: Float64) -> None:
        low = np.array([pelvis[0] - REACH_M[0], pelvis[2] - REACH_M[1]])
        high = np.array([pelvis[0] + REACH_M[0], pelvis[2] + NEAR_M])
        corners = np.array([[low[0], low[1]], [high[0], low[1]], [high[0], high[1]], [low[0], high[1]]])
        draw.polygon(_flat(camera, corners), fill=GROUND)
        width = max(1, round((camera.box[3] - camera.box[1]) / 400))
        for x in np.arange(np.ceil(low[0] / GRID_STEP_M), np.floor(high[0] / GRID_STEP_M) + 1) * GRID_STEP_M:
            draw.line(_flat(camera, np.array([[x, low[1]], [x, high[1]]])), fill=GRID, width=width)
        for z in np.arange(np.ceil(low[1] / GRID_STEP_M), np.floor(high[1] / GRID_STEP_M) + 1) * GRID_STEP_M:
            draw.line(_flat(camera, np.array([[low[0], z], [high[0], z]])), fill=GRID, width=width)
        start = np.array([[self._start[0], low[1]], [self._start[0], high[1]]])
        draw.line(_flat(camera, start), fill=START, width=2 * width)

    def _shadow(self, draw: ImageDraw.ImageDraw, camera: Camera, points: Float64) -> None:
        cast = points - LIGHT * (points[:, 1:2] / LIGHT[1])
        for polygon in camera.project(cast)[:, :2][self._skeleton.triangles].reshape(-1, 6).tolist():
            draw.polygon(polygon, fill=SHADOW)

    def _bones(self, draw: ImageDraw.ImageDraw, camera: Camera, points: Float64) -> None:
        corners = points[self._skeleton.triangles]  # [M, 3, 3]
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
        # the mirrored meshes of the left leg wind the other way round: every surface is taken to face the camera
        normals *= np.where(normals @ camera.back < 0, -1.0, 1.0)[:, None]
        brightness = AMBIENT + (1 - AMBIENT) * np.maximum(0.0, normals @ LIGHT)
        colours = (self._colours * brightness[:, None]).astype(np.uint8)
        seen = camera.project(points)[self._skeleton.triangles]
        order = np.argsort(-seen[:, :, 2].mean(axis=1))
        polygons = seen[order, :, :2].reshape(-1, 6).tolist()
        for polygon, colour in zip(polygons, map(tuple, colours[order].tolist()), strict=True):
            draw.polygon(polygon, fill=colour)


def _flat(camera: Camera, ground: Float64) -> list[float]:
    """Pixels of ground points [n, 2], x and z in m, as Pillow takes them."""
    points = np.stack([ground[:, 0], np.zeros(len(ground)), ground[:, 1]], axis=1)
    flat: list[float] = camera.project(points)[:, :2].ravel().tolist()
    return flat
