"""From task settings to a simulator. Simulators are imported here when they are asked for: each needs its own extra."""

from __future__ import annotations

from gaitfleet.episode import Role
from gaitfleet.experiment import OFFICIAL_SIMULATOR, GymnasiumTask, ProstheticsTask, SimulatorSettings
from gaitfleet.task.prosthetics_measures import STEP_SECONDS
from rollout.environments.interface import Environment


def make_environment(task: ProstheticsTask | GymnasiumTask, role: Role) -> Environment:
    """The simulator of a task.

    Raises
    ------
    ImportError
        When the extra that holds the simulator is not installed.
    ValueError
        When the simulator has no such environment, or one that cannot be used.
    """
    if isinstance(task, GymnasiumTask):
        return _gymnasium(task.environment.removeprefix("gymnasium:"))
    from rollout.environments.prosthetics import ProstheticsEnvironment

    simulator = simulator_settings(task, role)
    return ProstheticsEnvironment(
        model=task.model,
        prosthetic=task.prosthetic,
        round=task.round,
        integrator=simulator.integrator,
        accuracy=simulator.accuracy,
    )


def _gymnasium(environment_id: str) -> Environment:
    import gymnasium

    from rollout.environments.gymnasium_environment import GymnasiumEnvironment

    try:
        return GymnasiumEnvironment(environment_id)
    except gymnasium.error.Error as error:
        raise ValueError(f"Gymnasium cannot make {environment_id!r}: {error}") from error


def simulator_settings(task: ProstheticsTask, role: Role) -> SimulatorSettings:
    """How OpenSim integrates: as the experiment says, but for evaluation as osim-rl does."""
    return OFFICIAL_SIMULATOR if role == "evaluate" else task.simulator


def step_seconds(task: ProstheticsTask | GymnasiumTask) -> float | None:
    """Simulated time of one step; None where it is not known."""
    return STEP_SECONDS if isinstance(task, ProstheticsTask) else None
