"""Does a simulator process grow or slow down when it is never replaced?

One process plays random excitations, episode after episode, and notes its resident memory and its speed after every
window of steps. osim-rl's issues report leaks and slowing with older versions of OpenSim; the supervisor replaces
processes for that reason (`episodes_per_process`). Speed is by processor time of the one thread.

    python benchmarks/bench_endurance.py --json benchmarks/results/endurance.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from time import thread_time
from typing import Any, get_args

import numpy as np
import psutil
from provenance import commit, simulator_machine

from gaitfleet.experiment import INTEGRATORS
from gaitfleet.task.prosthetics_layout import Model
from rollout.environments.interface import SimulatorFailure
from rollout.environments.prosthetics import ProstheticsEnvironment

FALL_HEIGHT_M = 0.6
TIME_LIMIT_STEPS = 300
HELD_STEPS = 4


def endure(environment: ProstheticsEnvironment, steps: int, window: int) -> Iterator[dict[str, Any]]:
    """One entry for every `window` steps; resets count as time of the steps."""
    process, generator = psutil.Process(), np.random.default_rng(0)
    pelvis_y = environment.layout.index("body_pos/pelvis/y")
    row = np.zeros(environment.state_size, np.float32)
    episodes = failures = 0
    of_episode = TIME_LIMIT_STEPS
    slowest, began = 0.0, thread_time()
    for step in range(1, steps + 1):
        if of_episode >= TIME_LIMIT_STEPS or row[pelvis_y] < FALL_HEIGHT_M:
            environment.reset(episodes, row)
            episodes, of_episode = episodes + 1, 0
        if of_episode % HELD_STEPS == 0:
            action = generator.random(environment.action_size, np.float32)
        before = thread_time()
        try:
            environment.step(action, row)
            of_episode += 1
        except SimulatorFailure:
            failures, of_episode = failures + 1, TIME_LIMIT_STEPS
        slowest = max(slowest, thread_time() - before)
        if step % window == 0:
            resident = process.memory_info().rss / 2**20
            speed = window / (thread_time() - began)
            entry = {"step": step, "episodes": episodes, "failures": failures, "resident_mib": round(resident, 1)}
            yield entry | {"steps_per_second": round(speed, 1), "slowest_step_seconds": round(slowest, 3)}
            slowest, began = 0.0, thread_time()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--window", type=int, default=1000)
    parser.add_argument("--model", choices=get_args(Model), default="3D")
    parser.add_argument("--integrator", choices=INTEGRATORS, default="SemiExplicitEuler2")
    parser.add_argument("--accuracy", type=float, default=1e-3)
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the results")
    options = parser.parse_args()
    environment = ProstheticsEnvironment(
        options.model, round=1, integrator=options.integrator, accuracy=options.accuracy
    )
    settings = {"model": options.model, "integrator": options.integrator, "accuracy": options.accuracy}
    report: dict[str, Any] = {
        "commit": commit(),
        "machine": simulator_machine(),
        "settings": settings,
        "floors": [],
        "windows": [],
    }
    for entry in endure(environment, options.steps, options.window):
        print(entry, flush=True)
        report["windows"].append(entry)
        if options.json:  # after every window: what a stopped run has seen is worth having
            options.json.write_text(json.dumps(report, indent=2) + "\n")
    first, last = report["windows"][0], report["windows"][-1]
    grown = last["resident_mib"] - first["resident_mib"]
    print(f"resident memory {first['resident_mib']} MiB after {first['step']} steps, {grown:+.1f} MiB at the end")
    print(f"speed {first['steps_per_second']} steps/s in the first window, {last['steps_per_second']} in the last")


if __name__ == "__main__":
    main()
