"""How fast are batches sampled over HTTP, against the bare cost of gathering and sending them?

`bare` gathers the same columns from arrays of the same size with numpy and sends them over TCP with `sendall`, in one
thread for every connection; `uniform` and `prioritized` are the replay API with its database, read by the client that
the trainer uses. Every process is its own: database, API, bare sender, and this one, which reads. They take turns, a
short while each, and a ratio is the median over the turns, so that the noise of a busy machine stays out of it. In the
last case another process posts 50 episodes a second to the same run; its turns alternate with idle ones. DeepMind's
Reverb takes its turns, too, where it is installed: `python3.11 -m venv reverb; reverb/bin/pip install
"dm-reverb[tensorflow]==0.14.0"`, then `--reverb reverb/bin/python`, or that in the variable
REVERB_PYTHON.

    python benchmarks/bench_sample.py --turns 5 --json sample.json
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from bare_sender import BATCH_SIZE, BareReader
from floors import Floor, missed
from noise import EPISODE_STEPS, episode_of, experiment_of, run_of
from reverb_process import ReverbProcess
from serving import LagProbe, Served, machine, said, served

from gaitfleet.client import ReplayClient
from gaitfleet.experiment import parse_experiment
from gaitfleet.task import make_task
from gaitfleet.wire import BatchRequest

FLOORS = {8: 0.60, 32: 0.85}
"""Least acceptable share of the bare sender's rate, by batches in one answer, at float32."""

PRIORITIZED_FLOOR = 0.9
"""Least acceptable share of the uniform rate at 32 batches, float32."""

BUSY_FLOOR = 0.5
"""Least acceptable share of the idle rate while `BUSY_EPISODES_PER_SECOND` are stored."""

BUSY_EPISODES_PER_SECOND = 50

ACTIONS = 19
FULL = 412
"""Numbers of a state row of the walker."""


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    observation_size: int
    batches: int
    half_precision: bool
    connections: int


@dataclass(frozen=True)
class Result:
    """Rates in transitions per second and their ratios, medians over the turns."""

    case: Case
    bare_per_second: float
    uniform_per_second: float
    prioritized_per_second: float
    uniform_of_bare: float
    uniform_floor: float | None
    prioritized_of_uniform: float
    prioritized_floor: float | None

    @property
    def floors(self) -> list[Floor]:
        case = f"K = {self.case.batches}, {self.case.observation_size} values, {self.case.connections} connection(s)"
        found = [
            Floor(f"{case}, of gather and sendall", self.uniform_of_bare, least=self.uniform_floor),
            Floor(f"{case}, prioritized of uniform", self.prioritized_of_uniform, least=self.prioritized_floor),
        ]
        return [floor for floor in found if floor.least is not None]


@dataclass(frozen=True)
class BusyResult:
    """Sampling while episodes are stored, against the same while none are."""

    case: Case
    idle_per_second: float
    busy_per_second: float
    busy_of_idle: float
    floor: float
    episodes_per_second: float
    event_loop: dict[str, float]

    @property
    def floors(self) -> list[Floor]:
        while_stored = f"while {BUSY_EPISODES_PER_SECOND} episodes/s are stored"
        return [
            Floor(f"{while_stored}, of idle", self.busy_of_idle, least=self.floor),
            Floor(f"{while_stored}, event loop blocked for 20 ms, times", self.event_loop["blocked_timers"], most=0),
        ]


# --- the replay API --------------------------------------------------------------------------------------------------


def fill(url: str, observation_size: int, action_size: int, transitions: int) -> ReplayClient:
    """A run with so many transitions, and a client of it."""
    experiment, run = experiment_of(observation_size, action_size), run_of(observation_size)
    client = ReplayClient(url, run=run, timeout_seconds=60)
    client.create_run(experiment)
    random = np.random.default_rng(0)
    for _ in range(-(-transitions // EPISODE_STEPS)):
        client.post_episode(episode_of(experiment, run, random))
    return client


def post_paced(url: str, observation_size: int, action_size: int) -> None:
    """Post at `BUSY_EPISODES_PER_SECOND` for as long as each line of standard input says; answers with the rate."""
    experiment, run = experiment_of(observation_size, action_size), run_of(observation_size)
    random = np.random.default_rng(1)
    with ReplayClient(url, run=run, timeout_seconds=60) as first, ThreadPoolExecutor(8) as threads:
        clients = [first, *(first.clone() for _ in range(7))]
        while line := sys.stdin.readline():
            count = round(float(line) * BUSY_EPISODES_PER_SECOND)
            bodies = [episode_of(experiment, run, random) for _ in range(count)]
            print("ready", flush=True)
            began = time.monotonic()

            def post(number: int, bodies: list[bytes] = bodies, began: float = began) -> None:
                for i in range(number, len(bodies), len(clients)):
                    time.sleep(max(0.0, began + i / BUSY_EPISODES_PER_SECOND - time.monotonic()))
                    clients[number].post_episode(bodies[i])

            list(threads.map(post, range(len(clients))))
            print(count / (time.monotonic() - began), flush=True)


# --- measuring -------------------------------------------------------------------------------------------------------


def rate(reads: Sequence[Callable[[], None]], case: Case, seconds: float) -> float:
    """Transitions per second of one contender in one turn, every connection in a thread of its own."""
    counts = [0] * len(reads)
    began = time.perf_counter()

    def run(i: int) -> None:
        while time.perf_counter() - began < seconds:
            reads[i]()
            counts[i] += case.batches * BATCH_SIZE

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(reads))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - began)


class Readers:
    """What reads from either contender, for up to two connections."""

    def __init__(self, client: ReplayClient, bare_port: int, sizes: tuple[int, int]) -> None:
        self._clients = [client, client.clone()]
        self._bare = [BareReader(bare_port, *sizes) for _ in self._clients]
        self._buffers = [bytearray(32 * BATCH_SIZE * (8 * sizes[0] + 4096)) for _ in self._clients]

    def bare(self, case: Case) -> list[Callable[[], None]]:
        return [
            partial(self._bare[i].read, case.batches, case.half_precision, self._buffers[i])
            for i in range(case.connections)
        ]

    def api(self, case: Case, sampling: Literal["uniform", "prioritized"]) -> list[Callable[[], None]]:
        request = BatchRequest(
            batches=case.batches,
            batch_size=BATCH_SIZE,
            discount=0.99,
            half_precision=case.half_precision,
            sampling=sampling,
        )

        def read(i: int) -> None:
            self._clients[i].sample_batches(request, self._buffers[i])

        return [partial(read, i) for i in range(case.connections)]


def measure(case: Case, readers: Readers, turns: int, seconds: float) -> Result:
    """All contenders, turn by turn."""
    contenders = [readers.bare(case), readers.api(case, "uniform"), readers.api(case, "prioritized")]
    for reads in contenders:
        rate(reads, case, seconds / 4)  # warm
    rates = [[rate(reads, case, seconds) for reads in contenders] for _ in range(turns)]
    bare, uniform, prioritized = (statistics.median(column) for column in zip(*rates, strict=True))
    return Result(
        case,
        bare,
        uniform,
        prioritized,
        uniform_of_bare=statistics.median(turn[1] / turn[0] for turn in rates),
        uniform_floor=None if case.half_precision else FLOORS.get(case.batches),
        prioritized_of_uniform=statistics.median(turn[2] / turn[1] for turn in rates),
        prioritized_floor=PRIORITIZED_FLOOR if case.batches == 32 and not case.half_precision else None,
    )


def measure_busy(system: Served, readers: Readers, sizes: tuple[int, int], turns: int, seconds: float) -> BusyResult:
    """Idle and busy turns, one after the other."""
    case = Case(sizes[0], batches=8, half_precision=False, connections=1)
    command = [sys.executable, __file__, "--post-paced", system.url, *map(str, sizes)]
    poster = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert poster.stdin is not None
    assert poster.stdout is not None
    reads, pairs, posted, probe = readers.api(case, "uniform"), [], [], LagProbe(system)
    try:
        for _ in range(turns):
            idle = rate(reads, case, seconds)
            print(seconds + 0.5, file=poster.stdin, flush=True)
            poster.stdout.readline()  # its bodies are made
            time.sleep(0.25)
            pairs.append((idle, rate(reads, case, seconds)))
            posted.append(float(poster.stdout.readline()))
    finally:
        poster.kill()
        poster.wait()
    return BusyResult(
        case,
        idle_per_second=statistics.median(idle for idle, _ in pairs),
        busy_per_second=statistics.median(busy for _, busy in pairs),
        busy_of_idle=statistics.median(busy / idle for idle, busy in pairs),
        floor=BUSY_FLOOR,
        episodes_per_second=statistics.median(posted),
        event_loop=probe.read(),
    )


def measure_reverb(python: str, readers: Readers, options: argparse.Namespace) -> dict[str, float] | None:
    """Reverb in turns with the API: transitions per second of both, at the full observation, and their ratio; None when
    it is not ready, or does not answer, in time."""
    case = Case(FULL, batches=8, half_precision=False, connections=1)
    pairs: list[tuple[float, float]] = []
    reverb = ReverbProcess(python, FULL, ACTIONS)
    try:
        while reverb.ready and len(pairs) < options.turns:
            sampled = reverb.rate(options.seconds)
            if sampled is None:
                break
            pairs.append((sampled, rate(readers.api(case, "uniform"), case, options.seconds)))
    finally:
        reverb.stop()
    if not pairs:
        return None
    return {
        "reverb_per_second": statistics.median(one for one, _ in pairs),
        "uniform_per_second": statistics.median(other for _, other in pairs),
        "uniform_of_reverb": statistics.median(other / one for one, other in pairs),
    }


def cases_of(observation_size: int) -> list[Case]:
    """The full observation in every way; others only as most trainers ask for them."""
    connections = (1, 2) if observation_size == FULL else (1,)
    return [Case(observation_size, k, half, n) for n in connections for half in (False, True) for k in (1, 8, 32)]


def bench_size(observation_size: int, options: argparse.Namespace) -> tuple[list[Result], dict[str, Any]]:
    """All cases of one observation size, and what is only measured of the full one."""
    sizes = observation_size, ACTIONS
    directory = Path(tempfile.mkdtemp(prefix="bench-sample-"))
    port_file = directory / "port"
    arguments = [*map(str, sizes), str(options.transitions), str(port_file)]
    sender = subprocess.Popen([sys.executable, str(Path(__file__).with_name("bare_sender.py")), *arguments])
    try:
        with served(directory) as system:
            client = fill(system.url, *sizes, options.transitions)
            while not port_file.exists() or not port_file.read_text():
                time.sleep(0.1)
            readers = Readers(client, int(port_file.read_text()), sizes)
            results = [measure(case, readers, options.turns, options.seconds) for case in cases_of(observation_size)]
            more: dict[str, Any] = {}
            if observation_size == FULL:
                more["busy"] = measure_busy(system, readers, sizes, options.turns, 2 * options.seconds)
                if options.reverb:
                    more["reverb"] = measure_reverb(options.reverb, readers, options)
    finally:
        sender.kill()
        sender.wait()
        shutil.rmtree(directory, ignore_errors=True)
    return results, more


def with_floor(value: float, floor: float | None) -> str:
    return f"{value:.2f}" + ("" if floor is None else f" ({floor:.2f}{'' if value >= floor else ' !'})")


def report(results: list[Result], busy: BusyResult, reverb: dict[str, float] | None, asked: bool) -> None:
    print(
        f"{'observation':>11} {'dtype':>8} {'conn.':>5} {'K':>3} {'bare/s':>11} {'uniform/s':>11} {'prior./s':>11} "
        f"{'uniform/bare':>14} {'prior./uniform':>14}"
    )
    for result in results:
        case = result.case
        print(
            f"{case.observation_size:>11} {'float16' if case.half_precision else 'float32':>8} {case.connections:>5} "
            f"{case.batches:>3} {result.bare_per_second:>11,.0f} {result.uniform_per_second:>11,.0f} "
            f"{result.prioritized_per_second:>11,.0f} {with_floor(result.uniform_of_bare, result.uniform_floor):>14} "
            f"{with_floor(result.prioritized_of_uniform, result.prioritized_floor):>14}"
        )
    print(
        f"while {busy.episodes_per_second:.0f} episodes/s are stored: {busy.busy_per_second:,.0f}/s, idle "
        f"{busy.idle_per_second:,.0f}/s, ratio {with_floor(busy.busy_of_idle, busy.floor)}; "
        f"event loop: {said(busy.event_loop)}"
    )
    if asked and not reverb:
        print("Reverb: it was not ready, or did not end its turn, in time")
    if reverb:
        rates = f"{reverb['reverb_per_second']:,.0f}/s, the API beside it {reverb['uniform_per_second']:,.0f}/s"
        print(f"Reverb: {rates}, {reverb['uniform_of_reverb']:.1f} times as much")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5, help="turns of every contender in every case")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a turn")
    parser.add_argument("--transitions", type=int, default=30_000, help="transitions in memory")
    reverb_help = "interpreter of an environment with dm-reverb[tensorflow]; default: $REVERB_PYTHON"
    parser.add_argument("--reverb", metavar="PYTHON", default=os.environ.get("REVERB_PYTHON"), help=reverb_help)
    parser.add_argument("--json", type=Path, help="write the results here, too")
    parser.add_argument("--post-paced", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.post_paced:
        url, *sizes = options.post_paced
        post_paced(url, *map(int, sizes))
        return 0
    compact = make_task(parse_experiment({}).task).description.observation_size
    results: list[Result] = []
    more: dict[str, Any] = {}
    for size in (FULL, compact):
        found, more_of_size = bench_size(size, options)
        results += found
        more |= more_of_size
    busy, reverb = more["busy"], more.get("reverb")
    report(results, busy, reverb, bool(options.reverb))
    floors = [floor for result in results for floor in result.floors] + busy.floors
    if options.json:
        record = {
            "machine": machine(),
            "floors": [floor.record for floor in floors],
            "results": [asdict(result) for result in results],
            "busy": asdict(busy),
            "reverb": reverb,
        }
        options.json.write_text(json.dumps(record, indent=2) + "\n")
    return missed(floors)


if __name__ == "__main__":
    sys.exit(main())
