"""What the benchmarks of the replay API share: database and API as processes of their own, and what they ran on."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
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
    """How late the API's event loop was between two moments, and by its own work, as the API itself has measured it."""

    def __init__(self, system: Served) -> None:
        self._system = system
        self._before = _buckets(system.metrics())

    def read(self) -> dict[str, float]:
        """Since this was made: timers, those later than `MAX_LAG_SECONDS` and those for which the API itself worked so
        long, the buckets in which the worst of both lie, in s, and the machine's load at the end."""
        after = _buckets(self._system.metrics())
        read = {"load_1m": os.getloadavg()[0]}
        for name, late, worst in (
            ("lag", "late_timers", "worst_seconds_at_most"),
            ("busy", "blocked_timers", "worst_blocked_seconds_at_most"),
        ):
            counts = {bound: count - self._before[name].get(bound, 0.0) for bound, count in after[name].items()}
            read["timers"] = counts[float("inf")]
            read[late] = read["timers"] - counts[MAX_LAG_SECONDS]
            read[worst] = min(bound for bound, count in counts.items() if count == read["timers"])
        return read


def said(event_loop: Mapping[str, float]) -> str:
    """What a probe has read, in words."""
    late, blocked, timers = (event_loop[f"{name}timers"] for name in ("late_", "blocked_", ""))
    return (
        f"of {timers:.0f} timers {late:.0f} late by 20 ms (worst {event_loop['worst_seconds_at_most']:g} s), "
        f"{blocked:.0f} by its own work (worst {event_loop['worst_blocked_seconds_at_most']:g} s)"
    )


def _buckets(metrics: dict[str, float]) -> dict[str, dict[float, float]]:
    """Observations by upper bound, of the event loop's lag and of how busy it was."""
    found: dict[str, dict[float, float]] = {"lag": {}, "busy": {}}
    for name, value in metrics.items():
        if match := re.fullmatch(r'rl_api_event_loop_(lag|busy)_seconds_bucket\{le="(.*)"\}', name):
            found[match[1]][float(match[2])] = value
    return found


def machine() -> dict[str, Any]:
    """What the numbers were taken on."""
    packages = ("numpy", "fastapi", "uvicorn", "uvloop", "httptools", "motor", "pymongo", "SecantusDB")
    return taken_on() | {"versions": {name: version(name) for name in packages}}
