"""`gaitfleet up`: the whole system on one machine."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live

from gaitfleet.client import ReplayClient
from gaitfleet.command.display import status_table
from gaitfleet.command.fleet import Fleet, FleetOptions
from gaitfleet.command.inspection import check_run
from gaitfleet.command.processes import only_one
from gaitfleet.errors import (
    ApiError,
    ApiUnavailableError,
    ConflictError,
    ExperimentError,
    GaitfleetError,
    NotFoundError,
)
from gaitfleet.experiment import Experiment, load_experiment
from gaitfleet.task.stages import stage_tasks
from gaitfleet.wire import RunStatus

DEFAULT_EXPERIMENT = "prosthetics"
TABLE_SECONDS = 1.0
LINE_SECONDS = 5.0

ANSWER_SECONDS = 10.0
"""How long one request to the API may take; one that takes longer is sent again."""


def up(
    run: Annotated[str, typer.Option(help="Id of the run; the same id continues it.")] = "walker",
    experiment: Annotated[
        str | None,
        typer.Option(
            help="Experiment file, or the name of a shipped one: prosthetics, prosthetics-2d, prosthetics-curriculum, "
            "pendulum."
        ),
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Simulator processes that collect experience.")] = max(
        1, (os.cpu_count() or 2) - 1
    ),
    evaluators: Annotated[int, typer.Option(min=0, help="Simulator processes that judge published policies.")] = 1,
    data_dir: Annotated[Path, typer.Option(help="Where database, checkpoints, spool and logs go.")] = Path("data"),
    stop_after_episodes: Annotated[
        int | None, typer.Option(min=1, help="Stop when the run holds this many training episodes.")
    ] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Loopback port of the replay API.")] = 8080,
    mongodb_uri: Annotated[
        str | None,
        typer.Option(envvar="MONGODB_URI", help="A MongoDB replica set to use instead of the embedded server."),
    ] = None,
    checkpoint_store: Annotated[
        str | None, typer.Option(help="`s3://bucket/prefix` or `directory:PATH` instead of the data directory.")
    ] = None,
    s3_endpoint_url: Annotated[str | None, typer.Option(help="Endpoint of an S3 that is not Amazon's.")] = None,
    device: Annotated[str, typer.Option(help="What the trainer computes on: auto, cpu or cuda.")] = "auto",
) -> None:
    """Run database, replay API, trainer and rollouts on this machine, and show how they fare.

    Ctrl-C, a closed terminal or the stop condition ends it cleanly; the same command continues the run.
    """
    options = FleetOptions(
        run, data_dir, port, workers, evaluators, mongodb_uri, checkpoint_store, s3_endpoint_url, device
    )
    console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)
    try:
        check_run(run)
        chosen = None if experiment is None else read_experiment(experiment)
        with only_one(data_dir, "--data-dir"), _stop_signals() as stopping:
            _run_fleet(options, chosen, stop_after_episodes, stopping, console)
    except GaitfleetError as error:
        console.print(f"gaitfleet up: {error}", style="red")
        raise typer.Exit(1) from None


def read_experiment(name: str) -> Experiment:
    """An experiment file, or a shipped one by name, checked against its task.

    Raises
    ------
    ExperimentError
        When there is no such file, or it is wrong.
    """
    shipped = files("gaitfleet") / "experiments" / f"{name}.yaml"
    if shipped.is_file():
        with as_file(shipped) as path:
            experiment = load_experiment(path)
    else:
        experiment = load_experiment(Path(name))
    stage_tasks(experiment)
    return experiment


class Stop:
    """Set by SIGINT, SIGTERM and SIGHUP; after the last nobody reads the terminal any more."""

    requested = False
    hung_up = False


@contextmanager
def _stop_signals() -> Iterator[Stop]:
    stop = Stop()
    terminals = [descriptor for descriptor in (1, 2) if os.isatty(descriptor)]

    def request(number: int, _frame: object) -> None:
        stop.requested = True
        if number == signal.SIGHUP:
            stop.hung_up = True
            _abandon(terminals)

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as `nohup` leaves it
        numbers.append(signal.SIGHUP)
    previous = {number: signal.signal(number, request) for number in numbers}
    try:
        yield stop
    except OSError as error:
        if not (stop.hung_up and error.errno == errno.EIO):  # written between the terminal's end and its signal
            raise
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _abandon(terminals: list[int]) -> None:
    """Let what is written there from now on go nowhere: to write to a terminal that is gone is an error."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in terminals:
        os.dup2(nowhere, descriptor)
    os.close(nowhere)


def _run_fleet(
    options: FleetOptions, experiment: Experiment | None, stop_after: int | None, stopping: Stop, console: Console
) -> None:
    fleet = Fleet(options)
    try:
        console.print(f"starting; data and logs in {options.data_dir.resolve()}")
        fleet.start_storage(lambda: stopping.requested)
        if not stopping.requested:
            with ReplayClient(fleet.api_url, run=options.run, timeout_seconds=ANSWER_SECONDS, attempts=1) as client:
                status = opened_run(fleet, client, options.run, experiment, stopping, console)
                if status is not None:
                    _say_where_it_stands(status, console)
                    configuration = fleet.start_workers()
                    storage = f"--storage.tsdb.path={configuration.with_suffix('')} --web.listen-address=127.0.0.1:9091"
                    console.print(f"metrics: prometheus --config.file={configuration} {storage}")
                    _watch(fleet, client, stop_after, stopping, console)
        console.print("stopping: rollouts, trainer, replay API, database")
    finally:
        fleet.stop()
    console.print("stopped; the same command continues the run")


def opened_run(
    fleet: Fleet, client: ReplayClient, run: str, experiment: Experiment | None, stopping: Stop, console: Console
) -> RunStatus | None:
    """The status of the run, created where it is new; None when a signal asks to stop.

    The API answers as soon as it has read the run's newest transitions: where they are many, a request ends before.

    Raises
    ------
    ProcessFailedError
        When database or API die again and again.
    """
    said = ""
    while not stopping.requested:
        for message in fleet.watch():
            console.print(message)
        try:
            _open_run(client, run, experiment)
            return client.status()
        except ApiUnavailableError as error:
            reason = str(error) if error.status else "opening the run ..."
            if reason != said:
                said = reason
                console.print(reason)
        _sleep(TABLE_SECONDS, stopping)
    return None


def _open_run(client: ReplayClient, run: str, experiment: Experiment | None) -> None:
    """Create the run or find it; without an experiment an existing run keeps its own."""
    if experiment is None:
        try:
            client.run()
            return
        except NotFoundError:
            experiment = read_experiment(DEFAULT_EXPERIMENT)
    try:
        client.create_run(experiment)
    except ConflictError as error:
        raise ExperimentError(
            f"{error}; continue it without --experiment, or choose another --run than {run!r}"
        ) from None


def _say_where_it_stands(status: RunStatus, console: Console) -> None:
    stored = sum(status.episodes.values())
    if not stored and status.checkpoint is None:
        console.print(f"run {status.run}: new")
        return
    step = "no checkpoint yet" if status.checkpoint is None else f"checkpoint at update {status.checkpoint.step:,}"
    steps = f"{status.environment_steps:,} environment steps"
    console.print(f"run {status.run}: continuing from {stored:,} episodes, {steps}, {step}")


def _watch(fleet: Fleet, client: ReplayClient, stop_after: int | None, stopping: Stop, console: Console) -> None:
    """Show the status until the stop condition holds or a signal asks to stop."""
    terminal = Console(markup=False, emoji=False)
    with Live(console=terminal, auto_refresh=False) if terminal.is_terminal else _no_live() as live:
        shown_at = -LINE_SECONDS
        while not stopping.requested:
            for message in fleet.watch():
                console.print(message)
            status = _status(client)
            if status is not None:
                if live is not None:
                    live.update(status_table(status), refresh=True)
                elif time.monotonic() - shown_at >= LINE_SECONDS:
                    shown_at = time.monotonic()
                    print_line(status)
                if stop_after is not None and training_episodes(status) >= stop_after:
                    break
            _sleep(TABLE_SECONDS, stopping)
        if live is None and (status := _status(client)) is not None:
            print_line(status)


def training_episodes(status: RunStatus) -> int:
    """Episodes of the run that can be learned from."""
    return sum(count for role, count in status.episodes.items() if role != "evaluate")


def print_line(status: RunStatus) -> None:
    """The status as one JSON line on standard output."""
    sys.stdout.write(json.dumps(status.model_dump(mode="json")) + "\n")
    sys.stdout.flush()


@contextmanager
def _no_live() -> Iterator[None]:
    yield None


def _status(client: ReplayClient) -> RunStatus | None:
    try:
        return client.status()
    except ApiError:
        return None  # it is being started again; its log says why


def _sleep(seconds: float, stopping: Stop) -> None:
    deadline = time.monotonic() + seconds
    while not stopping.requested and time.monotonic() < deadline:
        time.sleep(0.05)
