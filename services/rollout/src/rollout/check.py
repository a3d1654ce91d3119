"""``python -m rollout.check``: whether OpenSim simulates here, and how fast; for `gaitfleet doctor`."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from gaitfleet.checkup import Finding, absent, failed, first_line, passed, tell
from gaitfleet.task.prosthetics_layout import prosthetics_layout
from rollout.environments.interface import SimulatorFailure

STEPS = 200
"""Simulator steps timed at each accuracy: 2 s of walking."""

SECONDS = 7.0
"""Wall-clock time after which a slow or busy machine need not finish them."""

ACCURACIES = {5e-5: "official, for evaluation", 1e-3: "default", 5e-3: "coarse"}
"""Integrator accuracies that are timed, with RungeKuttaMerson."""

LYING_M = 0.6
"""Height of the pelvis at which the walker starts anew: osim-rl's fall. Bodies below the ground cost more time."""


def findings() -> Iterator[Finding]:
    """One finding for each accuracy."""
    try:
        import rollout.environments.prosthetics  # noqa: F401
    except ImportError as error:
        advice = "to simulate the walker here: pip install 'gaitfleet-rollout[opensim]'"
        yield absent("simulator", first_line(error), advice)
        return
    for accuracy, purpose in ACCURACIES.items():
        name = f"simulator at {accuracy:g}"
        try:
            steps, seconds = timed(accuracy)
        except (SimulatorFailure, ValueError, RuntimeError) as error:
            yield failed(
                name, first_line(error), "reinstall: pip install --force-reinstall opensim==4.6 osim-rl==2.1.5"
            )
        else:
            yield passed(name, f"{steps} steps in {seconds:.1f} s, {steps / seconds:.0f} a second ({purpose})")


def timed(accuracy: float) -> tuple[int, float]:
    """Steps of the 3D model under random excitations, and their wall-clock seconds, resets included.

    Raises
    ------
    SimulatorFailure
        When OpenSim fails.
    """
    from rollout.environments.prosthetics import ProstheticsEnvironment

    environment = ProstheticsEnvironment(round=1, accuracy=accuracy)
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
