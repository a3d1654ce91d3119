"""`gaitfleet status`, `episodes`, `events`: look at a running API."""

from __future__ import annotations

import json
import os
import re
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated
from urllib.parse import urlsplit

import typer
from rich.console import Console
from rich.table import Table

from gaitfleet.client import ReplayClient, usable_url
from gaitfleet.command.display import status_table
from gaitfleet.errors import ApiUnavailableError, GaitfleetError, TokenError
from gaitfleet.identity import RUN_PATTERN
from gaitfleet.wire import EpisodeSummary, EventPage

Url = Annotated[str, typer.Option(envvar="GAITFLEET_URL", help="Where the replay API is; asked directly, by no proxy.")]
Run = Annotated[str | None, typer.Option(envvar="GAITFLEET_RUN", help="Id of the run; unset: the newest.")]
Json = Annotated[bool, typer.Option("--json", help="JSON instead of a table.")]

DEFAULT_URL = "http://127.0.0.1:8080"

WIDE_COLUMNS = 140
"""Columns of a terminal that shows everything of an episode on one line; an id alone has 36."""


def status(url: Url = DEFAULT_URL, run: Run = None, as_json: Json = False) -> None:
    """How a run stands: episodes, returns, updates, samples per insert, checkpoint, workers, failures."""
    with connected(url, run) as client:
        answer = client.status()
        if as_json:
            typer.echo(json.dumps(answer.model_dump(mode="json"), indent=2))
        else:
            print_table(status_table(answer))


def episodes(
    url: Url = DEFAULT_URL,
    run: Run = None,
    role: Annotated[str | None, typer.Option(help="Only train, random or evaluate.")] = None,
    finding: Annotated[str | None, typer.Option(help="Only those with this finding, as statue or dive.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 20,
    as_json: Json = False,
) -> None:
    """The newest episodes, one line each; a terminal narrower than 140 columns shows the most important ones."""
    with connected(url, run) as client:
        page = client.episodes(limit=limit, role=role, finding=finding)
        if as_json:
            typer.echo(json.dumps(page.model_dump(mode="json"), indent=2))
        else:
            print_table(_episode_table(page.episodes, _console().width))


def events(
    url: Url = DEFAULT_URL,
    run: Run = None,
    kind: Annotated[str | None, typer.Option(help="Only events of this kind.")] = None,
    after: Annotated[str | None, typer.Option(help="The next ones after this sequence; unset: the newest.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 50,
    as_json: Json = False,
) -> None:
    """The newest events of a run, oldest of them first, each with its sequence: --after goes on from there."""
    with connected(url, run) as client:
        if after is None:
            page = EventPage(events=list(deque(client.every_event(kind=kind), maxlen=limit)))
        else:
            page = client.events(after=after, kind=kind, limit=limit)
        if as_json:
            typer.echo(json.dumps(page.model_dump(mode="json"), indent=2))
            return
        for event in page.events:
            typer.echo(f"{event.sequence}  {event.at:%Y-%m-%d %H:%M:%S}  {event.kind:<24} {json.dumps(event.data)}")


def print_table(table: Table) -> None:
    """A table on standard output; never cut where that is a file or a pipe."""
    _console().print(table)


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else 200, markup=False, emoji=False)


@contextmanager
def connected(url: str, run: str | None) -> Iterator[ReplayClient]:
    """A client of the run; what goes wrong with it ends the command with one line and status 1."""
    token = os.environ.get("GAITFLEET_TOKEN")  # not an option: options can be read in the list of processes
    try:
        _check_url(url)
        if run is not None:
            check_run(run)
        with ReplayClient(url, run=run or _newest_run(url, token), token=token, attempts=1) as client:
            yield client
    except GaitfleetError as error:
        absent = isinstance(error, ApiUnavailableError) and not error.status
        said = _absent(url, error.__cause__ or error) if absent else error
        typer.echo(f"gaitfleet: {'GAITFLEET_TOKEN: ' * isinstance(error, TokenError)}{said}", err=True)
        raise typer.Exit(1) from None


def check_run(run: str) -> None:
    """Refuse what cannot be the id of a run.

    Raises
    ------
    GaitfleetError
        Names the id.
    """
    if not re.fullmatch(RUN_PATTERN, run):
        raise GaitfleetError(
            f"{run!r} cannot be the id of a run: lower-case letters, digits, hyphens within, at most 63"
        )


def _check_url(url: str) -> None:
    seen = url.isprintable() and " " not in url
    try:
        parts = urlsplit(usable_url(url))
        usable = seen and parts.scheme in ("http", "https") and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise GaitfleetError(_absent(url if seen else repr(url), "it must be like http://HOST:PORT"))


def _absent(url: str, reason: object) -> str:
    return f"no replay API at {url} ({reason}): is `gaitfleet up` running? or set --url or GAITFLEET_URL"


def _newest_run(url: str, token: str | None) -> str:
    with ReplayClient(url, run="any", token=token, attempts=1) as client:
        runs = client.runs()
    if not runs:
        typer.echo(f"gaitfleet: the replay API at {url} has no run yet", err=True)
        raise typer.Exit(1)
    return runs[0].run


_COLUMNS: dict[str, Callable[[EpisodeSummary], str]] = {
    "id": lambda row: str(row.episode_id),
    "stored": lambda row: f"{row.stored_at:%m-%d %H:%M:%S}",
    "role": lambda row: row.role,
    "worker": lambda row: row.worker,
    "policy": lambda row: str(row.policy_version),
    "ending": lambda row: row.ending_reason,
    "steps": lambda row: str(row.steps),
    "score": lambda row: f"{row.simulator_return:.1f}",
    "distance": lambda row: "" if row.distance_m is None else f"{row.distance_m:.2f} m",
    "contacts": lambda row: "" if row.foot_contacts is None else str(row.foot_contacts),
    "findings": lambda row: ", ".join(finding.name for finding in row.findings),
}
_NUMBERS = ("policy", "steps", "score", "distance", "contacts")
_NARROW = ("id", "ending", "steps", "score", "findings")


def _episode_table(rows: list[EpisodeSummary], width: int) -> Table:
    """One line an episode, with what fits; findings alone may take more lines."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    names = tuple(_COLUMNS) if width >= WIDE_COLUMNS else _NARROW
    for name in names:
        table.add_column(name, justify="right" if name in _NUMBERS else "left", no_wrap=name != "findings")
    for row in rows:
        table.add_row(*(_COLUMNS[name](row) for name in names))
    return table
