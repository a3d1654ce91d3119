"""The whole system, started by `gaitfleet up` as a user would."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from gaitfleet.client import ReplayClient
from gaitfleet.command.processes import free_port
from gaitfleet.errors import ApiError
from gaitfleet.wire import RunStatus


class RunningFleet:
    """`gaitfleet up` as a process, watched through the API that it starts."""

    def __init__(self, directory: Path, run: str, *options: str) -> None:
        self.directory = directory
        self.port = free_port()
        self.output = directory / f"output-{self.port}.txt"
        command = [sys.executable, "-m", "gaitfleet", "up", "--run", run, "--port", str(self.port)]
        proxy = {"HTTP_PROXY": "http://127.0.0.1:9", "ALL_PROXY": "socks5://127.0.0.1:9", "NO_PROXY": ""}  # not used
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [*command, "--data-dir", str(directory / "data"), *options],
                env=os.environ | proxy,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.client = ReplayClient(f"http://127.0.0.1:{self.port}", run=run, timeout_seconds=5.0, attempts=1)

    def children(self) -> list[psutil.Process]:
        """Every process below this one."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def service(self, module: str) -> psutil.Process:
        """The process of a service, by its Python module or program."""
        for child in psutil.Process(self.process.pid).children():
            if any(module == part or part.endswith(f"/{module}") for part in child.cmdline()):
                return child
        raise AssertionError(f"no process of {module}")

    def wait_for(self, condition: Callable[[RunStatus], bool], seconds: float) -> RunStatus:
        """Wait until the status fulfils a condition."""
        deadline = time.monotonic() + seconds
        status = None
        while time.monotonic() < deadline:
            assert self.process.poll() is None, f"gaitfleet up ended:\n{self.said()}\n{self.logs()}"
            with contextlib.suppress(ApiError):
                status = self.client.status()
                if condition(status):
                    return status
            time.sleep(0.2)
        raise AssertionError(f"not within {seconds} s; last status {status}\n{self.said()[-2000:]}\n{self.logs()}")

    def stop(self, number: signal.Signals = signal.SIGINT, seconds: float = 60.0) -> int:
        """Ask to stop; the exit status."""
        self.process.send_signal(number)
        return self.process.wait(seconds)

    def said(self) -> str:
        """What it printed."""
        return self.output.read_text()

    def logs(self) -> str:
        """The end of every service's log."""
        files = sorted((self.directory / "data" / "logs").glob("*.log"))
        return "\n".join(f"--- {file.name}\n{file.read_text()[-3000:]}" for file in files)

    def close(self) -> None:
        self.client.close()
        if self.process.poll() is None:
            left = self.children()
            self.process.kill()
            self.process.wait()
            for child in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., RunningFleet]]:
    """Start a fleet; all of them share one data directory, one after another."""
    started: list[RunningFleet] = []

    def start(run: str, *options: str) -> RunningFleet:
        started.append(RunningFleet(tmp_path, run, *options))
        return started[-1]

    yield start
    for fleet in started:
        fleet.close()
