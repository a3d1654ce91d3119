"""What does a rollout worker cost on top of OpenSim's integrator?

For each model and integrator setting, every contender plays the same short episode again and again, turn by turn, on
the same simulator: where OpenSim's objects happen to lie in memory is worth up to 15 %. So every setting is played in
several processes, too, one after the other. `integration` resets, sets excitations, integrates, and evaluates the state
that it arrived at: what nobody can leave out who wants osim-rl's trajectory. `integrate calls` counts only the calls of
that name in the same loop. A ratio is the median over all turns of `integration`'s time divided by the contender's in
the same turn: the speed of a shared machine changes by half within seconds, but hardly within a turn. Times are
processor time of the one thread. The second table compares reading one state row with building osim-rl's dictionary,
both straight after an integration, when caches are cold.

    python benchmarks/bench_rollout.py --json rollout.json
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from time import perf_counter, thread_time
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
from floors import Floor, missed
from provenance import commit, simulator_machine

from gaitfleet.experiment import ProstheticsTask, SimulatorSettings
from gaitfleet.policy import Activation, LayerNorm, Linear, NumpyPolicy, PolicyDescription, Residual
from gaitfleet.pose import Pose
from gaitfleet.task import TaskDescription, make_task
from gaitfleet.task.prosthetics_layout import Model, action_names
from rollout.environments.opensim_compatibility import OpenSimModel
from rollout.environments.prosthetics import ProstheticsEnvironment
from rollout.exploration import Exploration, make_actor
from rollout.recording import Recording, RecordingShape, SharedBlock
from rollout.worker import run_episode

Float32 = npt.NDArray[np.float32]

FLOOR = 0.93
"""Least acceptable steps/s of the environment and of the worker as a share of `integration`'s."""

HELD_STEPS = 4
"""Steps for which one random action is held."""


@dataclass(frozen=True)
class Setting:
    """How the simulator runs."""

    model: Model
    integrator: str
    accuracy: float

    def __str__(self) -> str:
        return f"{self.model} {self.integrator} {self.accuracy:g}"


INTEGRATORS = (("SemiExplicitEuler2", 1e-3), ("RungeKuttaMerson", 1e-3), ("RungeKuttaMerson", 5e-5))
"""Two ways to train, and osim-rl's own, which evaluates."""


class Contender(ABC):
    """Something that plays an episode of given actions."""

    @abstractmethod
    def episode(self, actions: Float32) -> tuple[list[float], Float32]:
        """Play `actions`, [T, A] in [0, 1].

        Returns
        -------
        seconds
            For the reset and each step, [T + 1]. All that the contender does belongs to one of them.
        state
            The last row, [S]: the same for all contenders, or they did not do the same work.
        """


class Integration(Contender):
    """The bare loop: nothing is read, recorded or decided.

    The evaluation (realization of accelerations) belongs to osim-rl's trajectory: the next step starts from the
    controls evaluated in it. Without it the integrator would solve another problem, with fewer evaluations.
    """

    def __init__(self, setting: Setting, environment: ProstheticsEnvironment, steps: int) -> None:
        self.simulator = environment.simulator

    def episode(self, actions: Float32) -> tuple[list[float], Float32]:
        simulator, rows = self.simulator, actions.tolist()
        clock = [thread_time()]
        simulator.reset()
        simulator.model.realizeAcceleration(simulator.state)
        clock.append(thread_time())
        for excitations in rows:
            simulator.set_excitations(excitations)
            simulator.integrate()
            simulator.model.realizeAcceleration(simulator.state)
            clock.append(thread_time())
        return [end - start for start, end in pairwise(clock)], self.last_row()

    def last_row(self) -> Float32:
        row = np.empty(len(self.simulator.layout), np.float32)
        self.simulator.extract(row)
        return row


class IntegrateCalls(Integration):
    """The same loop with only resets and integrations timed."""

    def episode(self, actions: Float32) -> tuple[list[float], Float32]:
        simulator, rows = self.simulator, actions.tolist()
        start = thread_time()
        simulator.reset()
        seconds = [thread_time() - start]
        for excitations in rows:
            simulator.model.realizeAcceleration(simulator.state)
            simulator.set_excitations(excitations)
            start = thread_time()
            simulator.integrate()
            seconds.append(thread_time() - start)
        return seconds, self.last_row()


class Environment(Contender):
    """What a worker asks of the simulator: check and set excitations, integrate, write the state row, reward."""

    def __init__(self, setting: Setting, environment: ProstheticsEnvironment, steps: int) -> None:
        self.environment = environment
        self.rows = np.empty((steps + 1, self.environment.state_size), np.float32)
        self.target_velocity = np.tile(np.array([1.25, 0, 0], np.float32), (steps + 1, 1))

    def episode(self, actions: Float32) -> tuple[list[float], Float32]:
        environment, rows = self.environment, self.rows
        clock = [thread_time()]
        environment.reset(0, rows[0], self.target_velocity)
        clock.append(thread_time())
        for i, action in enumerate(actions):
            environment.step(action, rows[i + 1])
            clock.append(thread_time())
        return [end - start for start, end in pairwise(clock)], rows[len(actions)]


class Worker(Contender):
    """The worker's own loop: observation and a policy of the shipped size for every decision, recording, endings.

    The policy's sample is drawn and thrown away, so that all contenders act alike.
    """

    def __init__(self, setting: Setting, environment: ProstheticsEnvironment, steps: int) -> None:
        simulator = SimulatorSettings(integrator=setting.integrator, accuracy=setting.accuracy)
        self.task = make_task(
            ProstheticsTask(model=setting.model, round=2, simulator=simulator, time_limit_steps=steps)
        )
        self.environment = Clocked(environment)
        shape = RecordingShape.of(self.task.description)
        self.recording = Recording(SharedBlock(shape.nbytes), shape)
        self.policy = shipped_size_policy(self.task.description)

    def episode(self, actions: Float32) -> tuple[list[float], Float32]:
        sample = make_actor(Exploration(kind="sampled"), self.policy, actions.shape[1], seed=0, decisions=len(actions))
        decisions = iter(self.task.to_policy(actions[::HELD_STEPS]))

        def act(observation: Float32) -> Float32:
            sample(observation)
            return next(decisions)

        self.environment.clock = [thread_time()]
        played = self.recording

        def all_played() -> bool:
            return played.steps == len(actions)

        run_episode(self.environment, self.task, act, played, seed=0, stopping=all_played)
        seconds = [end - start for start, end in pairwise(self.environment.clock)]
        return seconds, played.state[len(actions)]


class Clocked:
    """An environment that notes when each of its calls ended."""

    def __init__(self, environment: ProstheticsEnvironment) -> None:
        self.clock: list[float] = []
        self.state_size, self.action_size = environment.state_size, environment.action_size
        self.close = environment.close
        self._environment = environment

    def reset(
        self, seed: int, state: Float32, target_velocity: Float32 | None = None, pose: Pose | None = None
    ) -> None:
        self._environment.reset(seed, state, target_velocity, pose)
        self.clock.append(thread_time())

    def step(self, action: Float32, state: Float32) -> tuple[float, bool, bool]:
        answer = self._environment.step(action, state)
        self.clock.append(thread_time())
        return answer


def shipped_size_policy(task: TaskDescription) -> NumpyPolicy:
    """A random actor of the shipped size: one SimBa block of 128."""
    generator, hidden = np.random.default_rng(0), 128
    layers = (
        Linear(name="in"),
        Residual(layers=(LayerNorm(name="n"), Linear(name="up"), Activation(kind="relu"), Linear(name="down"))),
        LayerNorm(name="out"),
        Linear(name="head"),
    )
    sizes = {
        "in": (hidden, task.observation_size),
        "up": (4 * hidden, hidden),
        "down": (hidden, 4 * hidden),
        "head": (2 * task.action_size, hidden),
        "n": (hidden,),
        "out": (hidden,),
    }
    tensors = {f"{name}.weight": 0.1 * generator.normal(size=size).astype(np.float32) for name, size in sizes.items()}
    tensors |= {f"{name}.bias": np.zeros(size[0], np.float32) for name, size in sizes.items()}
    tensors |= {"normalizer.mean": np.zeros(task.observation_size, np.float32)}
    tensors |= {"normalizer.std": np.ones(task.observation_size, np.float32)}
    description = PolicyDescription(
        run="bench",
        version=1,
        observation_size=task.observation_size,
        action_size=task.action_size,
        observation_hash=task.observation_hash,
        observation_clip=5.0,
        layers=layers,
        head="tanh_normal",
    )
    return NumpyPolicy(description, {name: tensor.astype(np.float32) for name, tensor in tensors.items()})


CONTENDERS: dict[str, Callable[[Setting, ProstheticsEnvironment, int], Contender]] = {
    "integration": Integration,
    "integrate calls": IntegrateCalls,
    "environment": Environment,
    "worker": Worker,
}
"""By name, made of a setting and the steps of an episode. The first is what the others are divided by."""

HELD_TO_FLOOR = "environment", "worker"


def episode_actions(steps: int) -> Float32:
    """Seeded random excitations, [T, A], multiples of 1/128: so the way to policy units and back is exact."""
    held = np.random.default_rng(0).integers(0, 129, (-(-steps // HELD_STEPS), len(action_names()))) / np.float32(128)
    return np.repeat(held.astype(np.float32), HELD_STEPS, axis=0)[:steps]


def play_turns(setting: Setting, steps: int, turns: int) -> dict[str, list[float]]:
    """Seconds of every contender's episodes, [turns] each."""
    environment = ProstheticsEnvironment(
        setting.model, round=2, integrator=setting.integrator, accuracy=setting.accuracy
    )
    contenders = {name: make(setting, environment, steps) for name, make in CONTENDERS.items()}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    last_rows: dict[str, Float32] = {}
    actions = episode_actions(steps)
    for contender in contenders.values():
        contender.episode(actions[:5])  # warms up
    for turn in range(turns):
        for name in list(contenders)[:: 1 if turn % 2 else -1]:
            own, last_rows[name] = contenders[name].episode(actions)
            seconds[name].append(sum(own))
    if not all(np.array_equal(row, last_rows["integration"]) for row in last_rows.values()):
        raise RuntimeError(f"{setting}: the contenders did not play the same episode")
    return seconds


def bench_contenders(setting: Setting, steps: int, turns: int, processes: int) -> list[dict[str, Any]]:
    """One result per contender, from so many processes, one after the other, with so many turns each."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=1) as pool:
        played = [pool.submit(play_turns, setting, steps, turns).result() for _ in range(processes)]
    episode = {name: np.array([own[name] for own in played]) for name in CONTENDERS}  # [processes, turns]
    ratio = {name: episode["integration"] / own for name, own in episode.items()}
    return [
        {
            **asdict(setting),
            "contender": name,
            "steps_per_second": steps / float(np.median(own)),
            "ratio": float(np.median(ratio[name])),
            "ratio_of_process": np.median(ratio[name], axis=1).tolist(),
            "episode_seconds": own.tolist(),
        }
        for name, own in episode.items()
    ]


def bench_extraction(setting: Setting, steps: int) -> dict[str, Any]:
    """Microseconds of reading a row and of the dictionary, on alternate steps of one trajectory.

    The median of each, and its 5 % quantile: a busy machine empties the caches in the middle of a call, but not in
    those of the quickest.
    """
    simulator = OpenSimModel(setting.model, True, setting.integrator, setting.accuracy)
    row = np.empty(len(simulator.layout), np.float32)
    spent: dict[str, list[float]] = {"realize": [], "read": [], "dictionary": [], "read_again": []}
    spent["dictionary_again"] = []

    def timed(name: str, call: Any, *arguments: Any) -> None:
        start = perf_counter()
        call(*arguments)
        spent[name].append((perf_counter() - start) * 1e6)

    simulator.reset()
    for i, excitations in enumerate(episode_actions(steps).tolist()):
        simulator.set_excitations(excitations)
        simulator.integrate()
        # both need it, and nothing else does: OpenSim evaluates the model once more at the end of the step
        timed("realize", simulator.model.realizeAcceleration, simulator.state)
        if i % 2:
            timed("dictionary", simulator.compute_state_desc)
            timed("dictionary_again", simulator.compute_state_desc)
        else:
            timed("read", simulator.extract, row)
            timed("read_again", simulator.extract, row)
    median = {f"{name}_microseconds": statistics.median(own) for name, own in spent.items()}
    quick = {f"{name}_quick_microseconds": float(np.quantile(own, 0.05)) for name, own in spent.items()}
    return asdict(setting) | median | quick


def print_tables(results: list[dict[str, Any]], extraction: list[dict[str, Any]], settings: list[Setting]) -> None:
    print(f"{'setting':32}{'contender':17}{'steps/s':>9}{'ratio':>8}  {'of the processes':>16}   floor {FLOOR}")
    for result in results:
        setting = Setting(result["model"], result["integrator"], result["accuracy"])
        verdict = ("ok" if result["ratio"] >= FLOOR else "BELOW") if result["contender"] in HELD_TO_FLOOR else ""
        spread = f"{min(result['ratio_of_process']):.3f} to {max(result['ratio_of_process']):.3f}"
        numbers = f"{result['steps_per_second']:9.1f}{result['ratio']:8.3f}  {spread:>16}"
        print(f"{setting!s:32}{result['contender']:17}{numbers}   {verdict}")
    print(f"\n{'microseconds: median (5 %)':32}{'row':>15}{'row, warm':>15}{'dictionary':>15}{'dict., warm':>15}")
    for setting, times in zip(settings, extraction, strict=True):
        cells = [
            f"{times[f'{name}_microseconds']:.0f} ({times[f'{name}_quick_microseconds']:.0f})"
            for name in ("read", "read_again", "dictionary", "dictionary_again")
        ]
        print(f"{setting!s:32}" + "".join(f"{cell:>15}" for cell in cells))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20, help="steps per episode; random walkers fall at 60 to 130")
    parser.add_argument("--turns", type=int, default=6, help="of every contender in a process")
    parser.add_argument("--processes", type=int, default=8, help="per setting")
    parser.add_argument("--models", nargs="+", choices=get_args(Model), default=["2D", "3D"])
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the results")
    arguments = parser.parse_args()

    settings = [Setting(model, *integrator) for model in arguments.models for integrator in INTEGRATORS]
    sizes = arguments.steps, arguments.turns, arguments.processes
    results = [result for setting in settings for result in bench_contenders(setting, *sizes)]
    extraction = [bench_extraction(setting, arguments.steps) for setting in settings]
    print_tables(results, extraction, settings)
    floors = [
        Floor(f"{r['contender']}, {r['model']}, {r['integrator']} {r['accuracy']:g}", r["ratio"], FLOOR)
        for r in results
        if r["contender"] in HELD_TO_FLOOR
    ]
    if arguments.json:
        report = {
            "commit": commit(),
            "machine": simulator_machine(),
            "command": "bench_rollout.py --steps {} --turns {} --processes {}".format(*sizes),
            "floors": [floor.record for floor in floors],
            "contenders": results,
            "extraction": extraction,
        }
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")
    return missed(floors)


if __name__ == "__main__":
    sys.exit(main())
