"""Commands that cannot do their work say why on one line, and what to change."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.scripted_server import Server
from typer.testing import CliRunner

from gaitfleet.command import app
from gaitfleet.command.processes import free_port

EPISODE = "01900000-0000-7000-8000-000000000001"


def said(*arguments: object) -> str:
    """What a command that fails says, on one line."""
    result = CliRunner().invoke(app, [*map(str, arguments)])
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit), result.exception
    return " ".join(result.output.split())


@pytest.mark.parametrize("in_the_way", [".", "logs", "lock/"])
def test_a_data_directory_that_cannot_be_used_is_named_with_the_option(tmp_path: Path, in_the_way: str) -> None:
    """A file where the directory or its logs should be; a directory where the lock should be."""
    directory = tmp_path / "data"
    blocked = directory / in_the_way
    blocked.parent.mkdir(exist_ok=True)
    if in_the_way.endswith("/"):
        blocked.mkdir(parents=True)
    else:
        blocked.write_text("")
    line = said("up", "--data-dir", directory)
    assert line.startswith(f"gaitfleet up: cannot {'write' if in_the_way == 'lock/' else 'make'} {blocked}: ")
    assert line.endswith("; choose another with --data-dir")


@pytest.mark.parametrize("name", ["exp[v2].yaml", "exp[/v2].yaml", "exp:x:.yaml"])
def test_a_file_is_named_as_it_was_given(name: str) -> None:
    """Not as markup of the terminal."""
    assert said("up", "--experiment", name).startswith(f"gaitfleet up: {name}: ")


@pytest.mark.parametrize(
    "arguments", [["status"], ["episodes", "--run", "walker"], ["play", EPISODE, "--run", "walker"]]
)
def test_where_no_api_is_its_url_is_named_and_what_to_do(arguments: list[str], tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    line = said(*arguments, "--url", url, *(["--png", tmp_path / "a.png"] if EPISODE in arguments else []))
    assert line == (
        f"gaitfleet: no replay API at {url} ([Errno 111] Connection refused): is `gaitfleet up` running? "
        "or set --url or GAITFLEET_URL"
    )


HTML = b"<html><body>\nsign in\n</body></html>"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            (302, {"Location": "https://login.example/start"}, b""),
            "302: .* it redirects to https://login.example/start",
        ),
        ((200, {"Content-Type": "text/html"}, HTML), "200: no answer of a replay API of this version: Invalid JSON"),
        ((200, {}, b'{"maintenance": true}'), "200: no answer of a replay API of this version: "),
    ],
)
@pytest.mark.parametrize(
    "arguments",
    [["status"], ["status", "--run", "walker"], ["events", "--run", "walker"], ["play", EPISODE, "--run", "walker"]],
)
def test_what_is_no_replay_api_is_told_on_one_line(
    answer: tuple[int, dict[str, str], bytes], words: str, arguments: list[str], tmp_path: Path
) -> None:
    server = Server()
    server.script = [answer]
    options = ["--png", tmp_path / "a.png"] if arguments[0] == "play" else []
    try:
        line = said(*arguments, *options, "--url", server.url)
    finally:
        server.close()
    if answer[0] == 200 and arguments[0] == "play":
        words = "header"  # of an episode's body
    assert re.match(f"gaitfleet: {words}", line)


def test_a_token_that_cannot_be_sent_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAITFLEET_TOKEN", "secret another-one")
    line = said("status", "--url", f"http://127.0.0.1:{free_port()}")
    assert line == "gaitfleet: GAITFLEET_TOKEN: the token is not one line of printable ASCII without white space within"


@pytest.mark.parametrize(("written", "words"), [(None, "No such file or directory"), ("no certificate", "")])
def test_authorities_that_cannot_be_read_are_named_with_their_variable(
    written: str | None, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "authorities.pem"
    if written is not None:
        path.write_text(written)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    expected = f"SSL_CERT_FILE is {str(path)!r}, which cannot be read as certificates: {words}"
    url = f"http://127.0.0.1:{free_port()}"
    assert said("status", "--url", url).startswith(f"gaitfleet: {expected}")
    assert expected in said("doctor", "--only", "api", "--url", url)


@pytest.mark.parametrize(
    "url",
    [
        "foo",
        "127.0.0.1:8080",
        "ftp://here",
        "http://",
        "http://here:port",
        "http://here:99999",
        "http://[::1",
        "http://a..b",
    ],
)
def test_what_is_not_a_url_is_named_with_what_one_is_like(url: str) -> None:
    assert said("status", "--url", url).startswith(f"gaitfleet: no replay API at {url} (it must be like http://HOST")


@pytest.mark.parametrize(
    "url", [" http://here", "http://here\n", "http://here :80", "http://h\x1b[1mere", "http://h\xa0re"]
)
def test_a_url_with_what_cannot_be_seen_is_shown_with_it(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAITFLEET_URL", url)
    assert said("status").startswith(f"gaitfleet: no replay API at {url!r} (it must be like http://HOST")


def test_nothing_is_started_for_what_cannot_be_the_id_of_a_run(tmp_path: Path) -> None:
    line = said("up", "--run", "Bad Name", "--data-dir", tmp_path / "data", "--port", free_port())
    assert line.startswith("gaitfleet up: 'Bad Name' cannot be the id of a run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["status", "--run", "Bad Name"],
        ["run", "show", "Bad Name"],
        ["run", "fork", "walker", "Bad Name", "--experiment", "prosthetics"],
        ["compare", "walker", "Bad Name"],
    ],
)
def test_what_cannot_be_the_id_of_a_run_is_never_sent(arguments: list[str]) -> None:
    """Nothing listens there: asking would end with another error."""
    line = said(*arguments, "--url", f"http://127.0.0.1:{free_port()}")
    assert line.startswith("gaitfleet: 'Bad Name' cannot be the id of a run: lower-case letters, digits, hyphens")
