"""Which processes make up a gaitfleet on one machine, and how each is configured."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx

from gaitfleet.command.processes import Child, ProcessFailedError, free_port, make_directory, port_is_open, wait_until
from gaitfleet.command.scraping import write_scrape_configuration

API_START_SECONDS = 120.0
"""Time for the API to start: it waits for the database and creates its indexes."""


@dataclass(frozen=True)
class FleetOptions:
    """What `gaitfleet up` was asked for."""

    run: str
    data_dir: Path
    port: int
    workers: int
    evaluators: int
    mongodb_uri: str | None
    checkpoint_store: str | None
    s3_endpoint_url: str | None
    device: str


class Fleet:
    """Database, replay API, trainer and rollouts as child processes.

    Parameters
    ----------
    options
        Where data goes and how many of each there are.

    Raises
    ------
    ProcessFailedError
        When the directory of the logs cannot be made.
    """

    def __init__(self, options: FleetOptions) -> None:
        self._options = options
        self._logs = options.data_dir / "logs"
        make_directory(self._logs, "--data-dir")
        self.children: list[Child] = []
        self.api_url = f"http://127.0.0.1:{options.port}"

    def start_storage(self, stopping: Callable[[], bool]) -> None:
        """Start the database, unless one was given, and the replay API; returns when both answer, or on `stopping()`.

        Raises
        ------
        ProcessFailedError
            When one does not start, or the port is taken.
        """
        if port_is_open(self._options.port):
            raise ProcessFailedError(f"port {self._options.port} is in use; choose another with --port")
        uri = self._options.mongodb_uri or self._start_database()
        store = self._options.checkpoint_store or f"directory:{(self._options.data_dir / 'checkpoints').resolve()}"
        environment = {
            "HOST": "127.0.0.1",
            "PORT": str(self._options.port),
            "MONGODB_URI": uri,
            "CHECKPOINT_STORE": store,
            "AUTHENTICATION": "none",  # bound to loopback; the API refuses it anywhere else
        }
        if self._options.s3_endpoint_url:
            environment["S3_ENDPOINT_URL"] = self._options.s3_endpoint_url
        api = self._start("replay-api", "replay_api", "GAITFLEET_REPLAY_API_", environment, stop_seconds=20.0)
        wait_until(self._api_is_ready, api, seconds=API_START_SECONDS, stopping=stopping)

    def start_workers(self) -> Path:
        """Start the trainer and the rollouts of a run that exists; returns a configuration for Prometheus."""
        options = self._options
        ports = {"replay-api": options.port}
        # Simulators fill the other cores; a second thread of the trainer would only wait for its turn beside them.
        trainer = {"DEVICE": options.device, "THREADS": "1", **_metrics("trainer", ports)}
        self._start("trainer", "trainer", "GAITFLEET_TRAINER_", self._for_run(trainer), stop_seconds=30.0)
        for name, role, simulators in (
            ("rollout", "train", options.workers),
            ("evaluator", "evaluate", options.evaluators),
        ):
            if simulators:
                rollout = {
                    "ROLE": role,
                    "WORKER": name,
                    "SIMULATORS": str(simulators),
                    "SPOOL_DIR": str((options.data_dir / "spool" / name).resolve()),
                    **_metrics(name, ports),
                }
                self._start(name, "rollout", "GAITFLEET_ROLLOUT_", self._for_run(rollout), stop_seconds=12.0)
        return write_scrape_configuration(options.data_dir, ports)

    def watch(self) -> list[str]:
        """Restart what has died; returns messages for people.

        Raises
        ------
        ProcessFailedError
            When a service dies again and again.
        """
        return [message for child in self.children if (message := child.watch())]

    def stop(self) -> None:
        """Stop in reverse order of the data's way: rollouts, trainer, API, database."""
        order = {"rollout": 0, "evaluator": 0, "trainer": 1, "replay-api": 2, "database": 3}
        for child in sorted(self.children, key=lambda child: order[child.name]):
            child.stop()
        self.children.clear()

    def _start_database(self) -> str:
        child, uri = start_database(self._options.data_dir / "mongodb", self._logs / "database.log")
        self.children.append(child)
        return uri

    def _start(self, name: str, module: str, prefix: str, environment: dict[str, str], *, stop_seconds: float) -> Child:
        variables = {prefix + key: value for key, value in environment.items()}
        child = Child(name, [sys.executable, "-m", module], variables, self._logs / f"{name}.log", stop_seconds)
        child.start()
        self.children.append(child)
        return child

    def _for_run(self, environment: dict[str, str]) -> dict[str, str]:
        return {"REPLAY_API_URL": self.api_url, "RUN": self._options.run, **environment}

    def _api_is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.api_url}/health/ready", timeout=5.0, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False


def start_database(directory: Path, log_path: Path) -> tuple[Child, str]:
    """Start the embedded database; its process, and its URI as soon as it answers.

    Raises
    ------
    ProcessFailedError
        When it is not installed, or does not start; it is stopped then.
    """
    port = free_port()
    child = Child("database", database_command(directory, port), {}, log_path, stop_seconds=20.0)
    child.start()
    try:
        wait_until(lambda: port_is_open(port), child, seconds=60.0)
    except ProcessFailedError:
        child.stop()
        raise
    return child, f"mongodb://127.0.0.1:{port}/"


def database_command(directory: Path, port: int) -> list[str]:
    """Program and arguments of the embedded database, on a loopback port, with its files in `directory`.

    Raises
    ------
    ProcessFailedError
        When it is not installed, or the directory cannot be made.
    """
    program = shutil.which("secantusd-py", path=os.pathsep.join((sysconfig.get_path("scripts"), os.defpath)))
    if program is None:
        raise ProcessFailedError(
            "no database: install the extra gaitfleet[database], or name a MongoDB with --mongodb-uri"
        )
    make_directory(directory, "--data-dir")
    # The oplog keeps whole documents; nothing here reads it, so it is kept short to bound the disk.
    flags = ["--cache-size", "256M", "--oplog-max-entries", "200", "--oplog-retention-seconds", "60"]
    place = ["--host", "127.0.0.1", "--port", str(port), "--storage-path", str(directory)]
    return [program, *place, *flags, "--log-level", "WARNING"]


def _metrics(name: str, ports: dict[str, int]) -> dict[str, str]:
    """Settings that put a service's metrics on a free loopback port, which is noted in `ports`."""
    ports[name] = free_port()
    return {"METRICS_PORT": str(ports[name]), "METRICS_ADDRESS": "127.0.0.1"}
