"""The one file that imports OpenSim and osim-rl, and all that is known about their peculiarities.

It bridges what OpenSim 4.6 no longer accepts from osim-rl 2.1.5, and replaces what osim-rl does slowly (the state
dictionary, setting excitations) without changing a bit of any number. Nothing here but `OfficialEnvironment` touches
Python's or numpy's global random state, and no class of either library is patched.
"""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from gaitfleet.errors import LayoutError
from gaitfleet.layout import StateLayout
from gaitfleet.task.prosthetics_layout import Model, action_names, prosthetics_layout
from rollout.environments.interface import SimulatorFailure

with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
    # gym, which osim-rl needs for its base class, prints that it is no longer maintained
    warnings.simplefilter("ignore")
    import opensim
    import osim
    from opensim.common import _common as _swig_common
    from opensim.simbody import _simbody as _swig_math
    from opensim.simulation import _simulation as _swig
    from osim.env.osim import OsimModel, ProstheticsEnv, Spec

# OpenSim logs to stdout, model conversions and renamed parts mostly; whatever matters arrives as an exception
opensim.Logger.setLevelString("Off")

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

STEP_SECONDS = 0.01
"""Simulated time per step: osim-rl's."""

MODEL_FILES = {
    ("3D", True): "gait14dof22musc_pros_20180507.osim",
    ("3D", False): "gait14dof22musc_20170320.osim",
    ("2D", True): "gait14dof22musc_planar_pros_20180507.osim",
    ("2D", False): "gait14dof22musc_planar_20170320.osim",
}
"""(model, prosthetic) -> file in osim-rl's models directory."""

INTEGRATORS = {
    name.removeprefix("IntegratorMethod_"): getattr(opensim.Manager, name)
    for name in dir(opensim.Manager)
    if name.startswith("IntegratorMethod_")
}
"""Integrator method by name, as this OpenSim offers them."""

FLOAT32_MAX = float(np.finfo(np.float32).max)

FIRST_EXCITATION = 1.0
"""What every muscle receives before the first action: osim-rl's value in a newly loaded model.

Creating an integrator evaluates the controls once, and the first step starts from that evaluation. osim-rl leaves the
last action of the previous episode there, so that its episodes depend on the ones before; ours do not.
"""


class BridgedModel(OsimModel):  # type: ignore[misc]
    """osim-rl's own model class with a constructor that OpenSim 4.6 accepts; everything else is inherited."""

    def __init__(self, model_path: str, visualize: bool = False, integrator_accuracy: float = 5e-5) -> None:
        self.integrator_accuracy = integrator_accuracy
        self.model = opensim.Model(model_path)
        self.model.initSystem()
        self.model.setUseVisualizer(visualize)
        self.brain = opensim.PrescribedController()
        self.muscleSet = self.model.getMuscles()
        self.forceSet = self.model.getForceSet()
        self.bodySet = self.model.getBodySet()
        self.jointSet = self.model.getJointSet()
        self.markerSet = self.model.getMarkerSet()
        self.contactGeometrySet = self.model.getContactGeometrySet()
        # osim-rl appends to lists of the class, which grow with every model of the process
        self.maxforces: list[float] = []
        self.curforces: list[float] = []
        self.noutput = self.muscleSet.getSize()
        for j in range(self.noutput):
            muscle = self.muscleSet.get(j)
            self.brain.addActuator(muscle)
            # OpenSim 4.6 takes the actuator's path where osim-rl passes its index
            path = muscle.getAbsolutePathString()
            self.brain.prescribeControlForActuator(path, opensim.Constant(FIRST_EXCITATION))
            self.maxforces.append(muscle.getMaxIsometricForce())
            self.curforces.append(1.0)
        self.model.addController(self.brain)
        self.model.initSystem()


class OpenSimModel(BridgedModel):
    """A walker that takes excitations and yields state rows.

    Call `extract` after every `reset` and `integrate`, as osim-rl does with its dictionary: OpenSim begins the next
    step with the controls that were evaluated then, so that leaving it out changes the trajectory.

    Parameters
    ----------
    model
        "2D" or "3D".
    prosthetic
        Whether the right leg ends in a prosthesis.
    integrator
        A key of `INTEGRATORS`; osim-rl uses RungeKuttaMerson.
    accuracy
        Relative error allowed per integrator step; osim-rl uses 5e-5.

    Raises
    ------
    ValueError
        When OpenSim has no such integrator or the accuracy is not positive.
    LayoutError
        When the model file's joints, bodies, forces or muscles are not those of the layout.
    """

    def __init__(self, model: Model, prosthetic: bool, integrator: str, accuracy: float) -> None:
        if integrator not in INTEGRATORS:
            raise ValueError(f"integrator {integrator!r} is not one of {', '.join(sorted(INTEGRATORS))}")
        if not 0 < accuracy < 1:
            raise ValueError(f"accuracy must lie between 0 and 1, not {accuracy!r}")
        self.integrator = integrator
        path = os.path.join(os.path.dirname(osim.__file__), "models", MODEL_FILES[model, prosthetic])
        super().__init__(path, integrator_accuracy=accuracy)
        self.layout = prosthetics_layout(model, prosthetic)
        _check_layout(self.layout, tuple(self.column_names()))
        self._set_excitation = self._excitation_handles()
        self._reader = _RowReader(self)
        self._reward = _OfficialReward()
        self._row: Float64 = np.empty(len(self.layout))
        self.action_names = action_names(model, prosthetic)
        self._activations = self.layout.indices(f"muscles/{name}/activation" for name in self.action_names)
        self._pelvis_velocity = self.layout.indices(f"body_vel/pelvis/{axis}" for axis in "xyz")

    def _excitation_handles(self) -> list[Callable[[float], None]]:
        controller = opensim.PrescribedController.safeDownCast(self.model.getControllerSet().get(0))
        functions = controller.get_ControlFunctions()
        return [opensim.Constant.safeDownCast(functions.get(j)).setValue for j in range(functions.getSize())]

    def set_excitations(self, excitations: list[float]) -> None:
        """What the muscles receive from now on, each within [0, 1]; the caller has checked it."""
        for set_excitation, excitation in zip(self._set_excitation, excitations, strict=True):
            set_excitation(excitation)

    def reset_manager(self) -> None:
        """A new integrator that starts at the current state."""
        self.manager = opensim.Manager(self.model)
        self.manager.setIntegratorMethod(INTEGRATORS[self.integrator])
        self.manager.setIntegratorAccuracy(self.integrator_accuracy)
        # by default every integrator step is kept until the episode ends: memory and time for what nobody reads
        self.manager.setWriteToStorage(False)
        self.manager.setPerformAnalyses(False)
        self.manager.initialize(self.state)

    def reset(self) -> None:
        """The official first pose, its muscles in equilibrium, at time 0.

        Raises
        ------
        SimulatorFailure
            Of kind ``reset`` when OpenSim cannot assemble the pose.
        """
        self.set_excitations([FIRST_EXCITATION] * self.noutput)
        try:
            super().reset()
        except RuntimeError as error:
            raise SimulatorFailure(_first_line(error), "reset") from error

    def integrate(self) -> None:
        """Advance by `STEP_SECONDS`.

        Raises
        ------
        SimulatorFailure
            Of kind ``integrator`` when OpenSim gives up or stops early. The model must be reset then.
        """
        try:
            super().integrate()
        except RuntimeError as error:
            raise SimulatorFailure(_first_line(error), "integrator") from error
        reached, wanted = self.state.getTime(), STEP_SECONDS * self.istep
        if not abs(reached - wanted) < 1e-9:
            raise SimulatorFailure(f"stopped at {reached:.6f} s on the way to {wanted:.6f} s", "integrator")

    def extract64(self, out: Float64) -> None:
        """Write the current state row, [S], equal to the last bit to osim-rl's ``compute_state_desc()``."""
        self.model.realizeAcceleration(self.state)
        self._reader.read(self.state, out)

    def extract(self, out: Float32) -> None:
        """Write the current state row, [S].

        Raises
        ------
        SimulatorFailure
            Of kind ``non_finite`` when a column is NaN or infinite; `out` is not written then.
        """
        self.extract64(self._row)
        if not np.abs(self._row).max() <= FLOAT32_MAX:  # false for NaN too
            column = int(np.argmin(np.abs(self._row) <= FLOAT32_MAX))
            name, value = self.layout.columns[column].name, self._row[column]
            raise SimulatorFailure(f"{name} is {value} at step {self.istep}", "non_finite")
        out[...] = self._row

    def official_reward(self, round_: int, target_velocity: Float64 | None) -> float:
        """osim-rl's own reward of the step that led to the row extracted last.

        Parameters
        ----------
        round_
            1 or 2 of the 2018 challenge.
        target_velocity
            [3] in m/s at this step; only for round 2.
        """
        reward = self._reward
        reward.difficulty = round_ - 1
        reward.description["body_vel"] = {"pelvis": self._row[self._pelvis_velocity].tolist()}
        if target_velocity is not None:
            reward.activations = self._row[self._activations].tolist()
            reward.description["target_vel"] = target_velocity.tolist()
        return float(reward.reward())

    def column_names(self) -> Iterator[str]:
        """The columns as the loaded model itself names them, in the order of osim-rl's dictionary."""
        joints = _members(self.jointSet)
        for group in ("joint_pos", "joint_vel", "joint_acc"):
            for joint in joints:
                for i in range(joint.numCoordinates()):
                    yield f"{group}/{joint.getName()}/{joint.get_coordinates(i).getName()}"
        for group in ("body_pos", "body_vel", "body_acc", "body_pos_rot", "body_vel_rot", "body_acc_rot"):
            for body in _members(self.bodySet):
                yield from (f"{group}/{body.getName()}/{axis}" for axis in "xyz")
        for force in _members(self.forceSet):
            yield from _record_names(force)
        for muscle in _members(self.muscleSet):
            for quantity in ("activation", "fiber_length", "fiber_velocity", "fiber_force"):
                yield f"muscles/{muscle.getName()}/{quantity}"
        for quantity in ("mass_center_pos", "mass_center_vel", "mass_center_acc"):
            yield from (f"misc/{quantity}/{axis}" for axis in "xyz")


class _RowReader:
    """Reads a realized state with few and cheap calls into OpenSim.

    It calls the functions behind OpenSim's Python methods: the same without a Python frame each, which is a fifth of
    the time. One of these 460 calls costs some 0.5 us, twice that straight after an integration, when their code has
    left the caches. OpenSim's reporters, which gather in C++, take longer still.
    """

    def __init__(self, model: OpenSimModel) -> None:
        self._model = model.model
        self._coordinates = _system_order(model)
        self._bodies = _members(model.bodySet)
        self._muscles = _members(model.muscleSet)
        forces = _members(model.forceSet)[len(self._muscles) :]
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


class _OfficialReward(ProstheticsEnv):  # type: ignore[misc]
    """osim-rl's reward methods over the few numbers that they read."""

    def __init__(self) -> None:
        # not super().__init__: it loads a model and seeds the global random generators
        self.difficulty = 0
        self.description: dict[str, Any] = {}
        self.activations: list[float] = []
        self.osim_model = self

    def get_state_desc(self) -> dict[str, Any]:
        return self.description

    def get_prev_state_desc(self) -> dict[str, Any]:
        return self.description

    def get_activations(self) -> list[float]:
        return self.activations


class OfficialEnvironment(ProstheticsEnv):  # type: ignore[misc]
    """osim-rl's own environment on this OpenSim, to compare with. It seeds the global random generators, as ever."""

    def __init__(self, model: Model, prosthetic: bool, round_: int, accuracy: float = 5e-5) -> None:
        self.model, self.prosthetic = model, prosthetic
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # gym on the precision of bounds that nobody uses
            super().__init__(visualize=False, integrator_accuracy=accuracy, difficulty=round_ - 1)

    def load_model(self, model_path: str | None = None) -> None:
        # osim-rl's own method, but for the class of the model
        self.osim_model = BridgedModel(self.model_path, integrator_accuracy=self.integrator_accuracy)
        self.spec = Spec()
        self.spec.timestep_limit = self.time_limit


def _members(collection: Any) -> list[Any]:
    return [collection.get(i) for i in range(collection.getSize())]


def _system_order(model: OpenSimModel) -> npt.NDArray[np.intp]:
    """Position in the system's vector of coordinates of each coordinate of the joints, in the joints' order."""
    names = opensim.createStateVariableNamesInSystemOrder(model.model)
    in_system = [name.split("/")[-2] for name in names if name.endswith("/value")]
    coordinates = [
        joint.get_coordinates(i) for joint in _members(model.jointSet) for i in range(joint.numCoordinates())
    ]
    return np.array([in_system.index(coordinate.getName()) for coordinate in coordinates])


def _record_names(force: Any) -> Iterator[str]:
    """The labels of a force's record without its own name; ``force`` if nothing remains, ``.2`` where one repeats."""
    labels = force.getRecordLabels()
    seen: list[str] = []
    for i in range(labels.size()):
        label = labels.get(i).removeprefix(force.getName()).lstrip("._")
        label = "force" if label in ("", "Force") else label
        seen.append(label)
        suffix = f".{seen.count(label)}" if seen.count(label) > 1 else ""
        yield f"forces/{force.getName()}/{label}{suffix}"


def _check_layout(layout: StateLayout, names: tuple[str, ...]) -> None:
    expected = tuple(column.name for column in layout.columns)
    if names != expected:
        wrong = [f"{ours} (model: {theirs})" for ours, theirs in zip(expected, names, strict=False) if ours != theirs]
        difference = (wrong or ["length"])[0]
        raise LayoutError(f"{len(names)} columns in the model, {len(expected)} in the layout; differing: {difference}")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
