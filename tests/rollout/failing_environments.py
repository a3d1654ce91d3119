"""Simulators that misbehave, made in the simulator process by name."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from rollout.environments.interface import SimulatorFailure

STATE_SIZE, ACTION_SIZE = 3, 1
"""Those of Pendulum-v1, whose task they are played under."""


class CountingEnvironment:
    """Its state is (step, seed, last action); its reward is the step."""

    state_size, action_size = STATE_SIZE, ACTION_SIZE

    def __init__(self, at_step: Callable[[int, Any], None] = lambda step, state: None) -> None:
        self._at_step = at_step
        self._step = self._seed = 0

    def reset(self, seed: int, state: Any, target_velocity: Any = None, pose: Any = None) -> None:
        self._step, self._seed = 0, seed % 1000
        state[:] = 0, self._seed, 0

    def step(self, action: Any, state: Any) -> tuple[float, bool, bool]:
        self._step += 1
        state[:] = self._step, self._seed, action[0]
        self._at_step(self._step, state)
        return float(self._step), False, False

    def close(self) -> None:
        pass


def counting(task: Any, role: Any) -> CountingEnvironment:
    return CountingEnvironment()


def slow(task: Any, role: Any) -> CountingEnvironment:
    return CountingEnvironment(lambda step, state: time.sleep(0.02))


def wrong_size(task: Any, role: Any) -> CountingEnvironment:
    environment = CountingEnvironment()
    environment.state_size = 4
    return environment


def not_installed(task: Any, role: Any) -> CountingEnvironment:
    raise ImportError("No module named 'simulator'")


class Misbehaving:
    """Fails in a given way at step 6 of the first episode; once the marker is there it behaves.

    The row of step 6 is written before it fails, as a simulator that dies in the middle of a step might leave it.
    """

    def __init__(self, how: str, marker: Path) -> None:
        self._how, self._marker = how, marker

    def __call__(self, task: Any, role: Any) -> CountingEnvironment:
        return CountingEnvironment(self._at_step)

    def _at_step(self, step: int, state: Any) -> None:
        if step != 6 or self._marker.exists():
            return
        self._marker.touch()
        match self._how:
            case "hang":
                time.sleep(3600)
            case "exit":
                os._exit(11)
            case "raise":
                raise SimulatorFailure("unable to advance time", "integrator")
            case "bug":
                raise IndexError("out of range")
            case "nan":
                state[1] = np.nan
            case "overflow":
                state[1] = np.inf
            case "eat":
                self._held = np.ones(60_000_000)  # 480 MB
                time.sleep(3600)


class AlwaysFailing:
    """Raises in every reset."""

    def __call__(self, task: Any, role: Any) -> CountingEnvironment:
        environment = CountingEnvironment()
        environment.reset = self._reset  # type: ignore[method-assign]
        return environment

    def _reset(self, seed: int, state: Any, target_velocity: Any = None, pose: Any = None) -> None:
        raise SimulatorFailure("cannot assemble", "reset")


class Leaking:
    """Holds 40 MB more after every episode."""

    def __call__(self, task: Any, role: Any) -> CountingEnvironment:
        held: list[Any] = []
        return CountingEnvironment(lambda step, state: held.append(np.ones(5_000_000)) if step == 1 else None)
