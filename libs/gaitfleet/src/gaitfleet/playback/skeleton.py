"""Where the bones are in a state row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from gaitfleet.errors import PlaybackError
from gaitfleet.layout import StateLayout
from gaitfleet.playback.geometry import Mesh, Placement, body_fixed_xyz, load_meshes
from gaitfleet.task.prosthetics_layout import body_names, prosthetics_layout
from gaitfleet.trajectory import Float32, Float64


def walker_of(layout_hash: str) -> bool:
    """Whether the walker whose rows have this layout wears the prosthesis.

    Raises
    ------
    PlaybackError
        When the rows are not a walker's: there is nothing to draw then.
    """
    for prosthetic in (True, False):
        if prosthetics_layout("3D", prosthetic).hash == layout_hash:
            return prosthetic
    raise PlaybackError(f"layout {layout_hash} is not that of a walker: only episodes of `prosthetics` can be played")


class Skeleton:
    """The bones of a walker, as one set of triangles whose points move with the state row.

    Parameters
    ----------
    prosthetic
        Whether the right leg ends in a prosthesis.
    directory
        Of the model files; the installed osim-rl's when None.

    Attributes
    ----------
    triangles
        [M, 3] positions in the points of `points`.
    prosthesis
        bool [M]. Which triangles are the prosthesis'.
    """

    def __init__(self, prosthetic: bool, directory: Path | None = None) -> None:
        self.layout: StateLayout = prosthetics_layout("3D", prosthetic)
        self.meshes = load_meshes(prosthetic, directory)
        self._columns = {
            body: (
                self.layout.indices(f"body_pos/{body}/{axis}" for axis in "xyz"),
                self.layout.indices(f"body_pos_rot/{body}/{axis}" for axis in "xyz"),
            )
            for body in body_names(prosthetic)
        }
        starts = np.cumsum([0, *(len(mesh.points) for mesh in self.meshes)])
        self.triangles: npt.NDArray[np.intp] = np.concatenate(
            [mesh.triangles + start for mesh, start in zip(self.meshes, starts, strict=False)]
        )
        self.prosthesis: npt.NDArray[np.bool_] = np.concatenate(
            [np.full(len(mesh.triangles), is_prosthesis(mesh)) for mesh in self.meshes]
        )

    def body(self, name: str, row: Float32) -> Placement:
        """Where a body is in the ground frame, by a state row [S]."""
        position, angles = self._columns[name]
        return Placement(body_fixed_xyz(row[angles].astype(np.float64)), row[position].astype(np.float64))

    def mesh(self, mesh: Mesh, row: Float32) -> Placement:
        """Where the frame of a mesh is in the ground frame, by a state row [S]."""
        return self.body(mesh.body, row) @ mesh.placement

    def points(self, row: Float32) -> Float64:
        """Points of all meshes, [N, 3] in m in the ground frame (x forward, y up, z right), by a state row [S]."""
        return np.concatenate([self.mesh(mesh, row)(mesh.points) for mesh in self.meshes])


def is_prosthesis(mesh: Mesh) -> bool:
    """Whether a mesh is part of the prosthesis."""
    # the stump of the tibia belongs to the body "pros_tibia_r" too, but is bone
    return mesh.body.startswith("pros_") and not mesh.file.startswith("tibia")
