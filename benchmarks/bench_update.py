"""How many updates per second, of every algorithm, and what does it cost that batches come over HTTP?

`memory` learns from one batch that is there already; `http` from batches that the real replay API samples and the feed
fetches ahead, as a trainer does; `cleanrl` is that project's update of the same batch (see `reference_update.py`), for
the algorithms that it has, with the same networks. The contenders take turns, a short while each, and a ratio is the
median over the turns, so that the noise of a busy machine stays out of it. All is done with each number of threads;
the floors are held against the trainer's own choice. Where threads use every core, the API, which is here on the same
machine, takes its time from the update.

    python benchmarks/bench_update.py --turns 5 --json update.json
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from bench_sample import fill, served
from prometheus_client import CollectorRegistry
from provenance import taken_on
from reference_update import ReferenceSac, ReferenceTd3

from gaitfleet.client import ReplayClient
from gaitfleet.experiment import Experiment, parse_experiment
from gaitfleet.task import make_task
from gaitfleet.wire import BatchRequest, RunDescription
from trainer.agent import Agent
from trainer.cuda_graph import StaticUpdate
from trainer.feed import BatchFeed
from trainer.metrics import TrainerMetrics
from trainer.settings import default_threads
from trainer.transitions import Transitions, UpdateResult

FLOOR = 0.95
"""Least acceptable share of the updates per second in memory that is left when batches come over HTTP."""

CLEANRL_FLOOR = 1.0
"""Least acceptable updates per second in memory over CleanRL's."""

SETTLING_SECONDS = 0.1
"""Between two turns, so that batches that the feed still fetches cost the next contender nothing."""

OBSERVATION_SIZE, ACTION_SIZE, BATCH_SIZE = 155, 19, 256
"""Those of the prosthetic walker."""

TRANSITIONS = 20_000

MLP = {"kind": "mlp", "hidden_size": 256, "blocks": 2}
SIMBA = {"actor": {"kind": "simba", "hidden_size": 128}, "critic": {"kind": "simba", "hidden_size": 256}}

CONTENDERS: dict[str, dict[str, Any]] = {
    "td3": {"name": "td3", "actor": MLP, "critic": MLP},
    "sac": {"name": "sac", "actor": MLP, "critic": MLP},
    "sac, simba": {"name": "sac", **SIMBA},
    "sac, simba, 101 bins": {"name": "sac", **SIMBA, "critic_bins": 101, "reward_scaling": True},
    "crossq": {"name": "crossq"},
}

REFERENCES = {"td3": ReferenceTd3, "sac": ReferenceSac}


Learn = Callable[[Transitions], UpdateResult]


@dataclass(frozen=True)
class Result:
    """Updates per second, medians over the turns."""

    algorithm: str
    threads: int
    memory: float
    http: float
    cleanrl: float | None
    http_to_memory: float
    memory_to_cleanrl: float | None


def experiment_of(algorithm: dict[str, Any]) -> Experiment:
    spaces = {
        "observation_size": OBSERVATION_SIZE,
        "action_low": [0.0] * ACTION_SIZE,
        "action_high": [1.0] * ACTION_SIZE,
        "time_limit_steps": 300,
    }
    return parse_experiment(
        {"task": {"environment": "gymnasium:Benchmark-v0", "spaces": spaces}, "algorithm": algorithm}
    )


def agent_of(algorithm: dict[str, Any], device: torch.device) -> Agent:
    experiment = experiment_of(algorithm)
    task = make_task(experiment.task).description
    description = RunDescription(
        run="bench",
        experiment=experiment,
        experiment_hash=experiment.hash,
        layout_hash=task.state_layout.hash,
        observation_hash=task.observation_hash,
        created_at=datetime.now(UTC),
    )
    return Agent(description, device)


def batch_in_memory(device: torch.device) -> Transitions:
    generator = torch.Generator().manual_seed(0)
    batch = Transitions.empty(BATCH_SIZE, OBSERVATION_SIZE, ACTION_SIZE)
    for tensor in (batch.observation, batch.next_observation, batch.reward, batch.return_so_far):
        tensor.normal_(generator=generator)
    batch.action.uniform_(-1, 1, generator=generator)
    batch.discount.fill_(0.97)
    batch.weight.fill_(1.0)
    return batch.to(device)


def rate(update: Callable[[], None], seconds: float, device: torch.device) -> float:
    """Updates per second in one turn; on a GPU the queued work is waited for at its end."""
    time.sleep(SETTLING_SECONDS)
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        update()
        count += 1
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return count / (time.perf_counter() - began)


class Fed:
    """An agent that learns what a feed brings, as the trainer's loop does."""

    def __init__(self, agent: Agent, learn: Learn, url: str) -> None:
        self._agent, self._learn = agent, learn
        request = BatchRequest(batch_size=BATCH_SIZE, discount=0.97)
        self._feed = BatchFeed(
            ReplayClient(url, run=f"bench-{OBSERVATION_SIZE}", attempts=1),
            request,
            observation_size=OBSERVATION_SIZE,
            action_size=ACTION_SIZE,
            pinned=agent.device.type == "cuda",
            metrics=TrainerMetrics("bench", CollectorRegistry()),
        )
        self._feed.start()

    def update(self) -> None:
        batch = self._feed.take(30.0)
        assert batch is not None, "no batch came"
        self._learn(batch.to(self._agent.device))
        self._feed.release(batch)

    def close(self) -> None:
        self._feed.stop()


def measure(name: str, url: str, options: argparse.Namespace, device: torch.device, threads: int) -> Result:
    """All contenders of one algorithm, turn by turn."""
    torch.set_num_threads(threads)
    agents = [agent_of(CONTENDERS[name], device) for _ in range(2)]
    learn, learn_fed = [StaticUpdate(agent).learn if options.cuda_graphs else agent.learn for agent in agents]
    batch, fed = batch_in_memory(device), Fed(agents[1], learn_fed, url)
    updates: dict[str, Callable[[], Any]] = {"memory": lambda: learn(batch), "http": fed.update}
    if name in REFERENCES:
        reference = REFERENCES[name](OBSERVATION_SIZE, ACTION_SIZE, device)
        updates["cleanrl"] = lambda: reference.update(batch)
    try:
        for update in updates.values():
            rate(update, options.seconds / 2, device)  # warm
        turns = [
            {key: rate(update, options.seconds, device) for key, update in updates.items()}
            for _ in range(options.turns)
        ]
    finally:
        fed.close()
    middle = {key: statistics.median(turn[key] for turn in turns) for key in updates}
    known = "cleanrl" in updates
    return Result(
        name,
        threads,
        middle["memory"],
        middle["http"],
        middle.get("cleanrl"),
        statistics.median(turn["http"] / turn["memory"] for turn in turns),
        statistics.median(turn["memory"] / turn["cleanrl"] for turn in turns) if known else None,
    )


def floors_of(results: list[Result], threads: int) -> list[dict[str, Any]]:
    """What is held against a floor: everything with the trainer's own number of threads."""
    floors = []
    for result in (result for result in results if result.threads == threads):
        floors.append({"name": f"{result.algorithm}: http of memory", "value": result.http_to_memory, "floor": FLOOR})
        if result.memory_to_cleanrl is not None:
            ratio = {"name": f"{result.algorithm}: of CleanRL's", "value": result.memory_to_cleanrl}
            floors.append(ratio | {"floor": CLEANRL_FLOOR})
    return floors


def report(results: list[Result], floors: list[dict[str, Any]]) -> None:
    titles = f"{'algorithm':<22} {'threads':>7} {'memory/s':>9} {'http/s':>9} {'cleanrl/s':>9}"
    print(f"{titles} {'http/memory':>11} {'memory/cleanrl':>14}")
    for result in results:
        reference = "" if result.cleanrl is None else f"{result.cleanrl:.1f}"
        ratio = "" if result.memory_to_cleanrl is None else f"{result.memory_to_cleanrl:.2f}"
        print(
            f"{result.algorithm:<22} {result.threads:>7} {result.memory:>9.1f} {result.http:>9.1f} {reference:>9} "
            f"{result.http_to_memory:>11.3f} {ratio:>14}"
        )
    for floor in floors:
        held = "held" if floor["value"] >= floor["floor"] else "MISSED"
        print(f"{floor['name']:<40} {floor['value']:.3f}, floor {floor['floor']}: {held}")


def machine(device: torch.device) -> dict[str, Any]:
    """What the numbers were taken on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return taken_on() | {"device": name, "versions": {"torch": torch.__version__}}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5, help="turns of every contender")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a turn")
    parser.add_argument("--algorithms", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    counts = sorted({default_threads(), os.cpu_count() or 1})
    parser.add_argument("--threads", nargs="+", type=int, default=counts, help="default: the trainer's own, and all")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--cuda-graphs", action="store_true", help="replay recorded updates (GPU)")
    parser.add_argument("--json", type=Path, help="write the results here, too")
    options = parser.parse_args()
    device = torch.device(options.device)
    torch.set_flush_denormal(True)  # as the trainer does
    directory = Path(tempfile.mkdtemp(prefix="bench-update-"))
    record = {"machine": machine(device), "trainer_threads": default_threads()}
    try:
        with served(directory) as system:
            fill(system.url, OBSERVATION_SIZE, ACTION_SIZE, TRANSITIONS).close()
            results = [
                measure(name, system.url, options, device, threads)
                for threads in options.threads
                for name in options.algorithms
            ]
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    floors = floors_of(results, default_threads())
    report(results, floors)
    if options.json:
        record |= {"floors": floors, "results": [asdict(result) for result in results]}
        options.json.write_text(json.dumps(record, indent=2) + "\n")
    return 0 if all(floor["value"] >= floor["floor"] for floor in floors) else 1


if __name__ == "__main__":
    sys.exit(main())
