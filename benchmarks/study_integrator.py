"""Which integrator settings give the most steps per second for the deviation that one will accept?

Every method and accuracy plays the same excitation sequences; the reference is RungeKuttaMerson at 1e-6. Reported are
the speed by processor time, as a multiple of osim-rl's own settings on the same sequence, and the largest deviation of
pelvis and head position from the reference at 0.25 s, 0.5 s and at its end (0.6 s, or its fall).

Sequences are played one after the other and noted as they are done; the same command goes on where it was stopped. At
the end, or with --render at any time, a plot and a table are made of what is there.

    make study-integrator ARGS="--processes 2"
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from time import thread_time
from typing import Any

import numpy as np
import numpy.typing as npt
from provenance import commit, simulator_machine

from gaitfleet.experiment import InitialStateSettings, ProstheticsTask
from gaitfleet.pose import Pose
from gaitfleet.task.prosthetics_layout import MUSCLES, Model
from gaitfleet.task.prosthetics_strides import draw_pose
from rollout.environments.interface import SimulatorFailure
from rollout.environments.prosthetics import ProstheticsEnvironment

Float32 = npt.NDArray[np.float32]

REFERENCE = ("RungeKuttaMerson", 1e-6)
OFFICIAL = ("RungeKuttaMerson", 5e-5)
SETTINGS = (
    OFFICIAL,
    ("RungeKuttaMerson", 1e-3),
    ("RungeKutta3", 1e-3),
    ("RungeKutta2", 1e-3),
    ("SemiExplicitEuler2", 1e-3),
    ("SemiExplicitEuler2", 5e-3),
    ("ExplicitEuler", 1e-3),
)
STEPS = 60
"""0.6 s: a step of the walking-like sequences; random walkers begin to fall."""

FALL_HEIGHT_M = 0.6
LOOKS = {"0.25 s": 25, "0.5 s": 50}
KINDS = ("held", "smooth", "walk")

HALF_STRIDE_STEPS = 50
"""From one foot's landing to the other's in the walking-like sequences: a slow walk."""

STANCE = {"glut_max": 0.5, "abd": 0.4, "vasti": 0.5, "soleus": 0.4, "gastroc": 0.3}
SWING = {"iliopsoas": 0.6, "bifemsh": 0.3, "add": 0.2, "tib_ant": 0.4, "rect_fem": 0.2}
"""Excitations of a leg that carries and of one that swings, roughly as electromyograms of walking have them."""


@dataclass(frozen=True)
class Sequence:
    """One excitation sequence [STEPS, 19], where it begins, and how it was made."""

    model: Model
    kind: str
    seed: int

    def pose(self) -> Pose | None:
        """Mid-stride for `walk`, else the official one."""
        if self.kind != "walk":
            return None
        start = InitialStateSettings(kind="stride", official_share=0.0)
        return draw_pose(ProstheticsTask(model=self.model, initial_state=start), self.seed, 0)

    def excitations(self) -> Float32:
        """`held`: uniform, held for four steps. `smooth`: a slow random walk. `walk`: legs carry and swing by turns."""
        generator = np.random.default_rng(self.seed)
        if self.kind == "held":
            values = np.repeat(generator.random((STEPS // 4, 19)), 4, axis=0)
        elif self.kind == "smooth":
            steps = np.cumsum(generator.normal(0, 0.08, (STEPS, 19)), axis=0)
            values = np.clip(generator.random(19) * 0.6 + steps, 0, 1)
        else:
            values = self._walking(generator)
        return values.astype(np.float32)

    def _walking(self, generator: np.random.Generator) -> npt.NDArray[np.float64]:
        """The leg on the ground carries until the other one lands, about the middle of the sequence."""
        pose = self.pose()
        left_carries = pose is None or pose.value["knee_angle_l"] > pose.value["knee_angle_r"]
        landing = generator.integers(HALF_STRIDE_STEPS // 4, 3 * HALF_STRIDE_STEPS // 4)
        values = np.empty((STEPS, 19))
        for step in range(STEPS):
            left = left_carries == ((step - landing) // HALF_STRIDE_STEPS % 2 == 1)
            for i, muscle in enumerate(MUSCLES):
                name, side = muscle[:-2], muscle[-1]
                values[step, i] = (STANCE if left == (side == "l") else SWING).get(name, 0.05)
        smooth = np.array([np.convolve(np.pad(v, 2, "edge"), np.ones(5) / 5, "valid") for v in values.T]).T
        return np.clip(smooth * generator.uniform(0.6, 1.4, 19), 0.01, 1)


@cache
def simulator(model: Model, setting: tuple[str, float]) -> ProstheticsEnvironment:
    """Loaded once for a process."""
    return ProstheticsEnvironment(model, True, 1, *setting)


def play(sequence: Sequence, setting: tuple[str, float]) -> tuple[Float32, float, str]:
    """Positions [n, 6] of pelvis and head, processor seconds of a step, and how it ended."""
    environment = simulator(sequence.model, setting)
    row = np.empty(environment.state_size, np.float32)
    columns = environment.layout.indices(f"body_pos/{body}/{axis}" for body in ("pelvis", "head") for axis in "xyz")
    environment.reset(0, row, None, sequence.pose())
    positions, ending = [row[columns].copy()], "time"
    began = thread_time()
    for action in sequence.excitations():
        try:
            environment.step(action, row)
        except SimulatorFailure as failure:
            ending = failure.kind
            break
        positions.append(row[columns].copy())
        if row[columns[1]] < FALL_HEIGHT_M:
            ending = "fall"
            break
    return np.array(positions), (thread_time() - began) / (len(positions) - 1 or 1), ending


def compare(sequence: Sequence) -> list[dict[str, Any]]:
    """One sequence by the reference and by every setting."""
    reference, _, _ = play(sequence, REFERENCE)
    looks = LOOKS | {"end": len(reference) - 1}
    results: list[dict[str, Any]] = []
    for setting in SETTINGS:
        positions, seconds, ending = play(sequence, setting)
        error = {
            name: float(np.abs(positions[step] - reference[step]).max()) if step < len(positions) else None
            for name, step in looks.items()
            if step < len(reference)
        }
        result = {"model": sequence.model, "kind": sequence.kind, "seed": sequence.seed, "integrator": setting[0]}
        results.append(result | {"accuracy": setting[1], "step_seconds": seconds, "ending": ending, "error_m": error})
    official = results[0]["step_seconds"]
    return [result | {"speed_ratio": official / result["step_seconds"]} for result in results]


def table(results: list[dict[str, Any]]) -> str:
    """Markdown: one line a model and setting."""
    looks = [*LOOKS, "end"]
    heads = " | ".join(f"error at {look}: median, worst (mm)" for look in looks)
    lines = [f"| model | method | accuracy | sequences | times official | {heads} | failures |"]
    lines.append("|---" * (6 + len(looks)) + "|")
    for (model, integrator, accuracy), group in grouped(results).items():
        ratio = np.median([result["speed_ratio"] for result in group])
        cells = []
        for look in looks:
            errors = [1000 * e for result in group if (e := result["error_m"].get(look)) is not None]
            cells.append(f"{np.median(errors):.2f}, {max(errors):.1f}")
        failures = sum(result["ending"] not in ("fall", "time") for result in group)
        numbers = f"{len(group)} | {ratio:.2f} | {' | '.join(cells)} | {failures}"
        lines.append(f"| {model} | {integrator} | {accuracy:g} | {numbers} |")
    return "\n".join(lines)


def grouped(results: list[dict[str, Any]]) -> dict[tuple[str, str, float], list[dict[str, Any]]]:
    """By model, method and accuracy."""
    groups: dict[tuple[str, str, float], list[dict[str, Any]]] = defaultdict(list)
    for result in results:
        groups[result["model"], result["integrator"], result["accuracy"]].append(result)
    return dict(sorted(groups.items(), key=lambda item: (item[0][0], SETTINGS.index(item[0][1:]))))


def plot(results: list[dict[str, Any]], path: Path) -> None:
    """Speed against error at half a second: a point a sequence, a ring at the median, one colour a setting."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    models = sorted({result["model"] for result in results})
    figure, axes = plt.subplots(1, len(models), figsize=(6 * len(models), 4.8), squeeze=False, layout="constrained")
    for (model, integrator, accuracy), group in grouped(results).items():
        axis, colour = axes[0][models.index(model)], f"C{SETTINGS.index((integrator, accuracy))}"
        seen = [(r["speed_ratio"], 1000 * e) for r in group if (e := r["error_m"].get("0.5 s")) is not None]
        ratio, error = np.maximum(np.array(seen), 1e-4).T
        axis.scatter(ratio, error, s=8, alpha=0.5, color=colour, label=f"{integrator} {accuracy:g}")
        axis.scatter(np.median(ratio), np.median(error), s=120, facecolors="none", edgecolors=colour, linewidths=2)
    for axis, model in zip(axes[0], models, strict=True):
        axis.set(title=f"{model} model", xlabel="speed, times osim-rl's own settings", yscale="log")
        axis.set_ylabel("deviation of pelvis and head after 0.5 s (mm)")
        axis.grid(alpha=0.3)
    axes[0][-1].legend(fontsize=8)
    figure.savefig(path, dpi=130)


def noted(path: Path) -> Iterator[dict[str, Any]]:
    """The results of earlier runs of this study."""
    if path.exists():
        for line in path.read_text().splitlines():
            entry = json.loads(line)
            if "integrator" in entry:
                yield entry


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequences", type=int, default=54, help="a third of each kind, half of each model")
    parser.add_argument("--models", nargs="+", default=["3D", "2D"])
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--notes", type=Path, default=Path("benchmarks/results/integrator.jsonl"))
    parser.add_argument("--plot", type=Path, default=Path("docs/images/integrator.png"))
    parser.add_argument("--render", action="store_true", help="play nothing: plot and table of what was noted")
    options = parser.parse_args()
    notes = options.notes
    if not options.render:
        known = {(r["model"], r["kind"], r["seed"]) for r in noted(notes)}
        models = options.models
        wanted = [(models[i % len(models)], KINDS[i % 3], i // 3) for i in range(options.sequences)]
        missing = [Sequence(*key) for key in wanted if key not in known]
        with notes.open("a") as file, multiprocessing.get_context("spawn").Pool(options.processes) as pool:
            print(json.dumps({"commit": commit(), "machine": simulator_machine()}), file=file, flush=True)
            for results in pool.imap(compare, missing):
                print(*map(json.dumps, results), sep="\n", file=file, flush=True)
    results = list(noted(notes))
    plot(results, options.plot)
    print(table(results))


if __name__ == "__main__":
    main()
