"""Database and S3 server as processes of their own, which can be killed and started again on the same data."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

import boto3
import httpx
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from gaitfleet.command.fleet import database_command
from gaitfleet.command.processes import free_port

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test-access", "AWS_SECRET_ACCESS_KEY": "test-secret-key"}


class Server:
    """A process that can be killed, and started again on its port and its data."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        """Program and arguments."""
        raise NotImplementedError

    def start(self) -> None:
        log = self._directory / f"{type(self).__name__.lower()}.log"
        with log.open("ab") as output:
            environment = os.environ | CREDENTIALS
            self.process = subprocess.Popen(self.command(), stdout=output, stderr=output, env=environment)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()


class Database(Server):
    """SecantusDB, as `gaitfleet up` starts it: a write of concern `journal` is on disk when it is acknowledged."""

    def __init__(self, directory: Path, port: int | None = None, *options: str) -> None:
        super().__init__(directory)
        self.port = port or free_port()
        self._options = options
        self.start()

    @property
    def uri(self) -> str:
        return f"mongodb://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        return [*database_command(self._directory / "db", self.port), *self._options]


class ApiServer(Server):
    """The replay API as `python -m replay_api`; started once it is ready.

    Parameters
    ----------
    settings
        Beside port and authentication, by the names of `replay_api.settings`.
    environment
        Further variables of the process.
    """

    def __init__(self, directory: Path, settings: dict[str, Any], environment: dict[str, str] | None = None) -> None:
        super().__init__(directory)
        self.settings = settings
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = directory / f"api-{self.port}.log"
        known = {"authentication": "none", "port": self.port, "checkpoint_store": f"directory:{directory}/checkpoints"}
        given = {f"GAITFLEET_REPLAY_API_{name.upper()}": str(value) for name, value in (known | settings).items()}
        self._environment = os.environ | CREDENTIALS | given | (environment or {})
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "replay_api"]
            self.process = subprocess.Popen(command, env=self._environment, stdout=log, stderr=log)
        self.wait_until_ready()

    def wait_until_ready(self, seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while True:
            with suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/health/ready", timeout=10).is_success:
                    return
            assert self.process is not None
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, f"the API did not become ready\n{self.log.read_text()[-2000:]}"
            time.sleep(0.1)

    def said(self) -> list[dict[str, Any]]:
        """Every line of its log."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]


class ObjectServer(Server):
    """SeaweedFS, an S3 server that keeps what it acknowledges.

    Raises
    ------
    ChildProcessError
        When it does not start.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        keys = dict(zip(("accessKey", "secretKey"), CREDENTIALS.values(), strict=True))
        identity = {"name": "test", "credentials": [keys], "actions": actions}
        (directory / "identities.json").write_text(json.dumps({"identities": [identity]}))
        for _ in range(3):  # a port can be taken by another process between the choice and the start
            self._ports = {name: _port_with_a_second() for name in ("s3", "master", "volume", "filer")}
            self.start()
            try:
                self.bucket = new_bucket(self.endpoint_url, self.process)
                return
            except ChildProcessError:
                continue
            except TimeoutError:
                self.kill()
                raise
        raise ChildProcessError((directory / "objectserver.log").read_text()[-2000:])

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self._ports['s3']}"

    def command(self) -> list[str]:
        directory = self._directory
        command = [str(Path(sys.executable).with_name("weed")), "server", f"-dir={directory}", "-ip=127.0.0.1"]
        command += ["-ip.bind=127.0.0.1", "-s3", f"-s3.config={directory / 'identities.json'}", "-s3.port.iceberg=0"]
        command += [f"-{name}.port={port}" for name, port in self._ports.items()]
        command += ["-s3.port.lance=0", "-master.telemetry=false"]  # else a fixed port, and a call home
        return [*command, "-master.volumeSizeLimitMB=64", "-volume.max=10", "-volume.preStopSeconds=1"]


def s3_client(endpoint_url: str) -> Any:
    """A client with the credentials of the servers here, which tries once."""
    config = Config(retries={"max_attempts": 0}, connect_timeout=2, read_timeout=5, s3={"addressing_style": "path"})
    keys = dict(zip(("aws_access_key_id", "aws_secret_access_key"), CREDENTIALS.values(), strict=True))
    return boto3.client("s3", endpoint_url=endpoint_url, region_name="us-east-1", config=config, **keys)


def new_bucket(endpoint_url: str, process: subprocess.Popen[bytes] | None = None) -> dict[str, Any]:
    """A new bucket, as soon as the server takes it and a first object; the settings that name it.

    Raises
    ------
    ChildProcessError
        When the server's process has ended.
    """
    client = s3_client(endpoint_url)
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
    return {"checkpoint_store": f"s3://{bucket}/fleet", "s3_endpoint_url": endpoint_url, "s3_path_style": True}


def _port_with_a_second() -> int:
    """A free port whose neighbour 10000 above, which SeaweedFS takes for gRPC, is in range."""
    while True:
        port = free_port()
        if port < 50_000:
            return port
