"""What the benchmarks of the replay API share: database and API as processes of their own, and what they ran on."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import psutil
from provenance import taken_on

from gaitfleet.command.fleet import database_command
from gaitfleet.command.processes import free_port

MAX_LAG_SECONDS = 0.02
"""The event loop is never blocked longer."""


@dataclass
class Served:
    """A database and an API on it, both processes of this machine.

    Parameters
    ----------
    directory
        Where both keep their data and their logs.
    settings
        Of the API, besides those that are set here.
    """

    directory: Path
    settings: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        database_port, port = free_port(), free_port()
        self.mongodb_uri = f"mongodb://127.0.0.1:{database_port}"
        self.url = f"http://127.0.0.1:{port}"
        self.database = self._start(database_command(self.directory / "database", database_port), {})
        options = {
            "AUTHENTICATION": "none",
            "PORT": str(port),
            "MONGODB_URI": self.mongodb_uri,
            "CHECKPOINT_STORE": f"directory:{self.directory / 'checkpoints'}",
        }
        self._options = {f"GAITFLEET_REPLAY_API_{name}": value for name, value in (options | self.settings).items()}
        self.start_api()

    def start_api(self) -> None:
        """Start the API; `wait_until_ready` says when it answers."""
        self.api = self._start([sys.executable, "-m", "replay_api"], self._options)

    def stop_api(self) -> None:
        """Stop the API as an orchestrator does."""
        self.api.terminate()
        self.api.wait()

    def stop(self) -> None:
        """End both."""
        for process in (self.api, self.database):
            process.kill()
            process.wait()

    def wait_until_ready(self) -> None:
        """Wait until the API answers requests."""
        deadline = time.monotonic() + 60
        while True:
            try:
                if httpx.get(f"{self.url}/health/ready").is_success:
                    return
            except httpx.TransportError:
                pass
            assert time.monotonic() < deadline, f"the API did not become ready; its log is in {self.directory}"
            time.sleep(0.05)

    def metrics(self) -> dict[str, float]:
        """Every sample that the API exports, by name and labels."""
        lines = httpx.get(f"{self.url}/metrics", timeout=120).text.splitlines()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[:1] != "#")}

    def cpu_seconds(self) -> dict[str, float]:
        """Processor time that each process has used."""
        return {name: used_cpu_seconds(process.pid) for name, process in self.processes.items()}

    @property
    def processes(self) -> dict[str, subprocess.Popen[bytes]]:
        return {"api": self.api, "database": self.database}

    def _start(self, command: list[str], options: dict[str, str]) -> subprocess.Popen[bytes]:
        with (self.directory / "log").open("ab") as log:
            return subprocess.Popen(command, env=os.environ | options, stdout=log, stderr=log)


@contextmanager
def served(directory: Path, **settings: str) -> Iterator[Served]:
    """Database and API, ready; ended with the context.

    Parameters
    ----------
    settings
        Of the API, by the names of its environment variables without their prefix.
    """
    system = Served(directory, settings)
    try:
        system.wait_until_ready()
        yield system
    finally:
        system.stop()


def used_cpu_seconds(pid: int) -> float:
    """Processor time that a process has used, all threads."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def resident_bytes(process: subprocess.Popen[bytes]) -> int:
    """Memory of a process."""
    return int(psutil.Process(process.pid).memory_info().rss)


class LagProbe:
    """How late the API's event loop was between two moments, as the API itself has measured it."""

    def __init__(self, system: Served) -> None:
        self._system = system
        self._before = _lag_buckets(system.metrics())

    def read(self) -> dict[str, float]:
        """Since this was made: the bucket that the worst lateness lies in, the share of the time, in s, that the loop
        was later than `MAX_LAG_SECONDS`, and the machine's load at the end."""
        after = _lag_buckets(self._system.metrics())
        counts = {bound: after[bound] - self._before.get(bound, 0.0) for bound in after}
        total = counts[float("inf")]
        late = total - counts[MAX_LAG_SECONDS]
        worst = min(bound for bound, count in counts.items() if count == total)
        return {"timers": total, "late_timers": late, "worst_seconds_at_most": worst, "load_1m": os.getloadavg()[0]}


def _lag_buckets(metrics: dict[str, float]) -> dict[float, float]:
    pattern = re.compile(r'rl_api_event_loop_lag_seconds_bucket\{le="(.*)"\}')
    return {float(found[1]): value for name, value in metrics.items() if (found := pattern.fullmatch(name))}


def machine() -> dict[str, Any]:
    """What the numbers were taken on."""
    packages = ("numpy", "fastapi", "uvicorn", "uvloop", "httptools", "motor", "pymongo", "SecantusDB")
    return taken_on() | {"versions": {name: version(name) for name in packages}}
