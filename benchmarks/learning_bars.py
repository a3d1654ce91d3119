"""Does every algorithm learn standard tasks, through the whole system, up to fixed scores?

The bars lie below what published curves reach (see `TASKS`); networks and some other settings are smaller than in the
papers (see `ALGORITHMS`), so that meeting a bar says that an algorithm learns as it should, and not that a paper's
result was reproduced. Each run is a `gaitfleet up` of its own: database, replay API, trainer, two simulators, one
evaluator. Runs come one after the other; one that was interrupted continues, one that is finished is kept as a JSON
file and not run again. The table holds the median over seeds against the bars.

    python benchmarks/learning_bars.py --tasks pendulum --algorithms sac td3 --seeds 0 1 2
    python benchmarks/learning_bars.py --report-only
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from provenance import commit

from gaitfleet.client import ReplayClient
from gaitfleet.command.learning_curve import LearningCurve, NoCurveError, read_curves
from gaitfleet.command.plotting import plot_curves
from gaitfleet.command.processes import free_port
from gaitfleet.errors import ApiError
from gaitfleet.experiment import parse_experiment

RESULTS = Path(__file__).parent / "results" / "learning"
POLL_SECONDS = {"last": 5.0, "best": 30.0}
"""How often a run is looked at; where every look reads the whole curve, less often."""


@dataclass(frozen=True)
class BarTask:
    """A task with its length in environment steps and the least score of each algorithm.

    Parameters
    ----------
    judged
        `last`: the first policy evaluated at `steps`; `best`: the best up to it, and a run ends as soon as one meets
        its bar, because no later one can change the verdict.
    algorithm
        What differs from the algorithm's own settings here.
    widths
        Of actor and critics, where the algorithm's own are needlessly large.
    episodes
        Of an evaluation. Their seeds are fixed, so where the start decides the score there must be many.
    """

    environment: str
    steps: int
    min_size: int
    bars: dict[str, float]
    judged: Literal["last", "best"] = "last"
    algorithm: dict[str, Any] = field(default_factory=dict)
    widths: tuple[int, int] | None = None
    episodes: int = 10


def _bars(td3: float, sac: float, crossq: float, simba: float) -> dict[str, float]:
    return {"td3": td3, "sac": sac, "crossq": crossq, "simba": simba}


TASKS = {
    "pendulum": BarTask(
        "Pendulum-v1",
        20_000,
        1_000,
        _bars(-200, -200, -200, -200),
        algorithm={"discount": 0.98, "actor_learning_rate": 1e-3, "critic_learning_rate": 1e-3},
        widths=(64, 128),
        episodes=50,  # a policy that scored -137 from 40 starts scored -211 from ten others
    ),
    "inverted-pendulum": BarTask("InvertedPendulum-v4", 50_000, 1_000, _bars(950, 900, 950, 950), widths=(64, 128)),
    "inverted-double-pendulum": BarTask(
        "InvertedDoublePendulum-v4",
        100_000,
        1_000,
        _bars(9000, 9000, 9000, 9000),
        judged="best",
        widths=(64, 128),
    ),
    "hopper": BarTask("Hopper-v4", 200_000, 5_000, _bars(1000, 1800, 2200, 2600)),
}
"""Medians of three seeds. The bars were chosen by the curves of the authors' TD3 (sfujim/TD3, learning_curves) and by
the results that are published with SimBaV2 (DAVIAN-Robotics/SimbaV2), ten seeds each."""

MLP = {"kind": "mlp", "hidden_size": 256, "blocks": 2}
STOCHASTIC = {"initial_temperature": 0.2, "target_entropy_per_action": -1.0}

ALGORITHMS: dict[str, dict[str, Any]] = {
    "td3": {"name": "td3", "actor": MLP, "critic": MLP},
    "sac": {"name": "sac", "actor": MLP, "critic": MLP, "critic_learning_rate": 1e-3, **STOCHASTIC},
    "crossq": {"name": "crossq", "actor": MLP, "critic": MLP | {"hidden_size": 512}, **STOCHASTIC},
    "simba": {
        "name": "sac",
        "actor": {"kind": "simba", "hidden_size": 128, "blocks": 1},
        "critic": {"kind": "simba", "hidden_size": 256, "blocks": 1},
        "critic_bins": 101,
        "reward_scaling": True,
    },
}
"""Chosen here, for a CPU. The papers have other ones: CrossQ's critics are 2048 wide there, and SimBaV2's 512, with
hyperspherical layers and a learning rate of 1e-4."""

UPDATES_PER_STEP = {"simba": 2}
"""Updates for one decision; one where nothing is said."""


@dataclass(frozen=True)
class Run:
    """One task, one algorithm, one seed.

    Parameters
    ----------
    workers
        Simulators that collect experience.
    steps
        Environment steps; None: those of the task.
    evaluations
        Policies that are evaluated on the way.
    """

    task: str
    algorithm: str
    seed: int
    workers: int = 2
    steps: int | None = None
    evaluations: int = 40

    @property
    def length(self) -> int:
        """Its environment steps."""
        return self.steps or TASKS[self.task].steps

    @property
    def bar(self) -> float:
        """The least score that it is held against."""
        return TASKS[self.task].bars[self.algorithm]

    @property
    def name(self) -> str:
        return f"{self.task}-{self.algorithm}-seed{self.seed}"

    def experiment(self) -> dict[str, Any]:
        """Its experiment file."""
        task, updates = TASKS[self.task], UPDATES_PER_STEP.get(self.algorithm, 1)
        algorithm = ALGORITHMS[self.algorithm] | {"discount": 0.99, "batch_size": 256} | task.algorithm
        for network, width in zip(("actor", "critic"), task.widths or (), strict=False):
            algorithm[network] = algorithm[network] | {"hidden_size": width}
        return {
            "task": {"environment": f"gymnasium:{task.environment}"},
            "algorithm": algorithm,
            "replay": {"min_size": task.min_size, "samples_per_insert": 256 * updates, "limit_inserts": True},
            "evaluation": {"episodes": task.episodes},
            "checkpoints": {"every_updates": self.length * updates // self.evaluations, "every_seconds": 3600},
            "seed": self.seed,
        }


# --- one run ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def playing(run: Run, directory: Path) -> Iterator[Watched]:
    """The run's `gaitfleet up`, and a client of its API."""
    directory.mkdir(parents=True, exist_ok=True)
    experiment, port = directory / "experiment.yaml", free_port()
    experiment.write_text(yaml.safe_dump(run.experiment(), sort_keys=False))
    command = [sys.executable, "-m", "gaitfleet", "up", "--run", run.name, "--experiment", str(experiment)]
    command += ["--workers", str(run.workers), "--evaluators", "1", "--port", str(port), "--data-dir", str(directory)]
    with (directory / "output.txt").open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        with ReplayClient(f"http://127.0.0.1:{port}", run=run.name, timeout_seconds=30.0, attempts=1) as client:
            yield Watched(client, process)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(120)


class Watched:
    """A client, and whether what answers it still runs."""

    def __init__(self, client: ReplayClient, process: subprocess.Popen[bytes]) -> None:
        self.client = client
        self._process = process

    def inserted(self) -> int:
        """Decisions collected; 0 while the API does not answer."""
        if self._process.poll() is not None:
            raise RuntimeError(f"gaitfleet up ended with {self._process.returncode}")
        try:
            return self.client.limits().inserted
        except ApiError:
            return 0


def learn(run: Run, directory: Path) -> dict[str, Any]:
    """Play the run to its end; its record."""
    task, began = TASKS[run.task], time.monotonic()
    with playing(run, directory) as fleet:
        said = -1
        while True:
            time.sleep(POLL_SECONDS[task.judged])
            inserted = fleet.inserted()
            if inserted * 10 // run.length != said:
                said = inserted * 10 // run.length
                print(f"  {run.name}: {inserted:,} of {run.length:,} steps", flush=True)
            if inserted < run.length and task.judged == "last":
                continue
            with contextlib.suppress(ApiError, NoCurveError):
                (whole,) = read_curves(fleet.client, run.name)  # no curriculum
                curve = whole_evaluations(whole, run)
                if decided(curve, run):
                    status = fleet.client.status()
                    break
    within = curve.score[: int(np.searchsorted(curve.environment_steps, run.length)) + 1]
    return {
        "run": asdict(run),
        "score": float(within.max() if task.judged == "best" else within[-1]),
        "environment_steps": curve.environment_steps.tolist(),
        "scores": curve.score.tolist(),
        "policy_version": list(curve.policy_version),
        "samples_per_insert": status.samples_per_insert,
        "seconds_of_this_start": time.monotonic() - began,
        "experiment": run.experiment(),
        "commit": commit(),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "processors": os.cpu_count(),
    }


def decided(curve: LearningCurve, run: Run) -> bool:
    """Whether nothing that is played from now on can change the run's verdict."""
    if not len(curve.score):
        return False
    met = TASKS[run.task].judged == "best" and bool(curve.score.max() >= run.bar)
    return met or bool(curve.environment_steps[-1] >= run.length)


def whole_evaluations(curve: LearningCurve, run: Run) -> LearningCurve:
    """The curve without policies whose evaluation is not finished."""
    needed = run.experiment()["evaluation"]["episodes"]
    kept = [i for i, episodes in enumerate(curve.episodes) if episodes >= needed]
    return LearningCurve(
        curve.run,
        curve.environment_steps[kept],
        curve.score[kept],
        tuple(curve.episodes[i] for i in kept),
        tuple(curve.policy_version[i] for i in kept),
    )


# --- the table -------------------------------------------------------------------------------------------------------


def report(results: Path) -> bool:
    """Print the table and draw the curves of everything recorded there; whether every bar is held."""
    records: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for path in sorted(results.glob("*-seed*.json")):
        record = json.loads(path.read_text())
        records.setdefault((record["run"]["task"], record["run"]["algorithm"]), []).append(record)
    print(f"{'task':<26} {'algorithm':<10} {'seeds':>5} {'median':>10} {'least':>10} {'greatest':>10} {'bar':>8}")
    held = True
    for name, task in TASKS.items():
        groups: dict[str, list[LearningCurve]] = {}
        for algorithm in ALGORITHMS:
            found = records.get((name, algorithm), [])
            if not found:
                continue
            groups[algorithm] = [curve_of_record(record) for record in found]
            scores = [record["score"] for record in found]
            median, bar = statistics.median(scores), task.bars[algorithm]
            held &= median >= bar
            print(
                f"{name:<26} {algorithm:<10} {len(scores):>5} {median:>10,.1f} {min(scores):>10,.1f} "
                f"{max(scores):>10,.1f} {bar:>8,.0f}{'' if median >= bar else ' !'}"
            )
        if groups:
            plot_curves(groups, results / f"{name}.png", title=f"{task.environment}, mean and deviation over seeds")
    return held


def curve_of_record(record: dict[str, Any]) -> LearningCurve:
    steps, scores = np.array(record["environment_steps"]), np.array(record["scores"])
    return LearningCurve("", steps, scores, (), tuple(record["policy_version"]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), help="default: all")
    parser.add_argument("--algorithms", nargs="+", choices=ALGORITHMS, default=list(ALGORITHMS), help="default: all")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument("--data-dir", type=Path, default=Path("data/learning-bars"), help="where runs keep their data")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where records and curves go")
    parser.add_argument("--report-only", action="store_true", help="run nothing")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the processes of a run are stopped, too
    options.results.mkdir(parents=True, exist_ok=True)
    runs = [Run(task, name, seed) for task in options.tasks for seed in options.seeds for name in options.algorithms]
    for run in [] if options.report_only else runs:
        parse_experiment(run.experiment())
        kept = options.results / f"{run.name}.json"
        if kept.exists():
            print(f"  {run.name}: kept from before")
            continue
        record = learn(run, options.data_dir / run.name)
        kept.write_text(json.dumps(record) + "\n")
        print(f"  {run.name}: {record['score']:,.1f}", flush=True)
    return 0 if report(options.results) else 1


if __name__ == "__main__":
    sys.exit(main())
