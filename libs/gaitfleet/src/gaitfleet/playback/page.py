"""One HTML page that plays an episode: no network, no server, no package but numpy to write it.

The page holds the meshes once and the place of every body after every step, as WebGL 2 draws them; `viewer/` is its
source. Points are kept in 16 bits of their mesh's extent, at most 10 um off.
"""

from __future__ import annotations

import base64
import html
import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gaitfleet.episode import Episode
from gaitfleet.errors import PlaybackError
from gaitfleet.playback.geometry import Mesh
from gaitfleet.playback.skeleton import Skeleton, is_prosthesis, walker_of
from gaitfleet.playback.story import Story, check_shapes, official_task
from gaitfleet.task import Task
from gaitfleet.task.prosthetics_layout import body_names
from gaitfleet.task.prosthetics_measures import STEP_SECONDS

SCRIPTS = ("scene.js", "tracks.js", "player.js")

LEVELS = 65_535
"""Of a coordinate between the least and the largest of its mesh."""


def write_page(path: Path, episode: Episode, task: Task | None = None, directory: Path | None = None) -> None:
    """Write the page of a walker's episode.

    Parameters
    ----------
    task
        Whose reward terms are shown; the official ones of the episode's round when None.
    directory
        Of the model files; the installed osim-rl's when None.

    Raises
    ------
    PlaybackError
        When the episode is not a walker's or not of this task, the meshes are missing, or the file cannot be written.
    """
    prosthetic = walker_of(episode.metadata.layout_hash)
    check_shapes(episode, prosthetic)
    story = Story.of(episode, task or official_task(episode, prosthetic))
    content = _content(episode, story, Skeleton(prosthetic, directory), body_names(prosthetic))
    try:
        path.write_text(_page(episode, story, content), encoding="utf-8")
    except OSError as error:
        raise PlaybackError(f"{path}: {error.strerror}") from None


def _page(episode: Episode, story: Story, content: dict[str, Any]) -> str:
    metadata = episode.metadata
    viewer = files("gaitfleet.playback") / "viewer"
    subtitle = (
        f"{metadata.started_at:%Y-%m-%d %H:%M} · {metadata.worker} · {metadata.ending_reason.replace('_', ' ')} "
        f"after {story.steps * STEP_SECONDS:.2f} s · {metadata.episode_id}"
    )
    parts = {
        "title": html.escape(f"{metadata.run}: {story.title}"),
        "subtitle": html.escape(subtitle),
        "style": (viewer / "style.css").read_text(encoding="utf-8"),
        # inside a script element only "<" could end it
        "episode": json.dumps(content, separators=(",", ":")).replace("<", "\\u003c"),
        "scripts": "\n".join((viewer / name).read_text(encoding="utf-8") for name in SCRIPTS),
    }
    page = (viewer / "page.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], page)


def _content(episode: Episode, story: Story, skeleton: Skeleton, bodies: tuple[str, ...]) -> dict[str, Any]:
    """What `viewer/player.js` reads: sizes, pieces, and arrays of T steps."""
    rows, layout = episode.trajectory.state[1:], skeleton.layout
    places = [f"{group}/{body}/{axis}" for body in bodies for group in ("body_pos", "body_pos_rot") for axis in "xyz"]
    pieces, points, corners = zip(*(_piece(mesh, bodies) for mesh in skeleton.meshes), strict=True)
    return {
        "steps": story.steps,
        "stepSeconds": STEP_SECONDS,
        "bodies": len(bodies),
        "pelvis": bodies.index("pelvis"),
        "start": float(skeleton.body("pelvis", episode.trajectory.state[0]).translation[0]),
        "pieces": pieces,
        "points": _array(np.concatenate(points), "<u2"),
        "corners": _array(np.concatenate(corners), "<u2"),
        "poses": _array(rows[:, layout.indices(places)], "<f4"),
        "velocity": _array(rows[:, layout.indices(f"body_vel/pelvis/{axis}" for axis in "xyz")], "<f4"),
        "target": _array(story.target, "<f4"),
        "score": _array(story.score, "<f4"),
        "terms": [{"name": name, "values": _array(values, "<f4")} for name, values in story.terms.items()],
        "activations": [{"name": name, "values": _array(values, "<f4")} for name, values in story.activations.items()],
    }


def _piece(mesh: Mesh, bodies: tuple[str, ...]) -> tuple[dict[str, Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """A mesh in the frame of its body: how to read its points, the points in `LEVELS`, the triangles."""
    if len(mesh.points) > LEVELS:
        raise PlaybackError(f"{mesh.file} has {len(mesh.points)} points; a page holds at most {LEVELS} of a mesh")
    points = mesh.placement(mesh.points)
    low, extent = points.min(axis=0), np.ptp(points, axis=0)
    step = np.maximum(extent, 1e-9) / LEVELS
    description = {
        "body": bodies.index(mesh.body),
        "prosthesis": is_prosthesis(mesh),
        "low": low.tolist(),
        "step": step.tolist(),
        "points": len(points),
        "triangles": len(mesh.triangles),
    }
    return description, np.rint((points - low) / step), mesh.triangles


def _array(values: npt.NDArray[Any], dtype: str) -> dict[str, str]:
    """An array as `viewer/player.js` decodes it: little-endian, as every machine that runs a browser is."""
    data = np.ascontiguousarray(values, dtype=dtype)
    return {"dtype": data.dtype.name, "data": base64.b64encode(data.tobytes()).decode("ascii")}
