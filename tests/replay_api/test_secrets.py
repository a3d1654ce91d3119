"""No secret leaves a real server process: not in a log line at any level, not in an answer."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr, ValidationError

from gaitfleet.command.processes import free_port
from replay_api.authentication import TokenBook
from replay_api.errors import UnauthorizedError
from replay_api.settings import Settings
from tests.replay_api.fleet import Fleet

TOKENS = {role: f"{role}-token-0123456789" for role in ("rollout", "trainer", "reader", "admin")}
PASSWORD = "password-of-the-database"
SECRET_KEY = "test-secret-key"
WRONG = "guessed-token-0123456789"
PREFIX = "GAITFLEET_REPLAY_API_"


def environment(secrets: Path, bucket: dict[str, Any], port: int) -> dict[str, str]:
    """Of a server that logs everything it can, and finds secrets in files alone."""
    given = {"LOG_LEVEL": "DEBUG", "PORT": port, "MONGODB_DATABASE": "test-secrets", "SECRETS_DIRECTORY": secrets}
    given |= {name.upper(): value for name, value in bucket.items()}
    given |= {f"{role.upper()}_TOKENS": token for role, token in TOKENS.items()}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return inherited | {PREFIX + name: str(value) for name, value in given.items()}


def mounted(directory: Path, secrets: dict[str, str]) -> Path:
    """A directory as kubelet mounts secrets: links to links to files."""
    (directory / "..2026").mkdir(parents=True)
    (directory / "..data").symlink_to("..2026")
    for name, value in secrets.items():
        (directory / "..2026" / (PREFIX + name)).write_text(value)
        (directory / (PREFIX + name)).symlink_to(f"..data/{PREFIX}{name}")
    return directory


def await_answer(url: str, path: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until the server answers with success."""
    deadline = time.monotonic() + 60
    while True:
        with suppress(httpx.TransportError):
            if httpx.get(f"{url}{path}", timeout=30).is_success:
                return
        assert process.poll() is None, "the server has ended"
        assert time.monotonic() < deadline, "the server did not start"
        time.sleep(0.1)


def ask(url: str, *tokens: str) -> list[httpx.Response]:
    """Tokens in the header and where they do not belong, broken bodies."""
    with httpx.Client(base_url=url, timeout=60) as client:
        answers = [client.get("/health/ready"), client.get("/metrics"), client.get("/v1/runs", params={"token": WRONG})]
        for token in tokens:
            headers = {"Authorization": f"Bearer {token}"}
            answers += [
                client.get("/v1/runs", headers=headers),
                client.post("/v1/runs/secrets/lease", headers=headers, content=b"{"),
                client.put("/v1/runs/secrets/checkpoints/1?epoch=1", headers=headers, content=b"no checkpoint"),
                client.get("/v1/runs", headers={"Authorization": token}),
            ]
    return answers


@pytest.mark.parametrize("refuses", [False, True], ids=["database-open", "database-refuses"])
def test_no_secret_is_in_the_log_at_debug_level_nor_in_an_answer(
    mongodb_uri: str, moto: dict[str, Any], tmp_path: Path, refuses: bool
) -> None:
    """The test database knows no users, so that with a password it refuses, and its errors are told and logged."""
    uri = mongodb_uri.replace("mongodb://", f"mongodb://user:{PASSWORD}@") if refuses else mongodb_uri
    keys = {"S3_ACCESS_KEY_ID": "test-access", "S3_SECRET_ACCESS_KEY": SECRET_KEY}
    secrets = mounted(tmp_path / "secrets", keys | {"MONGODB_URI": f"{uri}\n"})
    port = free_port()
    log = tmp_path / "log"
    with log.open("wb") as output:
        command = [sys.executable, "-m", "replay_api"]
        process = subprocess.Popen(command, env=environment(secrets, moto, port), stdout=output, stderr=output)
    try:
        url = f"http://127.0.0.1:{port}"
        await_answer(url, "/health/live" if refuses else "/health/ready", process)
        if refuses:
            answers = ask(url, WRONG, TOKENS["admin"])
            assert 503 in {answer.status_code for answer in answers}
        else:
            answers = ask(url, WRONG, *TOKENS.values())
            with Fleet(url, Authorization=f"Bearer {TOKENS['admin']}") as fleet:
                assert fleet.post(fleet.play()).status_code == 201
                assert fleet.publish(1, fleet.lease().json()["epoch"]).status_code == 201
    finally:
        process.terminate()
        process.wait(30)
    text = log.read_text()
    assert '"level": "debug"' in text
    told = text + "".join(f"{answer.headers}{answer.text}" for answer in answers)
    for secret in (*TOKENS.values(), WRONG, PASSWORD, SECRET_KEY):
        assert secret not in told, secret


@pytest.mark.parametrize("library", ["botocore.auth", "aiobotocore.httpsession", "pymongo.command"])
def test_libraries_that_log_headers_and_commands_do_not_even_at_debug_level(library: str) -> None:
    lines = (
        "import logging",
        "from gaitfleet.logs import configure_logging",
        "configure_logging('test', 'DEBUG')",
        f"logging.getLogger({library!r}).debug('x-amz-security-token')",
        "logging.getLogger('replay_api').debug('our own')",
    )
    told = subprocess.run([sys.executable, "-c", "; ".join(lines)], capture_output=True, text=True, check=True).stderr
    assert "our own" in told
    assert "x-amz-security-token" not in told


def test_a_token_in_a_file_that_could_be_guessed_is_not_taken_and_not_repeated(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "admin").write_text("guessable\nlong-enough-not-to-be-guessed\n")
    book = TokenBook(Settings(authentication="token", token_directory=tmp_path))
    book.check("Bearer long-enough-not-to-be-guessed", frozenset())
    with pytest.raises(UnauthorizedError):
        book.check("Bearer guessable", frozenset())
    assert "too short" in caplog.text
    assert "guessable" not in caplog.text


def test_half_a_key_of_the_bucket_is_refused() -> None:
    with pytest.raises(ValidationError, match="s3_secret_access_key"):
        Settings(authentication="none", s3_access_key_id=SecretStr("test-access"))
