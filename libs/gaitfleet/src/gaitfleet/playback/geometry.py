"""The bone meshes of a walker, as osim-rl's model files hang them on its bodies.

osim-rl is looked for and never imported: importing it loads OpenSim.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gaitfleet.errors import PlaybackError
from gaitfleet.trajectory import Float64

MODEL_FILES = {True: "gait14dof22musc_pros_20180507.osim", False: "gait14dof22musc_20170320.osim"}
"""Prosthetic or not -> model file. The planar models hang the same meshes on the same bodies."""

HIDDEN = "0"
"""Display preference of a mesh that is not to be shown."""


@dataclass(frozen=True, slots=True)
class Placement:
    """A place and an orientation: turns points of a frame into those of the frame it stands in.

    Parameters
    ----------
    rotation
        [3, 3].
    translation
        [3] in m.
    """

    rotation: Float64
    translation: Float64

    def __call__(self, points: Float64) -> Float64:
        """Points [n, 3] of the inner frame in the outer one."""
        return points @ self.rotation.T + self.translation

    def __matmul__(self, inner: Placement) -> Placement:
        """First `inner`, then this one."""
        return Placement(self.rotation @ inner.rotation, self(inner.translation[None])[0])


def body_fixed_xyz(angles: Float64) -> Float64:
    """Rotation matrices [..., 3, 3] of body-fixed x-y-z angles [..., 3] in rad, as Simbody defines them."""
    (cx, cy, cz), (sx, sy, sz) = np.moveaxis(np.cos(angles), -1, 0), np.moveaxis(np.sin(angles), -1, 0)
    rows = [
        [cy * cz, -cy * sz, sy],
        [cx * sz + sx * sy * cz, cx * cz - sx * sy * sz, -sx * cy],
        [sx * sz - cx * sy * cz, sx * cz + cx * sy * sz, cx * cy],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


@dataclass(frozen=True, slots=True)
class Mesh:
    """A surface that is fixed to a body.

    Parameters
    ----------
    body
        Name of the body.
    file
        Name of the mesh file.
    placement
        Of the mesh file's own frame in the body's.
    points
        [n, 3] in m, in the mesh file's frame, scaled.
    triangles
        [m, 3] positions in `points`.
    """

    body: str
    file: str
    placement: Placement
    points: Float64
    triangles: npt.NDArray[np.intp]


def models_directory() -> Path:
    """Where the installed osim-rl keeps models and meshes.

    Raises
    ------
    PlaybackError
        When osim-rl is not installed, or without its models.
    """
    spec = find_spec("osim")
    if spec is None or not spec.submodule_search_locations:
        raise PlaybackError(
            "the bone meshes come with osim-rl, which is not installed: pip install --no-deps osim-rl==2.1.5"
        )
    directory = Path(next(iter(spec.submodule_search_locations))) / "models"
    if not (directory / "Geometry").is_dir():
        raise PlaybackError(f"osim-rl is installed without its meshes: there is no {directory / 'Geometry'}")
    return directory


def load_meshes(prosthetic: bool, directory: Path | None = None) -> tuple[Mesh, ...]:
    """All visible meshes of a model.

    Parameters
    ----------
    directory
        Of the model files, with ``Geometry`` inside; the installed osim-rl's when None.

    Raises
    ------
    PlaybackError
        When osim-rl, the model file or one of its meshes is missing or not as expected.
    """
    directory = directory or models_directory()
    # "HuntCrossleyForce::ContactParameters" is no valid XML name, so these files are not XML to the letter
    root = _parse(directory / MODEL_FILES[prosthetic], rename=(b"::", b"."))
    meshes = []
    for body in root.iter("Body"):
        visible = body.find("VisibleObject")
        if visible is None:
            continue
        body_scale, body_placement = _scale(visible), _placement(visible)
        for shown in visible.iter("DisplayGeometry"):
            if shown.findtext("display_preference", "").strip() == HIDDEN:
                continue
            file = shown.findtext("geometry_file", "").strip()
            points, triangles = read_vtp(directory / "Geometry" / file)
            # the body's scale is per axis of each mesh's own frame, as OpenSim applies it when it reads these files
            scaled = points * body_scale * _scale(shown)
            meshes.append(Mesh(body.get("name", ""), file, body_placement @ _placement(shown), scaled, triangles))
    if not meshes:
        raise PlaybackError(f"{directory / MODEL_FILES[prosthetic]} names no visible mesh")
    return tuple(meshes)


def read_vtp(path: Path) -> tuple[Float64, npt.NDArray[np.intp]]:
    """Points [n, 3] and triangles [m, 3] of a VTK polygon file in ASCII, as all of osim-rl's are.

    Raises
    ------
    PlaybackError
        When the file is missing or is not such a file.
    """
    root = _parse(path)
    points = _numbers(path, root.find(".//Points/DataArray"), np.float64).reshape(-1, 3)
    connectivity = _numbers(path, root.find(".//Polys/DataArray[@Name='connectivity']"), np.intp)
    ends = _numbers(path, root.find(".//Polys/DataArray[@Name='offsets']"), np.intp)
    sizes = np.diff(ends, prepend=0)
    fans = []
    for size in np.unique(sizes[sizes >= 3]):  # a convex polygon of n corners is a fan of n - 2 triangles
        corners = connectivity[(ends[sizes == size] - size)[:, None] + np.arange(size)]
        fans += [corners[:, [0, i, i + 1]] for i in range(1, size - 1)]
    return points, np.concatenate(fans)


def _numbers(path: Path, element: ET.Element | None, dtype: type[np.generic]) -> npt.NDArray[Any]:
    if element is None or element.get("format") != "ascii":
        raise PlaybackError(f"{path} is not a VTK polygon file in ASCII")
    return np.array((element.text or "").split(), dtype=dtype)


def _parse(path: Path, rename: tuple[bytes, bytes] | None = None) -> ET.Element:
    try:
        text = path.read_bytes()
        return ET.fromstring(text.replace(*rename) if rename else text)  # noqa: S314 - part of an installed package
    except (OSError, ET.ParseError) as error:
        raise PlaybackError(f"{path}: {error}") from None


def _scale(element: ET.Element) -> Float64:
    return np.array(element.findtext("scale_factors", "1 1 1").split(), dtype=np.float64)


def _placement(element: ET.Element) -> Placement:
    numbers = np.array(element.findtext("transform", "0 0 0 0 0 0").split(), dtype=np.float64)
    return Placement(body_fixed_xyz(numbers[:3]), numbers[3:])
