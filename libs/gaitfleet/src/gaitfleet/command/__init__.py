"""The `gaitfleet` command: run the whole system on one machine, look at it, at its episodes and at tasks."""

from __future__ import annotations

import typer

from gaitfleet.command.analyze import analyze
from gaitfleet.command.compare import compare
from gaitfleet.command.doctor import doctor
from gaitfleet.command.inspection import episodes, events, status
from gaitfleet.command.learning_rate import lr_find
from gaitfleet.command.play import play
from gaitfleet.command.run import run
from gaitfleet.command.task import task
from gaitfleet.command.transfer import export, import_
from gaitfleet.command.up import up

app = typer.Typer(
    name="gaitfleet",
    help="Distributed reinforcement learning for OpenSim walkers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(up)
app.command()(doctor)
app.command()(status)
app.command()(episodes)
app.command()(events)
app.command()(play)
app.command()(export)
app.command(name="import")(import_)
app.command()(analyze)
app.add_typer(run, name="run")
app.command()(compare)
app.command(name="lr-find")(lr_find)
app.add_typer(task, name="task")

__all__ = ["app"]
