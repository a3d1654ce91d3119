"""How fast are batches sampled over HTTP, against the bare cost of gathering and sending them?

`bare` is one thread that gathers the same columns from arrays of the same size with numpy and sends them over TCP with
`sendall`; `api` is the replay API with its database, read by the client that the trainer uses. Every process is its
own: database, API, bare sender, and this one, which reads. The two take turns, a short while each, and a ratio is the
median over the turns, so that the noise of a busy machine stays out of it.

    python benchmarks/bench_sample.py --turns 5 --json sample.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt

from gaitfleet.batch import FIELDS, batch_specs
from gaitfleet.client import ReplayClient
from gaitfleet.episode import Episode, EpisodeMetadata, encode_episode
from gaitfleet.errors import ApiError
from gaitfleet.experiment import parse_experiment
from gaitfleet.identity import new_episode_id
from gaitfleet.task import make_task
from gaitfleet.trajectory import Trajectory
from gaitfleet.wire import BatchRequest

FLOORS = {8: 0.5, 32: 0.8}
"""Least acceptable share of the bare sender's rate, by batches in one answer, at float32."""

BATCH_SIZE = 256
EPISODE_STEPS = 300


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    observation_size: int
    batches: int
    half_precision: bool


@dataclass(frozen=True)
class Result:
    """Rates of both contenders in transitions per second, medians over the turns."""

    case: Case
    bare_per_second: float
    api_per_second: float
    ratio: float
    floor: float | None


# --- the bare sender, a process of its own ---------------------------------------------------------------------------


def send_bare(observation_size: int, action_size: int, transitions: int, port_file: Path) -> None:
    """Gather and send whatever each connection asks for: two bytes, the batches and whether they are float16."""
    random = np.random.default_rng(0)
    source: dict[str, npt.NDArray[Any]] = {
        "index": np.arange(transitions),
        "policy_version": np.zeros(transitions, np.int64),
        "observation": random.normal(size=(transitions + 1, observation_size)).astype(np.float32),
        "action": random.normal(size=(transitions, action_size)).astype(np.float32),
        "reward": random.normal(size=transitions).astype(np.float32),
        "discount": np.ones(transitions, np.float32),
        "weight": np.ones(transitions, np.float32),
        "return_so_far": np.ones(transitions, np.float32),
    }
    server = socket.create_server(("127.0.0.1", 0))
    port_file.write_text(str(server.getsockname()[1]))
    connection, _ = server.accept()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while asked := connection.recv(2):
        specs = batch_specs(1, BATCH_SIZE, observation_size, action_size, half_precision=bool(asked[1]))
        size = sum(spec.nbytes for spec in specs.values())
        for _ in range(asked[0]):
            buffer = np.empty(size, np.uint8)
            chosen = random.integers(0, transitions, BATCH_SIZE)
            offset = 0
            for name, spec in zip(FIELDS, specs.values(), strict=True):
                target = buffer[offset : offset + spec.nbytes].view(spec.dtype).reshape(spec.shape)
                following = name == "next_observation"
                column = source["observation" if following else name]
                at = chosen + following
                if target.dtype == column.dtype:
                    np.take(column, at, axis=0, out=target, mode="clip")
                else:
                    target[:] = np.take(column, at, axis=0, mode="clip")
                offset += spec.nbytes
            connection.sendall(buffer.data)


class BareReader:
    """Reads what the bare sender sends."""

    def __init__(self, port: int, observation_size: int, action_size: int) -> None:
        self._connection = socket.create_connection(("127.0.0.1", port))
        self._sizes = observation_size, action_size

    def read(self, case: Case, buffer: bytearray) -> None:
        specs = batch_specs(case.batches, BATCH_SIZE, *self._sizes, half_precision=case.half_precision)
        view = memoryview(buffer)[: sum(spec.nbytes for spec in specs.values())]
        self._connection.sendall(bytes([case.batches, case.half_precision]))
        filled = 0
        while filled < len(view):
            filled += self._connection.recv_into(view[filled:])

    def close(self) -> None:
        self._connection.close()


# --- the replay API --------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def served(directory: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Database and API as processes; the API's URL and process."""
    database_port, port = free_port(), free_port()
    program = shutil.which("secantusd-py", path=os.pathsep.join((sysconfig.get_path("scripts"), os.defpath)))
    assert program is not None, "install the extra gaitfleet[database]"
    flags = ["--cache-size", "256M", "--oplog-max-entries", "200", "--log-level", "ERROR"]
    database_command = [program, "--host", "127.0.0.1", "--port", str(database_port), *flags]
    options = {
        "AUTHENTICATION": "none",
        "PORT": str(port),
        "MONGODB_URI": f"mongodb://127.0.0.1:{database_port}",
        "CHECKPOINT_STORE": f"directory:{directory / 'checkpoints'}",
    }
    environment = os.environ | {f"GAITFLEET_REPLAY_API_{name}": value for name, value in options.items()}
    with (directory / "log").open("wb") as log:
        output: dict[str, Any] = {"stdout": log, "stderr": log}
        database = subprocess.Popen([*database_command, "--storage-path", str(directory / "database")], **output)
        api = subprocess.Popen([sys.executable, "-m", "replay_api"], env=environment, **output)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_ready(url)
        yield url, api
    finally:
        for process in (api, database):
            process.kill()
            process.wait()


def wait_until_ready(url: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            if httpx.get(f"{url}/health/ready").is_success:
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline, "the API did not become ready"
        time.sleep(0.1)


def fill(url: str, observation_size: int, action_size: int, transitions: int) -> ReplayClient:
    """A run with so many transitions, and a client of it."""
    experiment = parse_experiment(
        {
            "task": {
                "environment": "gymnasium:Benchmark-v0",
                "spaces": {
                    "observation_size": observation_size,
                    "action_low": [0.0] * action_size,
                    "action_high": [1.0] * action_size,
                    "time_limit_steps": EPISODE_STEPS,
                },
            },
            "replay": {"capacity": transitions, "min_size": 1, "samples_per_insert": 1, "error_buffer": 1e15},
        }
    )
    client = ReplayClient(url, run=f"bench-{observation_size}", timeout_seconds=60)
    client.create_run(experiment)
    layout_hash = make_task(experiment.task).description.state_layout.hash
    random = np.random.default_rng(0)
    for seed in range(-(-transitions // EPISODE_STEPS)):
        metadata = EpisodeMetadata(
            episode_id=new_episode_id(),
            run=f"bench-{observation_size}",
            worker="benchmark",
            role="random",
            policy_version=0,
            seed=seed,
            layout_hash=layout_hash,
            ending="truncated",
            ending_reason="time_limit",
            exploration="uniform",
            started_at=datetime.now(UTC),
            wall_seconds=0.0,
        )
        trajectory = Trajectory(
            state=random.normal(size=(EPISODE_STEPS + 1, observation_size)).astype(np.float32),
            action=random.random((EPISODE_STEPS, action_size)).astype(np.float32),
            reward=random.normal(size=EPISODE_STEPS).astype(np.float32),
            decision=np.ones(EPISODE_STEPS, np.uint8),
        )
        client.post_episode(encode_episode(Episode(metadata, trajectory)))
    return client


# --- measuring -------------------------------------------------------------------------------------------------------


def rate(read: Callable[[], None], case: Case, seconds: float) -> float:
    """Transitions per second of one contender in one turn."""
    count = 0
    began = time.perf_counter()
    while (elapsed := time.perf_counter() - began) < seconds:
        read()
        count += case.batches * BATCH_SIZE
    return count / elapsed


def measure(case: Case, client: ReplayClient, bare: BareReader, turns: int, seconds: float) -> Result:
    """Both contenders, turn by turn."""
    buffer = bytearray(case.batches * BATCH_SIZE * (8 * case.observation_size + 4096))
    request = BatchRequest(
        batches=case.batches, batch_size=BATCH_SIZE, discount=0.99, half_precision=case.half_precision
    )

    def read_bare() -> None:
        bare.read(case, buffer)

    def read_api() -> None:
        client.sample_batches(request, buffer)

    for read in (read_bare, read_api):
        rate(read, case, seconds / 4)  # warm
    pairs = [(rate(read_bare, case, seconds), rate(read_api, case, seconds)) for _ in range(turns)]
    return Result(
        case,
        statistics.median(pair[0] for pair in pairs),
        statistics.median(pair[1] for pair in pairs),
        statistics.median(pair[1] / pair[0] for pair in pairs),
        None if case.half_precision else FLOORS.get(case.batches),
    )


def resident_bytes(process: subprocess.Popen[bytes]) -> int:
    """Memory of a process."""
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def held_bytes(url: str, run: str) -> float:
    """What the API says its transitions take."""
    for line in httpx.get(f"{url}/metrics").text.splitlines():
        if line.startswith(f'rl_replay_bytes{{run_id="{run}"}}'):
            return float(line.split()[1])
    raise ValueError(f"no rl_replay_bytes of {run}")


def bench_size(observation_size: int, options: argparse.Namespace) -> tuple[list[Result], dict[str, float]]:
    """All cases of one observation size, and the memory of its transitions."""
    action_size = 19
    directory = Path(tempfile.mkdtemp(prefix="bench-sample-"))
    port_file = directory / "port"
    arguments = [str(observation_size), str(action_size), str(options.transitions), str(port_file)]
    sender = subprocess.Popen([sys.executable, __file__, "--send-bare", *arguments])
    try:
        with served(directory) as (url, api):
            client = fill(url, observation_size, action_size, options.transitions)
            held = client.status().transitions_held
            memory = {
                "transitions": held,
                "bytes_per_transition": held_bytes(url, f"bench-{observation_size}") / held,
                "float32_bytes_of_a_transition": 4 * (observation_size + action_size + 3),
                "resident_megabytes": resident_bytes(api) / 1e6,
            }
            while not port_file.exists() or not port_file.read_text():
                time.sleep(0.1)
            bare = BareReader(int(port_file.read_text()), observation_size, action_size)
            cases = [Case(observation_size, k, half) for half in (False, True) for k in (1, 8, 32)]
            results = [measure(case, client, bare, options.turns, options.seconds) for case in cases]
            bare.close()
            client.close()
    finally:
        sender.kill()
        sender.wait()
        shutil.rmtree(directory, ignore_errors=True)
    return results, memory


def machine() -> dict[str, Any]:
    """What the numbers were taken on."""
    git = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    packages = ("numpy", "fastapi", "uvicorn", "uvloop", "httptools")
    return {
        "commit": git.stdout.strip() or None,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
    }


def report(results: list[Result], memory: dict[int, dict[str, float]]) -> None:
    print(f"{'observation':>11} {'dtype':>8} {'K':>3} {'bare/s':>12} {'api/s':>12} {'ratio':>6} {'floor':>6}")
    for result in results:
        case = result.case
        dtype = "float16" if case.half_precision else "float32"
        floor = "" if result.floor is None else f"{result.floor:.2f}{'' if result.ratio >= result.floor else ' !'}"
        print(
            f"{case.observation_size:>11} {dtype:>8} {case.batches:>3} {result.bare_per_second:>12,.0f} "
            f"{result.api_per_second:>12,.0f} {result.ratio:>6.2f} {floor:>6}"
        )
    for size, held in memory.items():
        share = held["bytes_per_transition"] / held["float32_bytes_of_a_transition"]
        print(
            f"{size} values: {held['bytes_per_transition']:.0f} bytes held per transition, {share:.3f} times its "
            f"float32 bytes; the API takes {held['resident_megabytes']:.0f} MB with {held['transitions']:,.0f}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5, help="turns of every contender in every case")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a turn")
    parser.add_argument("--transitions", type=int, default=30_000, help="transitions in memory")
    parser.add_argument("--json", type=Path, help="write the results here, too")
    parser.add_argument("--send-bare", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.send_bare:
        observation_size, action_size, transitions, port_file = options.send_bare
        send_bare(int(observation_size), int(action_size), int(transitions), Path(port_file))
        return 0
    compact = make_task(parse_experiment({}).task).description.observation_size
    results: list[Result] = []
    memory: dict[int, dict[str, float]] = {}
    try:
        for size in (412, compact):
            found, memory[size] = bench_size(size, options)
            results += found
    except ApiError as error:
        print(f"the API refused: {error}", file=sys.stderr)
        return 1
    report(results, memory)
    if options.json:
        record = {"machine": machine(), "results": [asdict(result) for result in results], "memory": memory}
        options.json.write_text(json.dumps(record, indent=2) + "\n")
    return 0 if all(result.floor is None or result.ratio >= result.floor for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
