"""How many episodes a second are acknowledged as durable, against a bare Motor loop that writes the same documents?

`bare` is one process with as many tasks as there are posters, each of which inserts one document after the other into a
collection with the same indexes and the same write concern (majority and journal). `api` is the replay API: bodies of a
recorded walk of 300 steps, made under new ids and compressed before the turn, each poster over a connection of its own.
Both write to the same database process; they take turns, a short while each, and a ratio is the median over the turns.
Whose processor time an episode costs stands beside it, for posters with the making of it. The API's event loop may not
be blocked for 20 ms: no timer of it may be so late by work of the API. Those that are late because it waits for a core
stand beside: posters, API and database may want more of them than there are.

    python benchmarks/bench_ingest.py --turns 5 --json ingest.json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pymongo
import uvloop
from floors import Floor, missed
from motor.motor_asyncio import AsyncIOMotorClient
from recorded import Copies, experiment_of, play
from serving import LagProbe, Served, machine, said, served

from gaitfleet import codec
from gaitfleet.client import ReplayClient
from gaitfleet.client.bulk import BulkConnection
from gaitfleet.identity import new_episode_id
from replay_api.storage.indexes import create_indexes

FLOOR = 0.8
"""Least acceptable share of the bare loop's rate."""

POSTERS = (1, 8, 64)
MADE_PER_SECOND = 150
"""Bodies made before a turn, as the documents of the bare loop are; who needs more makes them meanwhile."""

RUN = "ingest"
HEADERS = {"Content-Type": "application/x-safetensors", "Content-Encoding": "zstd"}


@dataclass(frozen=True)
class Turn:
    """What one contender did in one turn."""

    seconds: float
    latencies: list[float]

    @property
    def per_second(self) -> float:
        return len(self.latencies) / self.seconds


@dataclass(frozen=True)
class Result:
    """Medians over the turns; latencies over all of them."""

    posters: int
    bare_per_second: float
    api_per_second: float
    api_megabytes_per_second: float
    ratio: float
    floor: float
    bare_p99_seconds: float
    api_p50_seconds: float
    api_p99_seconds: float
    cpu_milliseconds_per_episode: dict[str, float]
    event_loop: dict[str, float]

    @property
    def floors(self) -> list[Floor]:
        posters = f"{self.posters} poster{'s' * (self.posters > 1)}"
        return [
            Floor(f"{posters}, of a bare loop", self.ratio, least=self.floor),
            Floor(f"{posters}, event loop blocked for 20 ms, times", self.event_loop["blocked_timers"], most=0),
        ]


# --- the bare loop, a process of its own -----------------------------------------------------------------------------


async def write_bare(uri: str) -> None:
    """Insert the document that stands in the database already, under new ids; a line of standard input is a turn."""
    client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(uri, w="majority", journal=True, maxPoolSize=64)
    template = await client["gaitfleet"]["episodes"].find_one({"run": RUN})
    assert template is not None
    database = client["bare"]
    await asyncio.to_thread(create_indexes, pymongo.MongoClient(uri)["bare"])
    print("ready", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        writers, seconds = line.split()
        latencies: list[float] = []
        end = time.perf_counter() + float(seconds)

        async def write(end: float = end, latencies: list[float] = latencies) -> None:
            while (began := time.perf_counter()) < end:
                await database["episodes"].insert_one(template | {"_id": f"{RUN}/{new_episode_id()}"})
                latencies.append(time.perf_counter() - began)

        began = time.perf_counter()
        await asyncio.gather(*(write() for _ in range(int(writers))))
        print(json.dumps({"seconds": time.perf_counter() - began, "latencies": latencies}), flush=True)


class BareLoop:
    """The process of the bare loop."""

    def __init__(self, uri: str) -> None:
        command = [sys.executable, __file__, "--write-bare", uri]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._line() == "ready\n"

    def turn(self, writers: int, seconds: float) -> Turn:
        assert self._process.stdin is not None
        print(writers, seconds, file=self._process.stdin, flush=True)
        return Turn(**json.loads(self._line()))

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the bare loop has ended"
        return line


# --- the API ---------------------------------------------------------------------------------------------------------


class Posters:
    """Threads that post, each over a connection of its own."""

    def __init__(self, url: str, body: Callable[[], bytes]) -> None:
        self._url = url
        self._body = body
        self._connections: list[BulkConnection] = []

    def turn(self, posters: int, seconds: float) -> Turn:
        """Post for so long; every answer must be 201."""
        while len(self._connections) < posters:
            self._connections.append(BulkConnection(self._url, timeout_seconds=60))
        latencies: list[float] = []
        failures: list[str] = []
        ready = threading.Barrier(posters + 1)

        def post(connection: BulkConnection) -> None:
            bodies = [self._body() for _ in range(math.ceil(seconds * MADE_PER_SECOND / posters))]
            ready.wait()
            while time.perf_counter() < end:
                body = bodies.pop() if bodies else self._body()
                began = time.perf_counter()
                answer = connection.request("POST", f"/v1/runs/{RUN}/episodes", body=body, headers=HEADERS)
                latencies.append(time.perf_counter() - began)
                if answer.status != 201:
                    failures.append(f"{answer.status}: {bytes(answer.body)!r:.300}")
                    return

        threads = [threading.Thread(target=post, args=(c,), daemon=True) for c in self._connections[:posters]]
        for thread in threads:
            thread.start()
        while ready.n_waiting < posters:
            time.sleep(0.01)
        began = time.perf_counter()
        end = began + seconds
        ready.wait()
        for thread in threads:
            thread.join()
        assert not failures, failures[0]
        return Turn(time.perf_counter() - began, latencies)


# --- measuring -------------------------------------------------------------------------------------------------------


def measure(posters: int, system: Served, bare: BareLoop, api: Posters, options: argparse.Namespace) -> Result:
    """Both contenders, turn by turn; what was written is deleted between the turns."""
    database: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(system.mongodb_uri)
    bare.turn(posters, options.seconds / 4)  # warm
    api.turn(posters, options.seconds / 4)
    pairs: list[tuple[Turn, Turn]] = []
    cpu: dict[str, float] = {}
    late: dict[str, float] = {}
    for _ in range(options.turns):
        one = bare.turn(posters, options.seconds)
        probe, before = LagProbe(system), _cpu(system)
        other = api.turn(posters, options.seconds)
        for name, seconds in _cpu(system).items():
            cpu[name] = cpu.get(name, 0.0) + seconds - before[name]
        for name, value in probe.read().items():
            late[name] = late.get(name, 0.0) + value if name.endswith("timers") else max(late.get(name, 0.0), value)
        pairs.append((one, other))
        for name in ("bare", "gaitfleet"):
            database[name]["episodes"].delete_many({"run": RUN, "_id": {"$ne": options.template}})
    episodes = sum(len(other.latencies) for _, other in pairs)
    latencies = [latency for _, other in pairs for latency in other.latencies]
    rate = statistics.median(other.per_second for _, other in pairs)
    return Result(
        posters=posters,
        bare_per_second=statistics.median(one.per_second for one, _ in pairs),
        api_per_second=rate,
        api_megabytes_per_second=rate * options.body_bytes / 1e6,
        ratio=statistics.median(other.per_second / one.per_second for one, other in pairs),
        floor=FLOOR,
        bare_p99_seconds=float(np.quantile([latency for one, _ in pairs for latency in one.latencies], 0.99)),
        api_p50_seconds=float(np.quantile(latencies, 0.5)),
        api_p99_seconds=float(np.quantile(latencies, 0.99)),
        cpu_milliseconds_per_episode={name: 1e3 * seconds / episodes for name, seconds in cpu.items()},
        event_loop=late,
    )


def _cpu(system: Served) -> dict[str, float]:
    return system.cpu_seconds() | {"posters": time.process_time()}


def bench(options: argparse.Namespace) -> list[Result]:
    """All numbers of posters."""
    directory = Path(tempfile.mkdtemp(prefix="bench-ingest-"))
    experiment = experiment_of(replay={"capacity": 100_000, "min_size": 1, "samples_per_insert": 1})
    copies = Copies(experiment, play(), RUN)
    options.body_bytes = len(codec.compress(copies.body()))
    try:
        with served(directory) as system:
            with ReplayClient(system.url, run=RUN) as client:
                client.create_run(experiment)
                options.template = f"{RUN}/{client.post_episode(copies.body()).episode_id}"
            bare = BareLoop(system.mongodb_uri)
            api = Posters(system.url, lambda: codec.compress(copies.body()))
            results = [measure(posters, system, bare, api, options) for posters in options.posters]
            bare.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return results


def report(results: list[Result]) -> None:
    print(
        f"{'posters':>7} {'bare/s':>8} {'api/s':>8} {'MB/s':>6} {'ratio':>6} {'floor':>6} {'p50 ms':>8} {'p99 ms':>8}"
        f" {'bare p99':>8}  CPU ms per episode; event loop"
    )
    for r in results:
        floor = f"{r.floor:.2f}{'' if r.ratio >= r.floor else ' !'}"
        cpu = ", ".join(f"{name} {value:.1f}" for name, value in r.cpu_milliseconds_per_episode.items())
        print(
            f"{r.posters:>7} {r.bare_per_second:>8.1f} {r.api_per_second:>8.1f} {r.api_megabytes_per_second:>6.1f} "
            f"{r.ratio:>6.2f} {floor:>6} {1e3 * r.api_p50_seconds:>8.1f} {1e3 * r.api_p99_seconds:>8.1f} "
            f"{1e3 * r.bare_p99_seconds:>8.1f}  {cpu}; {said(r.event_loop)}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5, help="turns of every contender in every case")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a turn")
    parser.add_argument("--posters", type=int, nargs="+", default=POSTERS, help="how many post at once")
    parser.add_argument("--json", type=Path, help="write the results here, too")
    parser.add_argument("--write-bare", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write_bare:
        uvloop.run(write_bare(options.write_bare))
        return 0
    results = bench(options)
    report(results)
    floors = [floor for result in results for floor in result.floors]
    if options.json:
        record = {
            "machine": machine(),
            "floors": [floor.record for floor in floors],
            "results": [asdict(result) for result in results],
        }
        options.json.write_text(json.dumps(record, indent=2) + "\n")
    return missed(floors)


if __name__ == "__main__":
    sys.exit(main())
