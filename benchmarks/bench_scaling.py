"""Do two simulator processes play twice as many steps per second as one?

Processes that hold a simulator each play the same random excitations for a few seconds, one alone and then both at
once, turn by turn; a ratio is the steps per second of both divided by those of the one in the same turn. Wall-clock
time: what else the machine does counts, so nothing else may run. The floor holds where there are two cores.

    python benchmarks/bench_scaling.py --json benchmarks/results/scaling.json
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
from multiprocessing.synchronize import Barrier
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from bench_rollout import episode_actions
from floors import Floor, missed
from provenance import commit, simulator_machine

from rollout.environments.prosthetics import ProstheticsEnvironment

FLOOR = 1.8
"""Least acceptable ratio of two processes to one."""

EPISODE_STEPS = 50


def play(number: int, turns: list[int], seconds: float, start: Barrier, results: Any) -> None:
    """Process `number` plays in the turns that let it; sends its steps per second of each."""
    environment = ProstheticsEnvironment(round=1, integrator="SemiExplicitEuler2", accuracy=1e-3)
    row = np.empty(environment.state_size, np.float32)
    actions = episode_actions(EPISODE_STEPS)
    speeds = []
    for processes in turns:
        start.wait()
        began, steps = perf_counter(), 0
        while number < processes and perf_counter() - began < seconds:
            environment.reset(0, row)
            for action in actions:
                environment.step(action, row)
            steps += len(actions)
        speeds.append(steps / (perf_counter() - began))
    results.put(speeds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=10, help="of one process and of both")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a turn")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the results")
    arguments = parser.parse_args()
    if (os.cpu_count() or 1) < 2:
        parser.error("this machine has one core")

    context = multiprocessing.get_context("spawn")
    turns = [1, 2] * arguments.turns
    start, results = context.Barrier(2), context.SimpleQueue()
    processes = [
        context.Process(target=play, args=(number, turns, arguments.seconds, start, results)) for number in range(2)
    ]
    for process in processes:
        process.start()
    both = np.array([results.get() for _ in processes]).sum(axis=0)
    for process in processes:
        process.join()

    alone, together = both[::2], both[1::2]
    ratios = (together / alone).tolist()
    ratio = statistics.median(ratios)
    floors = [Floor("steps per second of two processes, of one", ratio, FLOOR)]
    verdict = "BELOW" if missed(floors) else "ok"
    print(f"one process {np.median(alone):.1f} steps/s, two {np.median(together):.1f}")
    print(f"ratio {ratio:.3f} (floor {FLOOR}): {verdict}")
    if arguments.json:
        numbers = {"one": alone.tolist(), "two": together.tolist(), "ratios": ratios, "ratio": ratio}
        about = {"commit": commit(), "machine": simulator_machine(), "floors": [floor.record for floor in floors]}
        arguments.json.write_text(json.dumps(about | {"steps_per_second": numbers}, indent=2) + "\n")
    return missed(floors)


if __name__ == "__main__":
    sys.exit(main())
