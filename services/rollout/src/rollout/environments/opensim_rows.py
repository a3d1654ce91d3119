"""Reading a state row out of OpenSim, equal to the last bit to what osim-rl's dictionary says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import opensim
from opensim.common import _common as _swig_common
from opensim.simbody import _simbody as _swig_math
from opensim.simulation import _simulation as _swig

Float64 = npt.NDArray[np.float64]


class RowReader:
    """Reads a realized state with few and cheap calls into OpenSim.

    It calls the functions behind OpenSim's Python methods: the same without a Python frame each, which is a fifth of
    the time. Straight after an integration the 461 calls take thrice as long as when their code is in the caches, and
    that is most of it: with half of them (reading vectors out of memory by address) 12 % were won, which is not worth
    it. OpenSim's reporters, which gather in C++, take longer still.
    """

    def __init__(self, model: Any) -> None:
        self._model = model.model
        self._coordinates = _system_order(model)
        self._bodies = members(model.bodySet)
        self._muscles = members(model.muscleSet)
        forces = members(model.forceSet)[len(self._muscles) :]
        limits = [opensim.CoordinateLimitForce.safeDownCast(force) for force in forces]
        self._limits = [force for force in limits if force is not None]
        records = forces[: len(forces) - len(self._limits)]
        self._records = [(force, range(force.getRecordLabels().size())) for force in records]

    def read(self, state: Any, out: Float64) -> None:
        """Write the row of `state`, which must be realized to the stage of accelerations."""
        coordinates = self._coordinates
        n = len(coordinates)
        out[:n] = state.getQ().to_numpy()[coordinates]
        out[n : 2 * n] = state.getU().to_numpy()[coordinates]
        out[2 * n : 3 * n] = state.getUDot().to_numpy()[coordinates]
        out[3 * n :] = [*self._of_bodies(state), *self._of_forces(state), *self._of_muscles(state)]

    def _of_bodies(self, state: Any) -> list[float]:
        bodies = self._bodies
        transforms = [_swig.Frame_getTransformInGround(body, state) for body in bodies]
        vectors = [_swig_math.Transform_p(transform) for transform in transforms]
        for read in (_swig.Frame_getLinearVelocityInGround, _swig.Frame_getLinearAccelerationInGround):
            vectors += [read(body, state) for body in bodies]
        angles, rotation = _swig_math.Rotation_convertRotationToBodyFixedXYZ, _swig_math.Transform_R
        vectors += [angles(rotation(transform)) for transform in transforms]
        for read in (_swig.Frame_getAngularVelocityInGround, _swig.Frame_getAngularAccelerationInGround):
            vectors += [read(body, state) for body in bodies]
        return _numbers(vectors)

    def _of_forces(self, state: Any) -> list[float]:
        # the tendon's force is all that the record of a muscle holds
        row = [_swig.ScalarActuator_getActuation(muscle, state) for muscle in self._muscles]
        get = _swig_common.ArrayDouble_get
        for force, positions in self._records:
            record = _swig.Force_getRecordValues(force, state)
            row += [get(record, i) for i in positions]
        for force in self._limits:
            row.append(_swig.CoordinateLimitForce_calcLimitForce(force, state))
            row.append(_swig.CoordinateLimitForce_computePotentialEnergy(force, state))
        return row

    def _of_muscles(self, state: Any) -> list[float]:
        readers = (
            _swig.Muscle_getActivation,
            _swig.Muscle_getFiberLength,
            _swig.Muscle_getFiberVelocity,
            _swig.Muscle_getFiberForce,
        )
        mass_center = (
            _swig.Model_calcMassCenterPosition,
            _swig.Model_calcMassCenterVelocity,
            _swig.Model_calcMassCenterAcceleration,
        )
        row = [read(muscle, state) for muscle in self._muscles for read in readers]
        return row + _numbers([read(self._model, state) for read in mass_center])


def _numbers(vectors: list[Any]) -> list[float]:
    get = _swig_math.Vec3_get
    return [get(vector, i) for vector in vectors for i in (0, 1, 2)]


def members(collection: Any) -> list[Any]:
    return [collection.get(i) for i in range(collection.getSize())]


def _system_order(model: Any) -> npt.NDArray[np.intp]:
    """Position in the system's vector of coordinates of each coordinate of the joints, in the joints' order."""
    names = opensim.createStateVariableNamesInSystemOrder(model.model)
    in_system = [name.split("/")[-2] for name in names if name.endswith("/value")]
    coordinates = [joint.get_coordinates(i) for joint in members(model.jointSet) for i in range(joint.numCoordinates())]
    return np.array([in_system.index(coordinate.getName()) for coordinate in coordinates])


def record_names(force: Any) -> Iterator[str]:
    """The labels of a force's record without its own name; ``force`` if nothing remains, ``.2`` where one repeats."""
    labels = force.getRecordLabels()
    seen: list[str] = []
    for i in range(labels.size()):
        label = labels.get(i).removeprefix(force.getName()).lstrip("._")
        label = "force" if label in ("", "Force") else label
        seen.append(label)
        suffix = f".{seen.count(label)}" if seen.count(label) > 1 else ""
        yield f"forces/{force.getName()}/{label}{suffix}"
