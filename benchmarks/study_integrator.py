"""Which integrator settings give the most steps per second for the deviation that one will accept?

Every method and accuracy plays the same excitation sequences from the official start pose until the reference has
fallen; the reference is RungeKuttaMerson at 1e-7. Reported are steps per second, and the largest deviation of pelvis
and head position from the reference at 0.25 s, at 0.5 s and at its end. Writes a table, a plot (with matplotlib, which
is not among the development requirements) and the numbers.

    python benchmarks/study_integrator.py --sequences 54 --processes 2 --output docs/integrator
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import subprocess
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from rollout.environments.interface import SimulatorFailure
from rollout.environments.prosthetics import ProstheticsEnvironment

Float32 = npt.NDArray[np.float32]

REFERENCE = ("RungeKuttaMerson", 1e-7)
OFFICIAL = ("RungeKuttaMerson", 5e-5)
SETTINGS = (
    OFFICIAL,
    ("RungeKuttaMerson", 1e-3),
    ("RungeKutta3", 1e-3),
    ("RungeKutta2", 1e-3),
    ("SemiExplicitEuler2", 1e-3),
    ("SemiExplicitEuler2", 5e-3),
    ("ExplicitEuler", 1e-3),
    ("CPodes", 1e-3),
)
STEPS = 120
"""Most sequences have fallen by then."""

FALL_HEIGHT_M = 0.6
LOOKS = {"0.25 s": 25, "0.5 s": 50}


@dataclass(frozen=True)
class Sequence:
    """One excitation sequence [STEPS, 19] and how it was made."""

    kind: str
    seed: int

    def excitations(self) -> Float32:
        """`held`: uniform, held for four steps. `smooth`: a slow random walk. `stride`: legs in opposite phase."""
        generator = np.random.default_rng(self.seed)
        if self.kind == "held":
            values = np.repeat(generator.random((STEPS // 4, 19)), 4, axis=0)
        elif self.kind == "smooth":
            steps = np.cumsum(generator.normal(0, 0.08, (STEPS, 19)), axis=0)
            values = np.clip(generator.random(19) * 0.6 + steps, 0, 1)
        else:
            # flexors and extensors of a leg alternate, the legs are half a stride (about 1 s) apart
            phase = 2 * np.pi * np.arange(STEPS)[:, None] / generator.uniform(80, 120) + generator.uniform(0, 2 * np.pi)
            offset = np.r_[generator.uniform(0, 2 * np.pi, 8), np.zeros(11)]
            offset[8:16] = offset[:8] + np.pi
            offset[16:] = generator.uniform(0, 2 * np.pi, 3)
            values = np.clip(0.25 + 0.4 * np.sin(phase + offset), 0.01, 1)
        return values.astype(np.float32)


def play(model: str, setting: tuple[str, float], actions: Float32) -> tuple[Float32, float, str]:
    """Positions [n, 6] of pelvis and head, steps per second, and how it ended."""
    environment = ProstheticsEnvironment(model, True, 1, *setting)
    row = np.empty(environment.state_size, np.float32)
    columns = environment.layout.indices(f"body_pos/{body}/{axis}" for body in ("pelvis", "head") for axis in "xyz")
    environment.reset(0, row, None)
    positions, ending = [row[columns].copy()], "time"
    began = perf_counter()
    for action in actions:
        try:
            environment.step(action, row)
        except SimulatorFailure as failure:
            ending = failure.kind
            break
        positions.append(row[columns].copy())
        if row[columns[1]] < FALL_HEIGHT_M:
            ending = "fall"
            break
    seconds = perf_counter() - began
    environment.close()
    return np.array(positions), (len(positions) - 1) / seconds, ending


def compare(job: tuple[str, Sequence]) -> list[dict[str, Any]]:
    """One sequence by the reference and by every setting."""
    model, sequence = job
    actions = sequence.excitations()
    reference, _, _ = play(model, REFERENCE, actions)
    results = []
    for setting in SETTINGS:
        positions, speed, ending = play(model, setting, actions)
        looks = LOOKS | {"end": len(reference) - 1}
        error = {}
        for name, step in looks.items():
            if step < len(reference):
                error[name] = float(np.abs(positions[step] - reference[step]).max()) if step < len(positions) else None
        result = {"model": model, "kind": sequence.kind, "seed": sequence.seed, "integrator": setting[0]}
        results.append(result | {"accuracy": setting[1], "steps_per_second": speed, "ending": ending, "error_m": error})
    return results


def table(results: list[dict[str, Any]]) -> str:
    """Markdown: one line a setting."""
    groups: dict[tuple[str, str, float], list[dict[str, Any]]] = defaultdict(list)
    for result in results:
        groups[result["model"], result["integrator"], result["accuracy"]].append(result)
    looks = [*LOOKS, "end"]
    heads = " | ".join(f"median, worst error at {look} (mm)" for look in looks)
    lines = [f"| model | method | accuracy | steps/s | {heads} | failures |", "|---" * (5 + len(looks)) + "|"]
    for (model, integrator, accuracy), group in groups.items():
        speed = np.median([result["steps_per_second"] for result in group])
        cells = []
        for look in looks:
            errors = [1000 * e for result in group if (e := result["error_m"].get(look)) is not None]
            cells.append(f"{np.median(errors):.2f}, {max(errors):.1f}")
        failures = sum(result["ending"] not in ("fall", "time") for result in group)
        lines.append(f"| {model} | {integrator} | {accuracy:g} | {speed:.0f} | {' | '.join(cells)} | {failures} |")
    return "\n".join(lines)


def plot(results: list[dict[str, Any]], path: Path) -> None:
    """Speed against error at half a second, one point a sequence, one colour a setting."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    models = sorted({result["model"] for result in results})
    figure, axes = plt.subplots(1, len(models), figsize=(6 * len(models), 4.5), squeeze=False, layout="constrained")
    for axis, model in zip(axes[0], models, strict=True):
        for setting in SETTINGS:
            points = [
                (result["steps_per_second"], max(1000 * result["error_m"]["0.5 s"], 1e-4))
                for result in results
                if (result["model"], result["integrator"], result["accuracy"]) == (model, *setting)
                and result["error_m"].get("0.5 s") is not None
            ]
            axis.scatter(*np.array(points).T, s=12, alpha=0.7, label=f"{setting[0]} {setting[1]:g}")
        axis.set(title=f"{model} model", xlabel="steps per second and core", ylabel="error at 0.5 s (mm)", yscale="log")
        axis.grid(alpha=0.3)
    axes[0][-1].legend(fontsize=7)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequences", type=int, default=54, help="excitation sequences, a third of each kind")
    parser.add_argument("--models", nargs="+", default=["3D", "2D"])
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("docs/integrator"), help="path without suffix")
    options = parser.parse_args()
    kinds = ("held", "smooth", "stride")
    sequences = [Sequence(kinds[i % 3], i // 3) for i in range(options.sequences)]
    jobs = [(model, sequence) for model in options.models for sequence in sequences]
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        results = [result for part in pool.imap(compare, jobs) for result in part]
    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    record = {"commit": git.stdout.strip(), "machine": platform.platform(), "processes": options.processes}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.with_suffix(".json").write_text(json.dumps(record | {"results": results}))
    plot(results, options.output.with_suffix(".png"))
    print(table(results))


if __name__ == "__main__":
    main()
