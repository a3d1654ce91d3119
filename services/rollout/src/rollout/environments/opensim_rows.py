"""Reading a state row out of OpenSim, equal to the last bit to what osim-rl's dictionary says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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

    Straight after an integration the caches hold nothing of this, and the first call of a kind costs as much as ten
    more. So vectors are gathered by OpenSim in an array of its own, which is read at once, and whatever is a state
    variable or its derivative comes from the vector of them all. It calls the functions behind OpenSim's Python methods
    with the pointers behind its Python objects: the same without a frame and two look-ups each.

    Parameters
    ----------
    model
        Whose states are read.
    columns
        Names of the row's columns, in order: those of `column_names`.
    """

    def __init__(self, model: Any, columns: Sequence[str]) -> None:
        bodies, muscles = members(model.bodySet), members(model.muscleSet)
        forces = members(model.forceSet)[len(muscles) :]
        limits = [limit for limit in map(opensim.CoordinateLimitForce.safeDownCast, forces) if limit is not None]
        records = forces[: len(forces) - len(limits)]
        self._model = model.model.this
        self._bodies, self._muscles = [body.this for body in bodies], [muscle.this for muscle in muscles]
        self._records, self._limits = [force.this for force in records], [limit.this for limit in limits]
        vectors = [*_of_state_variables(model.model), *_of_bodies(bodies), *_of_records(records)]
        forces_of_fibers = [f"muscles/{muscle.getName()}/fiber_force" for muscle in muscles]
        numbers = [*_of_records(muscles), *forces_of_fibers, *_of_records(limits)]
        self._vectors = opensim.ArrayDouble()
        self._vectors_size = len(vectors)
        self._gathered: Float64 = np.empty(len(vectors) + len(numbers))
        place = {name: i for i, name in enumerate([*vectors, *numbers])}
        self._lowest, self._highest = _clamps(muscles, place, len(self._gathered))
        self._order = np.array([place[name] for name in columns])

    def read(self, state: Any, out: Float64) -> None:
        """Write the row of `state`, which must be realized to the stage of accelerations."""
        state, gathered, size = state.this, self._gathered, self._vectors_size
        self._gather_vectors(state)
        vectors = _swig_common.ArrayDouble_getAsVector(self._vectors)
        gathered[:size] = _swig_math.VectorBaseDouble__to_numpy(vectors, size)
        gathered[size:] = self._numbers(state)
        np.maximum(gathered, self._lowest, out=gathered)
        np.minimum(gathered, self._highest, out=gathered)
        gathered.take(self._order, out=out, mode="clip")  # any other mode would buffer

    def _gather_vectors(self, state: Any) -> None:
        array, append = self._vectors.this, _swig_common.ArrayDouble_appendVec3
        _swig_common.ArrayDouble_setSize(array, 0)
        _swig_common.ArrayDouble_appendVector(array, _swig_math.State_getY(state))
        _swig_common.ArrayDouble_appendVector(array, _swig_math.State_getYDot(state))
        read_transform, position = _swig.Frame_getTransformInGround, _swig_math.Transform_p
        rotation, angles = _swig_math.Transform_R, _swig_math.Rotation_convertRotationToBodyFixedXYZ
        for body in self._bodies:
            transform = read_transform(body, state)
            append(array, position(transform))
            append(array, angles(rotation(transform)))
            for read in _MOTION:
                append(array, read(body, state))
        for read in _MASS_CENTER:
            append(array, read(self._model, state))
        for force in self._records:
            _swig_common.ArrayDouble_append(array, _swig.Force_getRecordValues(force, state))

    def _numbers(self, state: Any) -> list[float]:
        # the tendon's force is all that the record of a muscle holds
        muscles, read_tendon, read_fiber = self._muscles, _swig.ScalarActuator_getActuation, _swig.Muscle_getFiberForce
        numbers = [read_tendon(muscle, state) for muscle in muscles]
        numbers += [read_fiber(muscle, state) for muscle in muscles]
        numbers += [read(limit, state) for limit in self._limits for read in _LIMIT_RECORD]
        return numbers


_MOTION = (
    _swig.Frame_getLinearVelocityInGround,
    _swig.Frame_getAngularVelocityInGround,
    _swig.Frame_getLinearAccelerationInGround,
    _swig.Frame_getAngularAccelerationInGround,
)
_MASS_CENTER = (
    _swig.Model_calcMassCenterPosition,
    _swig.Model_calcMassCenterVelocity,
    _swig.Model_calcMassCenterAcceleration,
)
_LIMIT_RECORD = (_swig.CoordinateLimitForce_calcLimitForce, _swig.CoordinateLimitForce_computePotentialEnergy)


def _of_state_variables(model: Any) -> Iterator[str]:
    """Columns of the state variables in the system's order, then of their derivatives; empty where there is none."""
    paths = [name.split("/")[2:] for name in opensim.createStateVariableNamesInSystemOrder(model)]
    columns = {"value": "joint_pos/{}/{}", "speed": "joint_vel/{}/{}"}
    columns |= {name: f"muscles/{{}}/{name}" for name in ("activation", "fiber_length")}
    yield from (columns.get(path[-1], "").format(*path) for path in paths)
    columns = {"speed": "joint_acc/{}/{}", "fiber_length": "muscles/{}/fiber_velocity"}
    yield from (columns.get(path[-1], "").format(*path) for path in paths)


def _of_bodies(bodies: list[Any]) -> Iterator[str]:
    for body in bodies:
        for group in ("body_pos", "body_pos_rot", "body_vel", "body_vel_rot", "body_acc", "body_acc_rot"):
            yield from (f"{group}/{body.getName()}/{axis}" for axis in "xyz")
    for quantity in ("mass_center_pos", "mass_center_vel", "mass_center_acc"):
        yield from (f"misc/{quantity}/{axis}" for axis in "xyz")


def _of_records(forces: list[Any]) -> Iterator[str]:
    for force in forces:
        yield from record_names(force)


def _clamps(muscles: list[Any], place: dict[str, int], size: int) -> tuple[Float64, Float64]:
    """Lowest and highest value of what is gathered: a muscle says its activation and length within its own limits."""
    lowest, highest = np.full(size, -np.inf), np.full(size, np.inf)
    for muscle in map(opensim.Thelen2003Muscle.safeDownCast, muscles):
        activation, length = (place[f"muscles/{muscle.getName()}/{name}"] for name in ("activation", "fiber_length"))
        lowest[activation], highest[activation] = muscle.getMinimumActivation(), 1.0
        lowest[length] = muscle.getMinimumFiberLength()
    return lowest, highest


def members(collection: Any) -> list[Any]:
    return [collection.get(i) for i in range(collection.getSize())]


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
