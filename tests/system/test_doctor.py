"""`gaitfleet doctor` on this machine, and on what is wrong with it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gaitfleet.command import app
from gaitfleet.command.doctor import ask
from gaitfleet.command.machine import data_directory
from gaitfleet.command.processes import free_port
from replay_api.settings import Settings
from tests.conftest import serve

TOKEN = "a-token-of-a-reader"

NOBODY = 65534


def doctor(*options: object) -> tuple[int, dict[str, dict[str, Any]]]:
    """Exit status, and the findings by name."""
    answer = CliRunner().invoke(app, ["doctor", "--json", *map(str, options)])
    found = json.loads(answer.stdout)
    assert found["healthy"] is (answer.exit_code == 0)
    return answer.exit_code, {finding["name"]: finding for finding in found["findings"]}


def test_everything_that_the_system_needs_is_on_this_machine(api: str, tmp_path: Path) -> None:
    status, found = doctor("--data-dir", tmp_path / "data", "--port", free_port(), "--url", api)
    assert status == 0, found
    passing = {name for name, finding in found.items() if finding["outcome"] == "pass"}
    assert passing >= {"Python", "gaitfleet", "gaitfleet-replay-api", "gaitfleet-trainer", "gaitfleet-rollout"}
    assert passing >= {"cores", "memory", "data directory", "checkpoint directory", "checkpoint space"}
    assert passing >= {"MongoDB", "MongoDB write", "MongoDB transaction", "replay API", "token"}
    assert passing >= {
        f"simulator, {settings}"
        for settings in ("RungeKuttaMerson 5e-05", "SemiExplicitEuler2 0.001", "SemiExplicitEuler2 0.005")
    }
    assert "a second" in found["simulator, SemiExplicitEuler2 0.001"]["detail"]
    assert any(name.startswith("GPU") for name in found)
    assert list(tmp_path.iterdir()) == [], "it left something behind"


def test_a_data_directory_where_this_user_may_not_look_is_a_finding(tmp_path: Path) -> None:
    closed, user = tmp_path / "closed", os.geteuid()
    closed.mkdir(mode=0)
    if user == 0:
        os.seteuid(NOBODY)  # root may look everywhere
    try:
        finding = data_directory(closed / "data")
    finally:
        os.seteuid(user)
    assert (finding.outcome, finding.detail) == ("fail", f"{closed / 'data'}: Permission denied")


def test_what_does_not_work_is_named_with_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, found = doctor(
            *("--only", "machine", "--only", "storage", "--only", "api", "--port", port, "--data-dir", file / "data"),
            *("--mongodb-uri", f"mongodb://user:secret-word@127.0.0.1:{free_port()}/?serverSelectionTimeoutMS=300"),
            *("--checkpoint-store", f"directory:{file / 'checkpoints'}", "--url", f"http://127.0.0.1:{free_port()}"),
        )
    assert status == 1
    wrong = {name: finding for name, finding in found.items() if finding["outcome"] == "fail"}
    assert set(wrong) == {f"port {port}", "data directory", "MongoDB", "checkpoint directory", "replay API"}
    assert "Connection refused" in wrong["MongoDB"]["detail"]
    assert "Not a directory" in wrong["checkpoint directory"]["detail"]
    assert all(finding["advice"] for finding in wrong.values())
    assert "secret-word" not in json.dumps(found)


def test_a_bucket_must_refuse_a_second_write_under_the_same_name(
    moto: dict[str, Any], monkeypatch: pytest.MonkeyPatch, mongodb_uri: str
) -> None:
    monkeypatch.setenv("GAITFLEET_REPLAY_API_S3_PATH_STYLE", "true")
    given = ("--only", "storage", "--mongodb-uri", mongodb_uri, "--s3-endpoint-url", moto["s3_endpoint_url"])
    status, found = doctor(*given, "--checkpoint-store", moto["checkpoint_store"])
    assert status == 0, found
    assert "a second write under the same name is refused" in found["checkpoint bucket"]["detail"]
    status, found = doctor(*given, "--checkpoint-store", "s3://no-such-bucket/fleet")
    assert status == 1
    assert "NoSuchBucket" in found["checkpoint bucket"]["detail"]


def test_a_token_that_the_api_does_not_know_is_told(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = Settings.model_validate(settings.model_dump() | {"authentication": "token", "reader_tokens": TOKEN})
    with serve(closed) as url:
        monkeypatch.setenv("GAITFLEET_TOKEN", "another-token-of-nobody")
        assert doctor("--only", "api", "--url", url)[0] == 1
        monkeypatch.setenv("GAITFLEET_TOKEN", TOKEN)
        status, found = doctor("--only", "api", "--url", f"{url}/")  # the slash does no harm in any command
    assert status == 0
    assert "accepted" in found["token"]["detail"]


def test_a_part_that_crashes_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "crashing"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "check.py").write_text("print('{not json'); raise SystemExit('no such library')")
    monkeypatch.syspath_prepend(tmp_path)
    path = os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", "")))
    (finding,) = ask("crashing", "simulator", environment={"PYTHONPATH": path})
    assert (finding.name, finding.outcome) == ("simulator", "fail")
    assert "ended with status 1: no such library" in finding.detail
    (finding,) = ask("nowhere_at_all", "simulator")
    assert finding.outcome == "not here"


def test_the_doctor_itself_loads_no_library_that_it_looks_at() -> None:
    libraries = {"torch", "opensim", "osim", "motor", "pymongo", "aioboto3"}
    code = f"import gaitfleet.command, sys; print(*sorted({libraries} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == []
