"""`gaitfleet run list`, `show`, `create`, `fork`: the runs of a replay API."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
import yaml
from rich.table import Table

from gaitfleet.command.inspection import DEFAULT_URL, Json, Url, check_run, connected, print_table
from gaitfleet.command.up import read_experiment
from gaitfleet.experiment import Experiment, parse_experiment
from gaitfleet.wire import ForkRequest, RunDescription

run = typer.Typer(help="Runs: list, show, create, fork.", no_args_is_help=True)

File = Annotated[str, typer.Option("--experiment", help="Experiment file, or the name of a shipped one.")]


@run.command(name="list")
def list_runs(url: Url = DEFAULT_URL, as_json: Json = False) -> None:
    """All runs, newest first."""
    with connected(url, "any") as client:
        runs = client.runs()
    if as_json:
        typer.echo(json.dumps([item.model_dump(mode="json") for item in runs], indent=2))
        return
    table = Table(box=None, pad_edge=False)
    for name in ("run", "created", "task", "experiment", "forked from"):
        table.add_column(name, no_wrap=True)
    for item in runs:
        created = f"{item.created_at:%Y-%m-%d %H:%M:%S}"
        parents = ", ".join(parent.run for parent in item.parents)
        table.add_row(item.run, created, item.experiment.task.environment, item.experiment_hash, parents)
    print_table(table)


@run.command()
def show(
    name: Annotated[str, typer.Argument(help="Id of the run.")], url: Url = DEFAULT_URL, as_json: Json = False
) -> None:
    """One run with its whole experiment, as YAML; what is left out of an experiment file stands there too."""
    with connected(url, name) as client:
        description = client.run().model_dump(mode="json")
    typer.echo(json.dumps(description, indent=2) if as_json else yaml.safe_dump(description, sort_keys=False).rstrip())


@run.command()
def create(
    name: Annotated[str, typer.Argument(help="Id of the new run, a DNS label.")],
    experiment: File,
    url: Url = DEFAULT_URL,
) -> None:
    """Create a run. Trainer and rollouts that wait for it begin at once."""
    with connected(url, name) as client:
        _tell("created", client.create_run(read_experiment(experiment)))


@run.command()
def fork(
    old: Annotated[str, typer.Argument(help="Id of the run whose stored episodes are learned from.")],
    new: Annotated[str, typer.Argument(help="Id of the new run, a DNS label.")],
    experiment: File,
    samples_per_inherited: Annotated[
        float,
        typer.Option(
            min=0,
            max=10_000,
            help="Transitions that may be sampled for every inherited one, whatever new experience comes in. "
            "0: the trainer begins at once and keeps the pace of new experience.",
        ),
    ] = 0.0,
    warm_start: Annotated[
        str | None,
        typer.Option(help="Begin with the old run's networks too: latest, best, or a checkpoint's step."),
    ] = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Create a run that learns from the stored episodes of another too, with its own observation and reward.

    Nothing is copied: the new run reads the training episodes that the old one holds now, newest first, as far as they
    fit beside its own. Episodes that the old run's `retention` deletes later are gone for the new run too.
    """
    with connected(url, old) as client:
        check_run(new)
        settings = read_experiment(experiment)
        if warm_start is not None:
            settings = parse_experiment(_warm(settings, old, warm_start))
        request = ForkRequest(run=new, experiment=settings, samples_per_inherited=samples_per_inherited)
        _tell("forked", client.fork_run(request))


def _warm(settings: Experiment, old: str, checkpoint: str) -> dict[str, Any]:
    which = int(checkpoint) if checkpoint.isdecimal() else checkpoint
    return settings.model_dump(mode="json") | {"warm_start": {"run": old, "checkpoint": which}}


def _tell(what: str, description: RunDescription) -> None:
    inherited = sum(parent.transitions for parent in description.parents)
    beside = f", with {inherited:,} inherited transitions" if description.parents else ""
    typer.echo(f"{what} {description.run} (experiment {description.experiment_hash}){beside}")
