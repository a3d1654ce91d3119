"""``python -m rollout.check``: whether OpenSim simulates here, and how fast; for `gaitfleet doctor`."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from gaitfleet.checkup import Finding, absent, failed, first_line, passed, tell
from gaitfleet.experiment import OFFICIAL_SIMULATOR, SimulatorSettings
from gaitfleet.task.prosthetics_layout import prosthetics_layout
from rollout.environments.interface import SimulatorFailure

STEPS = 200
"""Simulator steps timed with each: 2 s of walking."""

SECONDS = 7.0
"""Wall-clock time after which a slow or busy machine need not finish them."""

TIMED = {
    "official, for evaluation": OFFICIAL_SIMULATOR,
    "default": SimulatorSettings(),
    "coarse": SimulatorSettings(accuracy=5e-3),
}
"""Integrator settings that are timed, by what they are for."""

LYING_M = 0.6
"""Height of the pelvis at which the walker starts anew: osim-rl's fall. Bodies below the ground cost more time."""


def findings() -> Iterator[Finding]:
    """One finding for each of `TIMED`."""
    try:
        import rollout.environments.prosthetics  # noqa: F401
    except ImportError as error:
        advice = "to simulate the walker here: pip install 'gaitfleet-rollout[opensim]'"
        yield absent("simulator", first_line(error), advice)
        return
    for purpose, settings in TIMED.items():
        name = f"simulator, {settings.integrator} {settings.accuracy:g}"
        try:
            steps, seconds = timed(settings)
        except (SimulatorFailure, ValueError, RuntimeError) as error:
            yield failed(
                name, first_line(error), "reinstall: pip install --force-reinstall opensim==4.6 osim-rl==2.1.5"
            )
        else:
            yield passed(name, f"{steps} steps in {seconds:.1f} s, {steps / seconds:.0f} a second ({purpose})")


def timed(settings: SimulatorSettings) -> tuple[int, float]:
    """Steps of the 3D model under random excitations, and their wall-clock seconds, resets included.

    Raises
    ------
    SimulatorFailure
        When OpenSim fails.
    """
    from rollout.environments.prosthetics import ProstheticsEnvironment

    environment = ProstheticsEnvironment(round=1, integrator=settings.integrator, accuracy=settings.accuracy)
    state = np.empty(environment.state_size, np.float32)
    pelvis = prosthetics_layout("3D").index("body_pos/pelvis/y")
    random = np.random.default_rng(0)
    environment.reset(0, state)
    began = time.perf_counter()
    done, seconds = 0, 0.0
    while done < STEPS and seconds < SECONDS:
        environment.step(random.random(environment.action_size, dtype=np.float32), state)
        if state[pelvis] < LYING_M:
            environment.reset(0, state)
        done, seconds = done + 1, time.perf_counter() - began
    return done, seconds


if __name__ == "__main__":
    tell(findings())
