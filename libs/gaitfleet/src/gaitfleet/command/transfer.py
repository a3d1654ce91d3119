"""`gaitfleet export` and `gaitfleet import`: episodes out of the replay API and back in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

from gaitfleet.client import ReplayClient
from gaitfleet.command.inspection import DEFAULT_URL, Url, connected
from gaitfleet.command.processes import only_one
from gaitfleet.errors import GaitfleetError, TransferError
from gaitfleet.transfer.bodies import BodyExport, read_manifest
from gaitfleet.transfer.directory import open_export, read_run
from gaitfleet.transfer.exporting import Part, chosen_episodes, export_episode
from gaitfleet.transfer.importing import check_importable, import_episodes
from gaitfleet.wire import RunDescription

if TYPE_CHECKING:
    from gaitfleet.transfer.tables import ParquetExport

MEGABYTE = 1_000_000


def export(
    output: Annotated[Path, typer.Option(help="Directory to write; the same one again adds what is new.")],
    run: Annotated[str | None, typer.Argument(envvar="GAITFLEET_RUN", help="Id of the run; unset: the newest.")] = None,
    parquet: Annotated[
        bool, typer.Option("--parquet", help="Tables of timesteps and episodes, for pandas, polars, DuckDB.")
    ] = False,
    bodies: Annotated[
        bool, typer.Option("--bodies", help="Every episode as it was posted: what `gaitfleet import` takes.")
    ] = False,
    role: Annotated[str | None, typer.Option(help="Only train, random or evaluate.")] = None,
    since: Annotated[datetime | None, typer.Option(help="Only episodes played since then (UTC).")] = None,
    episodes: Annotated[int | None, typer.Option(min=1, help="At most this many, the newest.")] = None,
    columns: Annotated[
        str | None,
        typer.Option(help="Comma-separated columns or patterns of the timesteps; unset: all but the observation."),
    ] = None,
    file_megabytes: Annotated[int, typer.Option(min=1, help="Size of one file of timesteps.")] = 128,
    url: Url = DEFAULT_URL,
) -> None:
    """Write a run's episodes to a directory: tables to analyse (--parquet), bodies to import again (--bodies)."""
    with _errors(), connected(url, run) as client:
        if not (parquet or bodies):
            raise TransferError("say what to write: --parquet, --bodies, or both")
        description = client.run()
        open_export(output, description)
        with only_one(output, "--output"), ExitStack() as stack:
            parts: list[Part] = []
            if bodies:
                parts.append(stack.enter_context(BodyExport(output)))
            if parquet:
                patterns = None if columns is None else [part.strip() for part in columns.split(",") if part.strip()]
                parts.append(stack.enter_context(_tables(output, description, patterns, file_megabytes * MEGABYTE)))
            moment = None if since is None else since.replace(tzinfo=since.tzinfo or UTC)
            counts = _export(client, parts, role, moment, episodes)
    there = f", {counts[False]} were there already" if counts[False] else ""
    gone = f", {counts[None]} were deleted meanwhile" if counts[None] else ""
    typer.echo(f"{output}: {counts[True]} episodes of run {description.run} written{there}{gone}")


def import_(
    directory: Annotated[Path, typer.Argument(help="What `gaitfleet export --bodies` wrote.")],
    run: Annotated[str | None, typer.Option(help="Run to import into; unset: the one they were exported from.")] = None,
    create: Annotated[
        bool, typer.Option("--create", help="Create the run with the exported experiment (needs an admin's token).")
    ] = False,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Go on after an episode that is damaged or refused.")
    ] = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Post exported episodes to a run, of this installation or another one. Importing twice adds nothing.

    Needs a token of role rollout, which may post episodes, or admin. In another run than their own the episodes keep
    id and content, are marked with their origin, and count as played without a policy.
    """
    with _errors():
        source = read_run(directory)
        episodes = read_manifest(directory)
        if not episodes:
            raise TransferError(f"{directory} holds no bodies: export with --bodies")
        with connected(url, run or source.run) as client:
            target = client.create_run(source.experiment) if create else client.run()
            check_importable(source, target, episodes)
            counts = _import(client, target, directory, keep_going)
    typer.echo(
        f"run {target.run}: {counts['stored']} episodes stored, {counts['there']} were there already, "
        f"{counts['refused']} refused"
    )
    if counts["refused"]:
        raise typer.Exit(1)


def _tables(output: Path, description: RunDescription, patterns: list[str] | None, file_bytes: int) -> ParquetExport:
    try:
        from gaitfleet.transfer.tables import ParquetExport
    except ModuleNotFoundError as error:
        raise TransferError(f"tables need {error.name}, of an extra: pip install 'gaitfleet[parquet]'") from None
    return ParquetExport(output, description, patterns, file_bytes)


def _export(
    client: ReplayClient, parts: list[Part], role: str | None, since: datetime | None, newest: int | None
) -> Counter[bool | None]:
    counts: Counter[bool | None] = Counter()
    with _progress("episodes", newest) as advance:
        for summary in chosen_episodes(client, role=role, since=since, newest=newest):
            counts[export_episode(client, summary, parts)] += 1
            advance()
    return counts


def _import(client: ReplayClient, target: RunDescription, directory: Path, keep_going: bool) -> Counter[str]:
    counts: Counter[str] = Counter()
    for imported in import_episodes(client, target, directory):
        if imported.problem is None:
            counts["stored" if imported.stored else "there"] += 1
            continue
        counts["refused"] += 1
        typer.echo(f"gaitfleet import: episode {imported.summary.episode_id}: {imported.problem}", err=True)
        if not keep_going:
            typer.echo("gaitfleet import: stopped; --keep-going imports the others", err=True)
            break
    return counts


@contextmanager
def _progress(what: str, total: int | None) -> Iterator[Callable[[], None]]:
    """A counter on a terminal, nothing elsewhere."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda: progress.advance(task)


@contextmanager
def _errors() -> Iterator[None]:
    """One line and status 1 for what goes wrong with files."""
    try:
        yield
    except (GaitfleetError, OSError) as error:
        typer.echo(f"gaitfleet: {error}", err=True)
        raise typer.Exit(1) from None
