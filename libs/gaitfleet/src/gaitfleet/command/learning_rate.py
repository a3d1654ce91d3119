"""`gaitfleet lr-find`: a learning-rate range test on the batches of a run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from gaitfleet.command.inspection import DEFAULT_URL, Json, Url, print_table
from gaitfleet.command.plotting import new_figure, save
from gaitfleet.errors import GaitfleetError

ROWS = 16
"""Lines of the table."""


def lr_find(
    run: Annotated[str, typer.Argument(help="Id of the run; it must hold enough transitions to be sampled.")],
    url: Url = DEFAULT_URL,
    steps: Annotated[int, typer.Option(min=10, help="Updates; the learning rate grows with each.")] = 200,
    batches: Annotated[int, typer.Option(min=1, help="Batches sampled, used in turn.")] = 64,
    lowest: Annotated[float, typer.Option(help="Learning rate of the first update.")] = 1e-6,
    highest: Annotated[float, typer.Option(help="Learning rate of the last, unless learning diverges before.")] = 1.0,
    png: Annotated[Path, typer.Option(help="Where the plot goes.")] = Path("lr-find.png"),
    device: Annotated[str, typer.Option(help="What to compute on: auto, cpu or cuda.")] = "auto",
    as_json: Json = False,
) -> None:
    """Try growing learning rates on a run's batches, from its newest checkpoint, and suggest one (Smith 2017).

    Nothing is published, the run's trainer may go on. The sampled batches count towards samples per insert.
    """
    arguments = {"steps": steps, "batches": batches, "lowest": lowest, "highest": highest}
    try:
        if not 0 < lowest < highest:
            raise GaitfleetError(f"--lowest {lowest:g} must be above 0 and below --highest {highest:g}")
        found = _range_test(run, url, device, arguments)
        _plot(found, run, png)
    except GaitfleetError as error:
        typer.echo(f"gaitfleet lr-find: {error}", err=True)
        raise typer.Exit(1) from None
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    print_table(_table(found))
    typer.echo(f"suggested critic_learning_rate: {found['suggestion']:.1e}   plot: {png}")


def _range_test(run: str, url: str, device: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """The result of the trainer's own command, in a process that has torch."""
    options = [part for name, value in arguments.items() for part in (f"--{name}", str(value))]
    environment = {"REPLAY_API_URL": url, "RUN": run, "DEVICE": device}
    if token := os.environ.get("GAITFLEET_TOKEN"):
        environment["TOKEN"] = token
    variables = {f"GAITFLEET_TRAINER_{name}": value for name, value in environment.items()}
    answer = subprocess.run(
        [sys.executable, "-m", "trainer.range_test", *options],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode:
        raise GaitfleetError(answer.stderr.strip().rpartition("\n")[2] or f"it ended with status {answer.returncode}")
    result: dict[str, Any] = json.loads(answer.stdout)
    return result


def _plot(found: dict[str, Any], run: str, path: Path) -> None:
    figure, axes = new_figure()
    axes.plot(found["learning_rate"], found["loss"], alpha=0.3, label="loss")
    axes.plot(found["learning_rate"], found["smoothed"], label="smoothed")
    axes.axvline(found["suggestion"], color="black", linestyle="--", label=f"suggestion {found['suggestion']:.1e}")
    axes.set(xscale="log", yscale="log", xlabel="learning rate of the critics", ylabel="critics' loss")
    axes.set_title(f"{run} from update {found['from_step']:,}")
    axes.legend()
    save(figure, path)


def _table(found: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("learning rate", "loss", "smoothed"):
        table.add_column(name, justify="right")
    count = len(found["learning_rate"])
    for i in sorted({round(k * (count - 1) / (ROWS - 1)) for k in range(ROWS)}):
        rate, loss, smoothed = (found[name][i] for name in ("learning_rate", "loss", "smoothed"))
        table.add_row(f"{rate:.1e}", f"{loss:.4g}", f"{smoothed:.4g}")
    return table
