"""One place for a simulator process, as the supervisor sees it: start, assign, watch, replace."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

import psutil

from gaitfleet.client import Backoff
from gaitfleet.task import Task
from rollout import simulator_process
from rollout.assignment import Assignment, Report, SimulatorSpecification
from rollout.recording import Recording, RecordingShape, SharedBlock
from rollout.schedule import Plan

_SPAWN = multiprocessing.get_context("spawn")

LONGEST_TICK_SECONDS = 1.0
"""What one look at a simulator may add to its silence. When the whole container was paused, nobody was silent."""


KILL_SECONDS = 5.0
"""Longest wait for a killed process; only one that hangs inside the kernel takes more than a moment."""


class SlotState(Enum):
    """Where a slot stands."""

    WAITING = "waiting"
    """No process: the last one failed, the next one starts after a delay."""

    STARTING = "starting"
    IDLE = "idle"
    PLAYING = "playing"


@dataclass(frozen=True, slots=True)
class Play:
    """An episode that is being played."""

    plan: Plan
    started_at: datetime
    since: float


class SimulatorSlot:
    """A simulator process and its successors, which all record into the same memory.

    Parameters
    ----------
    number
        Of the slot, from 0.
    specification
        What its processes play.
    task
        The same task, on this side.
    """

    def __init__(self, number: int, specification: SimulatorSpecification, task: Task) -> None:
        shape = RecordingShape.of(task.description)
        self.number = number
        self.state = SlotState.WAITING
        self.play: Play | None = None
        self.episodes_of_process = 0
        self._waiting_since = time.monotonic()
        self.connection: Connection | None = None
        self._block = SharedBlock(shape.nbytes)
        self.recording = Recording(self._block, shape)
        self._specification = specification
        self._process: SpawnProcess | None = None
        self._policy_version = 0
        self._backoff = Backoff(first_seconds=1.0, maximum_seconds=60.0)
        self._failures_in_a_row = 0
        self._start_at = 0.0
        self._silent_seconds = 0.0
        self._last_beats = -1
        self._last_look = time.monotonic()

    @property
    def sentinel(self) -> int | None:
        """Becomes ready when the process has ended."""
        return None if self._process is None else self._process.sentinel

    @property
    def exit_code(self) -> int | None:
        """Of a process that has ended."""
        return None if self._process is None else self._process.exitcode

    def start_if_due(self) -> None:
        """Start a process, unless one is there or it is too early after failures.

        Raises
        ------
        OSError
            When the system has no room for another process. The slot is as before then.
        """
        if self.state is not SlotState.WAITING or time.monotonic() < self._start_at:
            return
        ours, theirs = _SPAWN.Pipe()
        arguments = (theirs, self._block, self._specification, os.getpid())
        process = _SPAWN.Process(target=simulator_process.run, args=arguments, name=f"simulator-{self.number}")
        with theirs, _environment(simulator_process.ONE_THREAD):
            process.start()
        self._process, self.connection = process, ours
        self.state = SlotState.STARTING
        self.episodes_of_process = 0
        self._policy_version = 0
        self._forget_silence()

    def ready(self) -> None:
        """The process has loaded its simulator."""
        self.state = SlotState.IDLE

    def assign(self, plan: Plan) -> None:
        """Let the process play an episode."""
        if self.connection is None:
            raise RuntimeError(f"slot {self.number} has no process to play an episode")
        version = 0 if plan.policy is None else plan.policy.version
        body = plan.policy.body if plan.policy is not None and version != self._policy_version else None
        self.recording.begin()
        self.recording.stop = False
        self.play = Play(plan, datetime.now(UTC), time.monotonic())
        self.state = SlotState.PLAYING
        self._forget_silence()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it died; the sentinel tells the supervisor
            self.connection.send(Assignment(plan.seed, plan.exploration, version, body, plan.pose))
        self._policy_version = version or self._policy_version

    def receive(self) -> Report | None:
        """What the process has said; None when there is nothing, or nothing any more."""
        try:
            if self.connection is not None and self.connection.poll():
                report: Report = self.connection.recv()
                return report
        except (EOFError, ConnectionResetError, OSError):
            pass  # the sentinel tells the supervisor
        return None

    def finished(self) -> None:
        """The episode has ended well."""
        self.play = None
        self.state = SlotState.IDLE
        self.episodes_of_process += 1
        self._waiting_since = time.monotonic()
        self._failures_in_a_row = 0
        self._backoff.reset()

    def waited_seconds(self) -> float:
        """For how long nothing has been played, counted from the last call."""
        now = time.monotonic()
        waited, self._waiting_since = now - self._waiting_since, now
        return waited

    def silent_seconds(self) -> float:
        """For how long the process has shown no sign of life."""
        now = time.monotonic()
        if self.recording.beats != self._last_beats:
            self._last_beats = self.recording.beats
            self._silent_seconds = 0.0
        else:
            self._silent_seconds += min(now - self._last_look, LONGEST_TICK_SECONDS)
        self._last_look = now
        return self._silent_seconds

    def resident_bytes(self) -> int:
        """Resident memory of the process; 0 when it is gone."""
        try:
            return 0 if self._process is None else int(psutil.Process(self._process.pid).memory_info().rss)
        except psutil.Error:
            return 0

    def replace(self, *, failed: bool) -> float:
        """End the process and let another one start: at once, or after a delay where it fails again and again.

        Returns
        -------
        delay
            Seconds until the next start.
        """
        self.end()
        delay = 0.0
        if failed:
            self._failures_in_a_row += 1
            if self._failures_in_a_row > 1:
                delay = self._backoff.next_seconds(at_least=0.5)
        self._start_at = time.monotonic() + delay
        return delay

    def end(self) -> None:
        """Kill the process; what it recorded stays readable. It holds nothing that would have to be saved."""
        if self._process is not None:
            self._process.kill()
            self._process.join(KILL_SECONDS)
            if self._process.exitcode is not None:
                self._process.close()
        if self.connection is not None:
            self.connection.close()
        if self.state is SlotState.PLAYING:
            self._waiting_since = time.monotonic()
        self._process = self.connection = self.play = None
        self.state = SlotState.WAITING

    def _forget_silence(self) -> None:
        self._silent_seconds = 0.0
        self._last_look = time.monotonic()


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Environment variables for the processes started within."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value
