"""The services as child processes of one machine: started in order, restarted when they die, stopped in reverse."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from gaitfleet.client import Backoff
from gaitfleet.errors import GaitfleetError

STABLE_SECONDS = 60.0
"""A process that has run this long has started well; its next death counts as the first."""

MAX_DEATHS = 5
"""Deaths in a row after which a process is given up."""

_PR_SET_PDEATHSIG = 1


class ProcessFailedError(GaitfleetError):
    """A service that does not start, or dies again and again."""


@dataclass
class Child:
    """One service.

    Parameters
    ----------
    name
        What it is called in messages and whose log it is.
    command
        Program and arguments.
    environment
        Variables on top of this process' own.
    log_path
        Where its output goes, appended.
    stop_seconds
        How long it may take to stop after SIGTERM before it is killed.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log_path: Path
    stop_seconds: float
    deaths: int = 0
    _process: subprocess.Popen[bytes] | None = None
    _started_at: float = 0.0
    _restart_at: float | None = None
    _backoff: Backoff = field(default_factory=lambda: Backoff(first_seconds=1.0))

    def start(self) -> None:
        """Start it in a session of its own, so that Ctrl-C reaches only the parent, which stops it in order."""
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 (it takes no lock)
            )
        self._started_at = time.monotonic()
        self._restart_at = None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def watch(self) -> str | None:
        """Restart it when it has died; returns a message for people when something happened.

        Raises
        ------
        ProcessFailedError
            When it has died `MAX_DEATHS` times in a row.
        """
        if self._process is None or self._process.poll() is None:
            return None
        if self._restart_at is None:
            self.deaths = 1 if time.monotonic() - self._started_at > STABLE_SECONDS else self.deaths + 1
            if self.deaths == 1:
                self._backoff.reset()
            if self.deaths >= MAX_DEATHS:
                raise ProcessFailedError(f"{self.name} died {self.deaths} times in a row; its log is {self.log_path}")
            wait = self._backoff.next_seconds()
            self._restart_at = time.monotonic() + wait
            return f"{self.name} ended with status {self._process.returncode}; starting it again in {wait:.1f} s"
        if time.monotonic() >= self._restart_at:
            self.start()
            return f"{self.name} started again"
        return None

    def stop(self) -> None:
        """SIGTERM, then SIGKILL to its whole session when it does not end in time."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(self.stop_seconds)
            except subprocess.TimeoutExpired:
                _kill_session(self._process.pid)
                self._process.wait()
        self._process = None


def wait_until(
    ready: Callable[[], bool], child: Child, *, seconds: float, stopping: Callable[[], bool] = lambda: False
) -> None:
    """Wait until `ready()`, or until `stopping()`.

    Raises
    ------
    ProcessFailedError
        When the child ends, or `seconds` pass, before that.
    """
    deadline = time.monotonic() + seconds
    while not stopping() and not ready():
        if not child.running:
            raise ProcessFailedError(f"{child.name} ended while starting; its log is {child.log_path}")
        if time.monotonic() > deadline:
            raise ProcessFailedError(f"{child.name} was not ready after {seconds:g} s; its log is {child.log_path}")
        time.sleep(0.1)


@contextmanager
def only_one(directory: Path, option: str) -> Iterator[None]:
    """Keep other commands out of a directory, which is made where needed, until this one ends.

    Raises
    ------
    ProcessFailedError
        When another command is using it, or it cannot be made or written; names the option that chooses another
        directory.
    """
    make_directory(directory, option)
    with _opened(directory / "lock", option) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ProcessFailedError(f"another gaitfleet is using {directory}; choose another with {option}") from None
        yield


def make_directory(directory: Path, option: str) -> None:
    """Make a directory where it is not there yet.

    Raises
    ------
    ProcessFailedError
        When that cannot be; names the option that chooses another.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ProcessFailedError(f"cannot make {directory}: {error.strerror}; choose another with {option}") from None


def _opened(path: Path, option: str) -> TextIO:
    try:
        return path.open("w")
    except OSError as error:
        raise ProcessFailedError(f"cannot write {path}: {error.strerror}; choose another with {option}") from None


def port_is_open(port: int) -> bool:
    """Whether something listens on a loopback port."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    """A loopback port that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _die_with_parent() -> None:
    # Without this a `kill -9` of the parent would leave simulators running for ever.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _kill_session(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
