"""All that is known about the peculiarities of OpenSim and osim-rl; beside `opensim_rows` the one file to import them.

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
from gaitfleet.pose import Pose
from gaitfleet.task.prosthetics_layout import LOCKED_COORDINATES, Model, action_names, prosthetics_layout
from rollout.environments.interface import SimulatorFailure
from rollout.environments.opensim_rows import RowReader, members, record_names

with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
    # gym, which osim-rl needs for its base class, prints that it is no longer maintained
    warnings.simplefilter("ignore")
    import opensim
    import osim
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
        names = tuple(self.column_names())
        _check_layout(self.layout, names)
        self._locked = LOCKED_COORDINATES[model]
        self._set_excitation = self._excitation_handles()
        self._reader = RowReader(self, names)
        self._row: Float64 = np.empty(len(self.layout))
        self.action_names = action_names(model, prosthetic)
        self._activations = self.layout.indices(f"muscles/{name}/activation" for name in self.action_names)
        self._pelvis_velocity = [self.layout.index(f"body_vel/pelvis/{axis}") for axis in "xz"]

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

    def reset(self, pose: Pose | None = None) -> None:
        """The official first pose, or another one, its muscles in equilibrium, at time 0.

        The height of the pelvis follows from `pose`: its lowest contact sphere just touches the ground. (In the
        official pose the feet are 2.4 cm deep in it and carry the body.)

        Raises
        ------
        ValueError
            When `pose` names a coordinate that does not exist, is locked, or is the pelvis' height.
        SimulatorFailure
            Of kind ``reset`` when OpenSim cannot assemble the pose.
        """
        self.set_excitations([FIRST_EXCITATION] * self.noutput)
        try:
            # as osim-rl does, with the pose in between
            self.state = self.model.initializeState()
            coordinates = {} if pose is None else self._take_up(pose)
            self.model.equilibrateMuscles(self.state)  # at rest: OpenSim does not always find it in motion
            for name, speed in ({} if pose is None else pose.speed).items():
                coordinates[name].setSpeedValue(self.state, speed)
            self.state.setTime(0)
            self.istep = 0
            self.state_desc_istep = None  # osim-rl would answer with the dictionary of another pose at this step
            self.reset_manager()
        except RuntimeError as error:
            raise SimulatorFailure(_first_line(error), "reset") from error

    def _take_up(self, pose: Pose) -> dict[str, Any]:
        """Set the angles and the height; the result are the coordinates by name."""
        coordinates = {coordinate.getName(): coordinate for coordinate in members(self.model.getCoordinateSet())}
        free = coordinates.keys() - set(self._locked)
        for name in (pose.value.keys() - (free - {"pelvis_ty"})) | (pose.speed.keys() - free):
            raise ValueError(f"the pose sets {name!r}, which does not exist here, is locked or follows from the feet")
        for name, value in pose.value.items():
            coordinates[name].setValue(self.state, value, False)
        height = coordinates["pelvis_ty"]
        height.setValue(self.state, height.getValue(self.state) - self._lowest_contact(), False)
        return coordinates

    def _lowest_contact(self) -> float:
        """Height in m of the lowest point that can touch the ground."""
        self.model.realizePosition(self.state)
        spheres = map(opensim.ContactSphere.safeDownCast, members(self.contactGeometrySet))
        bottoms: list[float] = [
            sphere.getFrame().findStationLocationInGround(self.state, sphere.get_location()).get(1) - sphere.getRadius()
            for sphere in spheres
            if sphere is not None
        ]
        return min(bottoms)

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
        """Write the current state row, [S]; what float32 cannot hold becomes infinite."""
        self.extract64(self._row)
        out[...] = self._row

    def official_reward(self, target_velocity: list[float] | None) -> float:
        """Of the step that led to the row extracted last, equal to the last bit to osim-rl's own.

        Parameters
        ----------
        target_velocity
            Forward, up and right in m/s at this step, for round 2 of the 2018 challenge; None for round 1.
        """
        forward, right = (self._row.item(column) for column in self._pelvis_velocity)
        if target_velocity is None:
            return 9.0 - (forward - 3.0) ** 2
        activations = self._row.take(self._activations)
        penalty: float = np.add.reduce(activations * activations).item() * 0.001
        penalty += (forward - target_velocity[0]) ** 2
        penalty += (right - target_velocity[2]) ** 2
        return 10.0 - penalty

    def column_names(self) -> Iterator[str]:
        """The columns as the loaded model itself names them, in the order of osim-rl's dictionary."""
        joints = members(self.jointSet)
        for group in ("joint_pos", "joint_vel", "joint_acc"):
            for joint in joints:
                for i in range(joint.numCoordinates()):
                    yield f"{group}/{joint.getName()}/{joint.get_coordinates(i).getName()}"
        for group in ("body_pos", "body_vel", "body_acc", "body_pos_rot", "body_vel_rot", "body_acc_rot"):
            for body in members(self.bodySet):
                yield from (f"{group}/{body.getName()}/{axis}" for axis in "xyz")
        for force in members(self.forceSet):
            yield from record_names(force)
        for muscle in members(self.muscleSet):
            for quantity in ("activation", "fiber_length", "fiber_velocity", "fiber_force"):
                yield f"muscles/{muscle.getName()}/{quantity}"
        for quantity in ("mass_center_pos", "mass_center_vel", "mass_center_acc"):
            yield from (f"misc/{quantity}/{axis}" for axis in "xyz")


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


def _check_layout(layout: StateLayout, names: tuple[str, ...]) -> None:
    expected = tuple(column.name for column in layout.columns)
    if names != expected:
        wrong = [f"{ours} (model: {theirs})" for ours, theirs in zip(expected, names, strict=False) if ours != theirs]
        difference = (wrong or ["length"])[0]
        raise LayoutError(f"{len(names)} columns in the model, {len(expected)} in the layout; differing: {difference}")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
