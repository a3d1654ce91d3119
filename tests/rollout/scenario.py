"""Experiments, policies and a supervisor with few lines."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from failing_environments import counting

from gaitfleet.episode import Episode, check_episode, decode_episode
from gaitfleet.experiment import Experiment, parse_experiment
from gaitfleet.policy import Activation, LayerNorm, Linear, PolicyDescription, Residual, encode_policy
from gaitfleet.task import make_task
from gaitfleet.task.interface import TaskDescription
from rollout.assignment import EnvironmentFactory, SimulatorSpecification
from rollout.episode_record import Recorder
from rollout.metrics import Metrics
from rollout.schedule import Schedule, TrainingSchedule
from rollout.simulator_process import task_of
from rollout.supervisor import SimulatorLimits, Supervisor


def pendulum(steps: int = 20, repeat: int = 1, **blocks: Any) -> Experiment:
    """Pendulum with short episodes."""
    task = {"environment": "gymnasium:Pendulum-v1", "time_limit_steps": steps, "action": {"repeat": repeat}}
    return parse_experiment({"task": task, **blocks})


def simba_policy(task: TaskDescription, version: int = 1, seed: int = 0, hidden: int = 128, **changes: Any) -> bytes:
    """A policy of the default shape: one residual block, stochastic head."""
    generator = np.random.default_rng(seed)
    tensors = {
        "normalizer.mean": np.zeros(task.observation_size, np.float32),
        "normalizer.std": np.ones(task.observation_size, np.float32),
        "recent.observation": generator.standard_normal((64, task.observation_size), np.float32),
    }

    def linear(name: str, into: int, out: int) -> Linear:
        tensors[f"{name}.weight"] = (generator.standard_normal((out, into)) / np.sqrt(into)).astype(np.float32)
        tensors[f"{name}.bias"] = np.zeros(out, np.float32)
        return Linear(name=name)

    def norm(name: str) -> LayerNorm:
        tensors[f"{name}.weight"] = np.ones(hidden, np.float32)
        tensors[f"{name}.bias"] = np.zeros(hidden, np.float32)
        return LayerNorm(name=name)

    wide = linear("block.up", hidden, 4 * hidden), Activation(kind="relu"), linear("block.down", 4 * hidden, hidden)
    layers = (
        linear("embed", task.observation_size, hidden),
        Residual(layers=(norm("block.norm"), *wide)),
        norm("norm"),
        linear("head", hidden, 2 * task.action_size),
    )
    values = {
        "run": "test",
        "version": version,
        "observation_size": task.observation_size,
        "action_size": task.action_size,
        "observation_hash": task.observation_hash,
        "observation_clip": 5.0,
        "layers": layers,
        "head": "tanh_normal",
    }
    return encode_policy(PolicyDescription(**(values | changes)), tensors)


@dataclass
class Collected:
    """An outbox that keeps what it gets."""

    bodies: list[bytes] = field(default_factory=list)
    accepting: bool = True

    def submit(self, episode_id: str, body: bytes) -> None:
        self.bodies.append(body)

    def episodes(self) -> list[Episode]:
        return [decode_episode(body) for body in self.bodies]


@dataclass
class Scenario:
    """A supervisor over one simulator, unless said otherwise.

    Attributes
    ----------
    outbox
        Holds the episodes.
    """

    experiment: Experiment = field(default_factory=pendulum)
    make_environment: EnvironmentFactory = counting
    role: Any = "train"
    simulators: int = 1
    schedule: Schedule | None = None
    limits: SimulatorLimits = field(default_factory=SimulatorLimits)

    def __post_init__(self) -> None:
        self.outbox = Collected()
        self.metrics = Metrics("test")
        specification = SimulatorSpecification(self.experiment.task, self.role, self.make_environment)
        self.task = task_of(specification)
        self.supervisor = Supervisor(
            specification,
            self.task,
            Recorder("test", "worker", specification, self.task),
            simulators=self.simulators,
            schedule=self.schedule or TrainingSchedule(self.experiment, "worker", None),
            outbox=self.outbox,
            metrics=self.metrics,
            limits=self.limits,
        )

    def play_until(self, done: Callable[[], bool], seconds: float = 60.0, *, drain: float = 3.0) -> list[Episode]:
        """Play until a condition holds, stop, and return all episodes, each held against the task."""
        stop = threading.Event()
        deadline = time.monotonic() + seconds

        def check() -> None:
            assert time.monotonic() < deadline, f"not within {seconds} s: {len(self.outbox.bodies)} episodes"
            if done():
                stop.set()

        try:
            self.supervisor.run(stop, check)
            self.supervisor.drain(drain)
        finally:
            self.supervisor.close()
        episodes = self.outbox.episodes()
        for episode in episodes:
            check_episode(episode, "test", make_task(self.experiment.task).description)
        return episodes

    def value(self, name: str, **labels: str) -> float:
        """A metric."""
        return self._sample(name, labels) or 0.0

    def begins_at_zero(self, name: str, **labels: str) -> bool:
        """Whether a counter is there before its first event."""
        return self._sample(name, labels) == 0.0

    def _sample(self, name: str, labels: dict[str, str]) -> float | None:
        return self.metrics.registry.get_sample_value(
            f"rl_rollout_{name}", {"run_id": "test", "role": "train", **labels}
        )
