"""How soon does a replay API that starts on a full store answer, and how soon is the rest in memory?

The store holds a million transitions of one run: the document of a recorded walk of 300 steps, again and again. Then
the API starts as after a crash, and a trainer asks for batches from the first moment.

    python benchmarks/bench_start.py --transitions 1000000 --json start.json
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pymongo
from floors import Floor, missed
from recorded import Copies, experiment_of, play
from serving import LagProbe, Served, machine, resident_bytes, said, served

from gaitfleet.client import ReplayClient
from gaitfleet.errors import ApiUnavailableError, LimitedError
from gaitfleet.identity import new_episode_id
from gaitfleet.wire import BatchRequest

RUN = "start"
INSERTED_AT_ONCE = 16


@dataclass(frozen=True)
class Result:
    """What was measured of one start; seconds since the process was started."""

    transitions: int
    stored_megabytes: float
    answering_seconds: float
    first_batch_seconds: float
    transitions_at_first_batch: int
    loaded_seconds: float
    transitions_per_second: float
    batches_while_loading: int
    slowest_batch_seconds: float
    bytes_per_transition: float
    resident_bytes_per_transition: float
    cpu_seconds: dict[str, float]
    event_loop: dict[str, float]

    @property
    def floors(self) -> list[Floor]:
        """Sampling must answer before the rest has loaded."""
        share = self.transitions_at_first_batch / self.transitions
        return [Floor("share of the transitions in memory at the first batch", share, most=0.999)]


def fill(system: Served, transitions: int) -> int:
    """Put so many transitions into the store; the bytes of their episodes."""
    database = pymongo.MongoClient[dict[str, Any]](system.mongodb_uri, tz_aware=True)["gaitfleet"]["episodes"]
    template = database.find_one({"run": RUN})
    assert template is not None
    missing = range(1, -(-transitions // template["transitions"]))
    for start in range(0, len(missing), INSERTED_AT_ONCE):
        database.insert_many(
            template
            | {
                "_id": f"{RUN}/{new_episode_id()}",
                "stored_at": template["stored_at"] - timedelta(milliseconds=10 * number),
            }
            for number in missing[start : start + INSERTED_AT_ONCE]
        )
    return (len(missing) + 1) * len(template["content"])


def wait_for_batch(client: ReplayClient, request: BatchRequest) -> float:
    """Sample once, however long it takes; when that was."""
    while True:
        with suppress(LimitedError, ApiUnavailableError):
            client.sample_batches(request)
            return time.monotonic()
        time.sleep(0.02)


def measure(system: Served, stored_bytes: int) -> Result:
    """Start the API and sample until everything is in memory."""
    empty_bytes, database_cpu = resident_bytes(system.api), system.cpu_seconds()["database"]
    system.stop_api()
    began = time.monotonic()
    system.start_api()
    system.wait_until_ready()
    answering, probe = time.monotonic(), LagProbe(system)
    request = BatchRequest(batches=1, batch_size=256, discount=0.99, wait_seconds=5)
    latencies: list[float] = []
    with ReplayClient(system.url, run=RUN, timeout_seconds=600, attempts=1) as client:
        first = wait_for_batch(client, request)
        held_at_first = client.status().transitions_held
        while client.status().loading:
            asked = time.monotonic()
            latencies.append(wait_for_batch(client, request) - asked)
            time.sleep(0.05)
    loaded = time.monotonic()
    metrics = system.metrics()
    held = metrics[f'rl_replay_items{{run_id="{RUN}"}}']
    cpu = system.cpu_seconds()
    return Result(
        transitions=int(held),
        stored_megabytes=stored_bytes / 1e6,
        answering_seconds=answering - began,
        first_batch_seconds=first - began,
        transitions_at_first_batch=held_at_first,
        loaded_seconds=loaded - began,
        transitions_per_second=held / metrics[f'rl_replay_index_rebuild_seconds{{run_id="{RUN}"}}'],
        batches_while_loading=len(latencies),
        slowest_batch_seconds=max(latencies, default=0.0),
        bytes_per_transition=metrics[f'rl_replay_bytes{{run_id="{RUN}"}}'] / held,
        resident_bytes_per_transition=(resident_bytes(system.api) - empty_bytes) / held,
        cpu_seconds=cpu | {"database": cpu["database"] - database_cpu},
        event_loop=probe.read(),
    )


def report(result: Result) -> None:
    print(
        f"{result.transitions:,} transitions ({result.stored_megabytes:,.0f} MB in the store)\n"
        f"answers requests after        {result.answering_seconds:8.2f} s\n"
        f"first batch after             {result.first_batch_seconds:8.2f} s, with "
        f"{result.transitions_at_first_batch:,} transitions in memory{' !' if missed(result.floors) else ''}\n"
        f"all in memory after           {result.loaded_seconds:8.2f} s: {result.transitions_per_second:,.0f}/s; "
        f"{result.batches_while_loading} batches meanwhile, the slowest {1e3 * result.slowest_batch_seconds:.0f} ms\n"
        f"bytes held per transition     {result.bytes_per_transition:8.0f}, resident "
        f"{result.resident_bytes_per_transition:.0f}\n"
        f"processor time                {result.cpu_seconds['api']:8.1f} s of the API, "
        f"{result.cpu_seconds['database']:.1f} s of the database\n"
        f"event loop                    {said(result.event_loop)}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transitions", type=int, default=1_000_000, help="transitions in the store")
    parser.add_argument("--json", type=Path, help="write the results here, too")
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="bench-start-"))
    experiment = experiment_of(
        replay={"capacity": options.transitions, "min_size": 10_000, "samples_per_insert": 1e6, "error_buffer": 1e15}
    )
    try:
        with served(directory) as system:
            with ReplayClient(system.url, run=RUN) as client:
                client.create_run(experiment)
                client.post_episode(Copies(experiment, play(), RUN).body())
            result = measure(system, fill(system, options.transitions))
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    report(result)
    if options.json:
        floors = [floor.record for floor in result.floors]
        record = {"machine": machine(), "floors": floors, "result": asdict(result)}
        options.json.write_text(json.dumps(record, indent=2) + "\n")
    return missed(result.floors)


if __name__ == "__main__":
    sys.exit(main())
