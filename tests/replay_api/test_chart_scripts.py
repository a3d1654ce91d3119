"""The scripts of the chart's Job and of `helm test`, as their pods run them, against a real API that demands tokens."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.conftest import serve, settings_for

REPOSITORY = Path(__file__).parents[2]
EXPERIMENTS = REPOSITORY / "libs" / "gaitfleet" / "src" / "gaitfleet" / "experiments"

Script = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def script(mongodb_uri: str, tmp_path: Path) -> Iterator[Script]:
    """Runs a script of the chart with the variables that the chart gives it."""
    tokens = tmp_path / "tokens"
    tokens.mkdir()
    (tokens / "admin").write_text("an-admin-token-of-this-test\n")
    settings = settings_for(mongodb_uri, tmp_path, authentication="token", token_directory=tokens)
    with serve(settings) as url:

        def run(name: str, experiment: Path = EXPERIMENTS / "prosthetics.yaml") -> subprocess.CompletedProcess[str]:
            return run_script(name, url, tokens / "admin", experiment)

        yield run


def run_script(
    name: str, url: str, token: Path, experiment: Path, wait_seconds: int = 10
) -> subprocess.CompletedProcess[str]:
    environment = {
        "API_URL": url,
        "RUN": "walker",
        "TOKEN_FILE": str(token),
        "EXPERIMENT_FILE": str(experiment),
        "WAIT_SECONDS": str(wait_seconds),
        "PYTHONPATH": str(REPOSITORY / "libs" / "gaitfleet" / "src"),
    }
    command = [sys.executable, str(REPOSITORY / "deploy" / "helm" / "gaitfleet" / "files" / name)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


@contextmanager
def answering(*codes: int) -> Iterator[str]:
    """The URL of an API that answers with one code after the other, then with the last one."""
    left = list(codes)

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(left.pop(0) if len(left) > 1 else left[0])
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_the_run_is_created_once_and_never_changed(script: Script) -> None:
    created, again = script("create_run.py"), script("create_run.py")
    assert (created.returncode, created.stdout) == (0, "run walker: created\n"), created.stderr
    assert (again.returncode, again.stdout) == (0, "run walker: there already, as described\n")
    changed = script("create_run.py", EXPERIMENTS / "prosthetics-2d.yaml")
    assert changed.returncode == 2
    assert "run.name" in changed.stdout


def test_a_wrong_experiment_is_refused_with_its_key(script: Script, tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text("replay: {min_sise: 1}\n")
    done = script("create_run.py", tmp_path / "wrong.yaml")
    assert done.returncode == 2
    assert "min_sise" in done.stdout


@pytest.mark.parametrize("first", [401, 422])
def test_a_replica_that_is_being_replaced_refuses_nothing_for_good(tmp_path: Path, first: int) -> None:
    """During an upgrade: it does not know the new token, or a key of the experiment that came with the new version."""
    (tmp_path / "token").write_text("a-token")
    with answering(first, 201) as url:
        done = run_script("create_run.py", url, tmp_path / "token", EXPERIMENTS / "prosthetics.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("last", "code"), [(422, 2), (503, 1)])
def test_the_job_ends_for_good_when_it_is_still_refused_in_the_end(tmp_path: Path, last: int, code: int) -> None:
    (tmp_path / "token").write_text("a-token")
    with answering(last) as url:
        done = run_script("create_run.py", url, tmp_path / "token", EXPERIMENTS / "prosthetics.yaml", wait_seconds=0)
    assert done.returncode == code
    assert f"{last}: " in done.stdout


def test_the_smoke_test_passes_and_can_be_repeated(script: Script) -> None:
    assert script("create_run.py").returncode == 0
    for _ in range(2):
        done = script("smoke_test.py")
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_smoke_test_fails_without_the_release_s_run(script: Script) -> None:
    done = script("smoke_test.py")
    assert done.returncode != 0
    assert "/v1/runs/walker: 404" in done.stderr
