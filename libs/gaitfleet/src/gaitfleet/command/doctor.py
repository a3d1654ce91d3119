"""`gaitfleet doctor`: what of gaitfleet works on this machine, and what to do about the rest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Annotated

import httpx
import typer
from pydantic import ValidationError

from gaitfleet.checkup import Finding, absent, failed, first_line, passed
from gaitfleet.client import ReplayClient, trusted_authorities
from gaitfleet.command import machine
from gaitfleet.command.fleet import start_database
from gaitfleet.command.processes import ProcessFailedError
from gaitfleet.errors import ApiError, CertificateError, ForbiddenError, TokenError
from gaitfleet.wire import ReadinessReport

CHECK_SECONDS = 90.0
"""Time for one part; loading torch or OpenSim on a busy machine takes the better half of it."""

COLOURS = {"pass": typer.colors.GREEN, "fail": typer.colors.RED, "not here": typer.colors.YELLOW}


@dataclass(frozen=True)
class Options:
    """What is to be looked at."""

    mongodb_uri: str | None
    checkpoint_store: str | None
    s3_endpoint_url: str | None
    data_dir: Path
    port: int
    url: str | None


def doctor(
    mongodb_uri: Annotated[
        str | None,
        typer.Option(envvar="MONGODB_URI", help="MongoDB to look at; unset: start the embedded server for a moment."),
    ] = None,
    checkpoint_store: Annotated[
        str | None, typer.Option(help="`s3://bucket/prefix` or `directory:PATH` to look at; unset: below --data-dir.")
    ] = None,
    s3_endpoint_url: Annotated[str | None, typer.Option(help="Endpoint of an S3 that is not Amazon's.")] = None,
    data_dir: Annotated[Path, typer.Option(help="Where `gaitfleet up` would keep its data.")] = Path("data"),
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port that `gaitfleet up` would take.")] = 8080,
    url: Annotated[
        str | None, typer.Option(envvar="GAITFLEET_URL", help="A replay API to ask; its token in GAITFLEET_TOKEN.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Only this part, may be repeated: machine, storage, gpu, simulator, api.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of lines.")] = False,
) -> None:
    """Check this machine: versions, memory, disk, port, database, checkpoint store, GPU, simulator, replay API.

    Exit status 1 when a line says fail. What is not here fails nothing: no machine needs all parts.
    """
    unknown = set(only or ()) - PARTS.keys()
    if unknown:
        raise typer.BadParameter(f"{min(unknown)!r} is not one of {', '.join(PARTS)}", param_hint="--only")
    options = Options(mongodb_uri, checkpoint_store, s3_endpoint_url, data_dir, port, url)
    found = []
    for finding in chain.from_iterable(look(options) for part, look in PARTS.items() if not only or part in only):
        found.append(finding)
        if not as_json:
            _print(finding)
    healthy = all(finding.outcome != "fail" for finding in found)
    if as_json:
        answer = {"healthy": healthy, "findings": [finding.model_dump() for finding in found]}
        typer.echo(json.dumps(answer, indent=2))
    if not healthy:
        raise typer.Exit(1)


def _machine(options: Options) -> Iterator[Finding]:
    yield machine.python()
    yield from machine.packages()
    yield from machine.cores_and_memory()
    yield machine.data_directory(options.data_dir)
    yield machine.port(options.port)


def _storage(options: Options) -> Iterator[Finding]:
    """The stores that were named; for those that were not, what `gaitfleet up` would use, in a place of its own."""
    endpoint = {} if options.s3_endpoint_url is None else {"S3_ENDPOINT_URL": options.s3_endpoint_url}
    if options.checkpoint_store is not None:
        yield from _ask_replay_api("store", {"CHECKPOINT_STORE": options.checkpoint_store, **endpoint})
    if options.mongodb_uri is not None:
        yield from _ask_replay_api("database", {"MONGODB_URI": options.mongodb_uri})
    if options.checkpoint_store is not None and options.mongodb_uri is not None:
        return
    place = machine.nearest_directory(options.data_dir)
    try:
        with tempfile.TemporaryDirectory(dir=place, prefix=".gaitfleet-doctor-") as temporary:
            if options.checkpoint_store is None:
                yield from _ask_replay_api("store", {"CHECKPOINT_STORE": f"directory:{temporary}"})
            if options.mongodb_uri is None:
                yield from _embedded_database(Path(temporary))
    except OSError as error:
        yield failed("storage", f"{place}: {error.strerror}", "name a directory to write to, with --data-dir")


def _embedded_database(directory: Path) -> Iterator[Finding]:
    log = directory / "database.log"
    try:
        database, uri = start_database(directory / "mongodb", log)
    except ProcessFailedError as error:
        said = log.read_text(errors="replace").strip().splitlines()[-1:] if log.exists() else []
        advice = "install the extra gaitfleet[database], or name a MongoDB with --mongodb-uri"
        yield failed("embedded database", "; ".join([str(error), *said]), advice)
        return
    try:
        yield from _ask_replay_api("database", {"MONGODB_URI": uri})
    finally:
        database.stop()


def _ask_replay_api(part: str, environment: Mapping[str, str]) -> Iterator[Finding]:
    # authentication off on loopback: settings that every machine has
    known = {"AUTHENTICATION": "none", "HOST": "127.0.0.1", **environment}
    variables = {f"GAITFLEET_REPLAY_API_{name}": value for name, value in known.items()}
    yield from ask("replay_api", part, [part], variables)


def ask(
    package: str, name: str, arguments: list[str] | None = None, environment: Mapping[str, str] | None = None
) -> list[Finding]:
    """What ``python -m PACKAGE.check`` finds; its crash, or its silence, is a finding too."""
    if find_spec(package) is None:
        return [absent(name, f"{package} is not installed, so this was not looked at")]
    command = [sys.executable, "-m", f"{package}.check", *(arguments or [])]
    with subprocess.Popen(
        command,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            told, complaint = process.communicate(timeout=CHECK_SECONDS)
            ended = f"ended with status {process.returncode}"
        except subprocess.TimeoutExpired:
            process.kill()
            told, complaint = process.communicate()
            ended = f"did not end within {CHECK_SECONDS:.0f} s"
    found = list(_read(told))
    if process.returncode or not found:
        said = complaint.strip().splitlines()[-1:] or ["it said nothing"]
        found.append(failed(name, f"{package}.check {ended}: {said[0][:200]}", f"look at `{' '.join(command)}`"))
    return found


def _read(told: str) -> Iterator[Finding]:
    for line in told.splitlines():
        with suppress(ValidationError):  # something else that a library printed
            yield Finding.model_validate_json(line)


def _replay_api(options: Options) -> Iterator[Finding]:
    url = options.url
    if url is None:
        yield absent("replay API", "not asked for", "to look at one: --url, and its token in GAITFLEET_TOKEN")
        return
    try:
        answer = httpx.get(  # as `ReplayClient` asks: by no proxy
            f"{url.rstrip('/')}/health/ready", timeout=10.0, trust_env=False, verify=trusted_authorities()
        )
        report = ReadinessReport.model_validate_json(answer.content)
    except CertificateError as error:
        yield failed("replay API", str(error), "set the variable right, or to nothing")
        return
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        yield failed("replay API", f"{url}: {first_line(error)}", "is it running, and is --url right?")
        return
    except ValidationError:
        yield failed("replay API", f"{url} answers, but not as a replay API", "is --url right?")
        return
    parts = ", ".join(f"{part}: {state}" for part, state in report.parts.items())
    if report.ready:
        yield passed("replay API", f"{url} is ready ({parts})")
    else:
        yield failed("replay API", f"{url} is not ready ({parts})", "look at its log, and at the part that is not ok")
    token = os.environ.get("GAITFLEET_TOKEN")
    given = "the token of GAITFLEET_TOKEN" if token else "a request without a token"
    try:
        with ReplayClient(url, run="any", token=token, timeout_seconds=10.0, attempts=1) as client:
            runs = len(client.runs())
    except ForbiddenError as error:
        yield failed("token", f"{given}: {error}", "set GAITFLEET_TOKEN to a token that this API knows")
    except TokenError as error:
        yield failed("token", str(error), "set GAITFLEET_TOKEN to the token alone")
    except ApiError as error:
        yield failed("token", f"{given}: {error}", "look at the log of the replay API")
    else:
        yield passed("token", f"{given} is accepted; the API holds {runs} runs")


PARTS: dict[str, Callable[[Options], Iterable[Finding]]] = {
    "machine": _machine,
    "storage": _storage,
    "gpu": lambda _: ask("trainer", "GPU"),
    "simulator": lambda _: ask("rollout", "simulator"),
    "api": _replay_api,
}
"""Parts of the examination, in order."""


def _print(finding: Finding) -> None:
    typer.echo(f"{typer.style(f'{finding.outcome:8}', fg=COLOURS[finding.outcome])}  {finding.name}: {finding.detail}")
    if finding.advice:
        typer.echo(f"          → {finding.advice}")
