"""A real database process, real applications, and episodes to post.

The database is SecantusDB, which speaks MongoDB's wire protocol; with `GAITFLEET_TEST_MONGODB_URI` the same tests run
against any other server.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
import uvicorn
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from gaitfleet.command.processes import free_port
from replay_api.main import create_app
from replay_api.settings import Settings
from tests.replay_api.fleet import Fleet


class Database:
    """A database server as a process of its own, which can be killed."""

    def __init__(self, directory: Path, port: int | None = None) -> None:
        self.port = port or free_port()
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def uri(self) -> str:
        return f"mongodb://127.0.0.1:{self.port}"

    def start(self) -> None:
        program = Path(sys.executable).with_name("secantusd-py")
        command = [
            str(program),
            "--host",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--storage-path",
            str(self._directory / "db"),
        ]
        command += ["--cache-size", "256M", "--oplog-max-entries", "1000", "--log-level", "ERROR"]
        with (self._directory / "database.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()


@pytest.fixture(scope="session")
def mongodb_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the shared database is."""
    given = os.environ.get("GAITFLEET_TEST_MONGODB_URI")
    if given:
        yield given
        return
    database = Database(tmp_path_factory.mktemp("database"))
    yield database.uri
    database.kill()


def settings_for(mongodb_uri: str, directory: Path, **changes: Any) -> Settings:
    """Settings with a database name and a checkpoint directory of their own, and no authentication."""
    known: dict[str, Any] = {
        "authentication": "none",
        "mongodb_uri": mongodb_uri,
        "mongodb_database": f"test-{uuid.uuid4().hex[:12]}",
        "checkpoint_store": f"directory:{directory / 'checkpoints'}",
    }
    return Settings(**known | changes)


@pytest.fixture
def settings(mongodb_uri: str, tmp_path: Path) -> Settings:
    """Settings for a test that serves its own application."""
    return settings_for(mongodb_uri, tmp_path)


@contextmanager
def serve(settings: Settings) -> Iterator[str]:
    """The application on a loopback port, in a thread of this process; gives its base URL."""
    app = create_app(settings)
    config = uvicorn.Config(
        app, port=0, http="httptools", loop="uvloop", log_level="warning", timeout_graceful_shutdown=3
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        deadline = time.monotonic() + 15
        while not server.started:
            assert thread.is_alive()
            assert time.monotonic() < deadline, "the application did not start"
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        while not httpx.get(f"{url}/health/ready").is_success:
            assert time.monotonic() < deadline, "the application did not become ready"
            time.sleep(0.05)
        yield url
    finally:
        server.should_exit = True
        thread.join(15)


@pytest.fixture(scope="session")
def api(mongodb_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Base URL of an application that tests share; each has runs of its own."""
    with serve(settings_for(mongodb_uri, tmp_path_factory.mktemp("api"))) as url:
        yield url


@pytest.fixture
def fleet(api: str) -> Iterator[Fleet]:
    """A Pendulum run on the shared application, with what plays and trains."""
    with Fleet(api) as made:
        yield made


@pytest.fixture(scope="session")
def s3_credentials() -> Iterator[None]:
    """Credentials where every AWS client looks for them."""
    given = {"AWS_ACCESS_KEY_ID": "test-access", "AWS_SECRET_ACCESS_KEY": "test-secret-key"}
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    yield
    for name, value in before.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value


@pytest.fixture(scope="session")
def moto(s3_credentials: None) -> Iterator[dict[str, Any]]:
    """Settings for a bucket of moto's in-memory S3."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield _bucket(f"http://{host}:{port}")
    server.stop()


@pytest.fixture(scope="session")
def seaweedfs(s3_credentials: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Settings for a bucket of a SeaweedFS process, an S3 server that keeps what it acknowledges."""
    directory = tmp_path_factory.mktemp("seaweedfs")
    identity = {
        "name": "test",
        "credentials": [{"accessKey": "test-access", "secretKey": "test-secret-key"}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (directory / "identities.json").write_text(json.dumps({"identities": [identity]}))
    for _ in range(3):  # a port can be taken by another process between the choice and the start
        process, endpoint_url = _start_seaweedfs(directory)
        try:
            yield _bucket(endpoint_url, process)
            return
        except ChildProcessError:
            continue
        finally:
            process.kill()
            process.wait()
    raise ChildProcessError((directory / "log").read_text()[-2000:])


def _start_seaweedfs(directory: Path) -> tuple[subprocess.Popen[bytes], str]:
    ports = {name: _port_with_a_second() for name in ("s3", "master", "volume", "filer")}
    command = [str(Path(sys.executable).with_name("weed")), "server", f"-dir={directory}", "-ip=127.0.0.1"]
    command += ["-ip.bind=127.0.0.1", "-s3", f"-s3.config={directory / 'identities.json'}", "-s3.port.iceberg=0"]
    command += [f"-{name}.port={port}" for name, port in ports.items()]
    command += ["-s3.port.lance=0", "-master.telemetry=false"]  # else a fixed port, and a call home
    command += ["-master.volumeSizeLimitMB=64", "-volume.max=10", "-volume.preStopSeconds=1"]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    return process, f"http://127.0.0.1:{ports['s3']}"


def _bucket(endpoint_url: str, process: subprocess.Popen[bytes] | None = None) -> dict[str, Any]:
    """A new bucket, as soon as the server takes it and a first object; the settings that name it.

    Raises
    ------
    ChildProcessError
        When the server's process has ended.
    """
    config = Config(retries={"max_attempts": 0}, connect_timeout=2, read_timeout=5, s3={"addressing_style": "path"})
    client = boto3.client("s3", endpoint_url=endpoint_url, region_name="us-east-1", config=config)
    bucket = f"test-{uuid.uuid4().hex[:12]}"
    deadline = time.monotonic() + 60
    steps = [
        lambda: client.create_bucket(Bucket=bucket),
        lambda: client.put_object(Bucket=bucket, Key="probe", Body=b"x"),
    ]
    while steps:
        try:
            steps[0]()
            del steps[0]
        except (BotoCoreError, ClientError) as error:
            if process is not None and process.poll() is not None:
                raise ChildProcessError(f"the S3 server ended with {process.returncode}") from error
            if time.monotonic() > deadline:
                raise TimeoutError(f"the S3 server is not ready: {error}") from error
            time.sleep(0.3)
    return {
        "checkpoint_store": f"s3://{bucket}/fleet",
        "s3_endpoint_url": endpoint_url,
        "s3_path_style": True,
    }


def _port_with_a_second() -> int:
    """A free port whose neighbour 10000 above, which SeaweedFS takes for gRPC, is in range."""
    while True:
        port = free_port()
        if port < 50_000:
            return port
