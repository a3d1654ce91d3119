"""The parts of a gaitfleet that can be killed, started again as Kubernetes would."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gaitfleet.command.processes import free_port
from tests.relay import Service
from tests.servers import CREDENTIALS, Database, ObjectServer

ROOT = Path(__file__).parents[2]

RESTART_SECONDS = 1.0
"""Delay in s before a part that has ended is started again; what a kubelet takes for a container's first death."""


@dataclass
class Part:
    """A process that is started again whenever it ends.

    Parameters
    ----------
    name
        As it is called in the results.
    start
        Starts it, and gives its process.
    ends
        How often it ended by itself, by its exit status.
    """

    name: str
    start: Callable[[], subprocess.Popen[bytes]]
    ends: dict[int, int] = field(default_factory=dict)
    starts: int = 0
    process: subprocess.Popen[bytes] | None = None
    _killed: bool = False
    _start_at: float = 0.0

    def kill(self) -> None:
        """SIGKILL, unless it is dead already."""
        if self.process is not None and self.process.poll() is None:
            self._killed = True
            self.process.kill()
            self.process.wait()

    def watch(self) -> None:
        """Start it, and start it again when it has ended."""
        now = time.monotonic()
        if self.process is not None and self.process.poll() is not None:
            if not self._killed:
                self.ends[self.process.returncode] = self.ends.get(self.process.returncode, 0) + 1
            self._killed, self.process, self._start_at = False, None, now + RESTART_SECONDS
        if self.process is None and now >= self._start_at:
            self.process = self.start()
            self.starts += 1

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def stop(self) -> None:
        """SIGTERM, and SIGKILL to what does not end within 30 s."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Installation:
    """Database, S3 server, replicas of the API behind a Service, a trainer and a worker, on loopback.

    Parameters
    ----------
    directory
        Where data, spool and logs go.
    run
        Which run trainer and worker belong to.
    replicas
        How many of the API.
    """

    def __init__(self, directory: Path, run: str, *, replicas: int = 2) -> None:
        self._directory = directory
        self.run = run
        self.journal = directory / "journal.jsonl"
        self.database = Database(directory)
        self.objects = ObjectServer(directory)
        self.bucket = self.objects.bucket
        self.api_ports = [free_port() for _ in range(replicas)]
        self.service = Service(self.api_ports)
        self.parts: dict[str, Part] = {}
        self._watching = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Installation:
        self.service.__enter__()
        for name, server in (("database", self.database), ("s3", self.objects)):
            self.parts[name] = Part(name, _restart(server), starts=1, process=server.process)
        for number, port in enumerate(self.api_ports):
            self._add(f"api-{number}", "replay_api", "GAITFLEET_REPLAY_API_", self._api_settings(port))
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._watching.set()
        self._watcher.join()
        for part in reversed(self.parts.values()):
            part.stop()
        self.service.__exit__()

    def start_clients(self) -> None:
        """Start trainer and worker; the run exists."""
        known = {"REPLAY_API_URL": self.service.url, "RUN": self.run}
        trainer = {"LEASE_TTL_SECONDS": "5", "DEVICE": "cpu", "THREADS": "1"}
        worker = {"WORKER": "worker-0", "SIMULATORS": "1", "SPOOL_DIR": str(self._directory / "spool")}
        self._add("trainer", "tests.soak.clients", "GAITFLEET_TRAINER_", known | trainer, "trainer")
        self._add("worker", "tests.soak.clients", "GAITFLEET_ROLLOUT_", known | worker, "rollout")

    def stop_part(self, name: str) -> None:
        """Let a part end in order, and not start again."""
        self.parts.pop(name).stop()

    def api_url(self, replica: int) -> str:
        """Address of one replica."""
        return f"http://127.0.0.1:{self.api_ports[replica]}"

    def _api_settings(self, port: int) -> dict[str, str]:
        settings: dict[str, Any] = {"AUTHENTICATION": "none", "PORT": port, "MONGODB_URI": self.database.uri}
        settings |= {"MONGODB_DATABASE": "soak"} | {name.upper(): value for name, value in self.bucket.items()}
        return {name: str(value) for name, value in settings.items()}

    def _add(self, name: str, module: str, prefix: str, settings: Mapping[str, str], *arguments: str) -> None:
        environment = os.environ | CREDENTIALS | {prefix + key: value for key, value in settings.items()}
        environment["JOURNAL"] = str(self.journal)

        def start() -> subprocess.Popen[bytes]:
            command = [sys.executable, "-m", module, *arguments]
            with (self._directory / f"{name}.log").open("ab") as log:
                return subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=ROOT)

        self.parts[name] = Part(name, start)

    def _watch(self) -> None:
        while not self._watching.wait(0.1):
            for part in list(self.parts.values()):
                part.watch()


def _restart(server: Database | ObjectServer) -> Callable[[], subprocess.Popen[bytes]]:
    def start() -> subprocess.Popen[bytes]:
        server.start()
        assert server.process is not None
        return server.process

    return start
