"""Does it matter how many simulators collect the same experience? One against four at equal environment steps.

Runs of `learning_bars.py` with other numbers of rollout workers: the same experiment, several seeds each. Compared are
the means over seeds of the last score (the first policy evaluated once all steps are collected), and how many updates
were done for a decision: as the replay API's limiter counted them, and as the evaluated policies show. Finished runs
are kept in the record and not run again; one that was interrupted continues.

    python benchmarks/worker_counts.py --json benchmarks/results/workers.json
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np
from learning_bars import ALGORITHMS, TASKS, Run, curve_of_record, learn
from provenance import taken_on

from gaitfleet.command.plotting import plot_curves
from gaitfleet.experiment import parse_experiment

SCORE_FLOOR = 0.85
"""Every number of workers is within 15 % of the first one's mean score."""

UPDATES_FLOOR = 0.9
"""The measured update-to-data ratio is within 10 % of the one asked for."""

EVALUATIONS = 10
"""Of a run: each costs more than the learning between two of them."""

RESULTS = Path(__file__).parent / "results" / "workers.json"


def updates_per_decision(record: dict[str, Any]) -> tuple[float, float]:
    """Over the updates asked for, as the limiter has counted the samples, and as the policies show: their updates
    against the decisions that were stored when their evaluation began, from the first policy to the last."""
    asked = record["experiment"]["replay"]["samples_per_insert"]
    steps, updates = record["environment_steps"], record["policy_version"]
    shown = (updates[-1] - updates[0]) / (steps[-1] - steps[0])
    return record["samples_per_insert"] / asked, shown * record["experiment"]["algorithm"]["batch_size"] / asked


def group_of(records: list[dict[str, Any]]) -> dict[str, Any]:
    """What is compared of the runs with one number of workers."""
    scores = [record["score"] for record in records]
    ratios = np.array([updates_per_decision(record) for record in records])  # [seeds, 2]
    return {
        "algorithm": records[0]["run"]["algorithm"],
        "workers": records[0]["run"]["workers"],
        "seeds": len(records),
        "score": statistics.mean(scores),
        "score_deviation": statistics.pstdev(scores),
        "median_score": statistics.median(scores),
        # of the whole curve: the last score alone would not tell who learned sooner
        "mean_score_of_curve": statistics.mean(float(curve_of_record(record).score.mean()) for record in records),
        "updates_by_limiter": ratios[:, 0].tolist(),
        "updates_by_policies": ratios[:, 1].tolist(),
    }


def grouped(records: list[dict[str, Any]]) -> dict[tuple[str, int], list[dict[str, Any]]]:
    """Records by algorithm and number of workers."""
    groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for record in records:
        groups.setdefault((record["run"]["algorithm"], record["run"]["workers"]), []).append(record)
    return dict(sorted(groups.items()))


def floors_of(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What is held against a floor: 1 is perfect."""
    floors = []
    for group in groups:
        name = f"{group['algorithm']}, {group['workers']} workers"
        first = next(other for other in groups if other["algorithm"] == group["algorithm"])
        if group is not first:
            agreement = 1.0 - abs(group["score"] / first["score"] - 1.0)
            floors.append({"name": f"score, {name} of {first['workers']}", "value": agreement, "floor": SCORE_FLOOR})
        worst = max(abs(ratio - 1.0) for ratio in group["updates_by_limiter"] + group["updates_by_policies"])
        floors.append(
            {"name": f"update-to-data of that asked for, {name}", "value": 1.0 - worst, "floor": UPDATES_FLOOR}
        )
    return floors


def report(groups: list[dict[str, Any]], floors: list[dict[str, Any]]) -> None:
    titles = (
        f"{'algorithm':<10} {'workers':>7} {'seeds':>5} {'score':>9} {'deviation':>9} {'median':>9} {'whole curve':>11}"
    )
    print(f"{titles}  updates/asked")
    for group in groups:
        ratios = group["updates_by_limiter"] + group["updates_by_policies"]
        print(
            f"{group['algorithm']:<10} {group['workers']:>7} {group['seeds']:>5} {group['score']:>9.1f} "
            f"{group['score_deviation']:>9.1f} {group['median_score']:>9.1f} {group['mean_score_of_curve']:>11.1f}  "
            f"{min(ratios):.3f} to {max(ratios):.3f}"
        )
    for floor in floors:
        print(f"{floor['name']:<50} {floor['value']:.3f} (floor {floor['floor']})")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=TASKS, default="pendulum")
    parser.add_argument("--algorithms", nargs="+", choices=ALGORITHMS, default=["sac"])
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 4])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=8_000, help="environment steps of each run")
    parser.add_argument("--data-dir", type=Path, default=Path("data/worker-counts"), help="where runs keep their data")
    parser.add_argument("--json", type=Path, default=RESULTS, help="the record; the plot goes beside it")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the processes of a run are stopped, too
    records = json.loads(options.json.read_text())["runs"] if options.json.exists() else []
    done = {Run(**record["run"]) for record in records}
    asked = [
        Run(options.task, algorithm, seed, workers, options.steps, EVALUATIONS)
        for algorithm in options.algorithms
        for seed in options.seeds
        for workers in options.workers
    ]
    for run in asked:
        parse_experiment(run.experiment())
        if run in done:
            print(f"  {run}: kept from before")
            continue
        record = learn(run, options.data_dir / f"{run.workers}-workers" / run.name)
        records.append(record)
        options.json.write_text(json.dumps({"runs": records}) + "\n")
        print(f"  {run}: {record['score']:,.1f}", flush=True)
    by_group = grouped(records)
    groups = [group_of(found) for found in by_group.values()]
    floors = floors_of(groups)
    options.json.write_text(
        json.dumps({"machine": taken_on(), "groups": groups, "floors": floors, "runs": records}) + "\n"
    )
    curves = {
        f"{algorithm}, {workers} workers": [curve_of_record(record) for record in found]
        for (algorithm, workers), found in by_group.items()
    }
    plot_curves(curves, options.json.with_suffix(".png"), title=f"{TASKS[options.task].environment}, over seeds")
    report(groups, floors)
    return 0 if all(floor["value"] >= floor["floor"] for floor in floors) else 1


if __name__ == "__main__":
    sys.exit(main())
