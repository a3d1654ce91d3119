"""Keeps the simulators playing: assigns episodes, watches, replaces, and turns records into episodes."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import wait
from typing import Any, Literal, Protocol

from gaitfleet.episode import Ending, EndingReason
from gaitfleet.task import Task
from rollout.assignment import Failed, Finished, Ready, SimulatorSpecification, Unfit
from rollout.episode_record import EpisodeRecord, Recorder
from rollout.metrics import Metrics
from rollout.schedule import Schedule
from rollout.simulator_slot import Play, SimulatorSlot, SlotState

logger = logging.getLogger(__name__)

TICK_SECONDS = 0.2
"""Longest time between two looks at the simulators; whatever they say ends it sooner."""

MEMORY_LOOK_SECONDS = 2.0
"""Time between two looks at the memory of a process that plays."""


class UnfitSimulatorError(Exception):
    """The simulator can never play this task."""


class Outgoing(Protocol):
    """Where finished episodes go."""

    @property
    def accepting(self) -> bool:
        """Whether another episode may be begun."""

    def submit(self, episode_id: str, body: bytes) -> None:
        """Take an episode."""


@dataclass(frozen=True, slots=True)
class SimulatorLimits:
    """When a simulator process is replaced, and what becomes of an episode that it left unfinished."""

    episodes_per_process: int = 300
    memory_limit_bytes: int = 1500 << 20
    step_timeout_seconds: float = 30.0
    startup_timeout_seconds: float = 180.0
    partial_episodes: Literal["post", "drop"] = "post"


class Supervisor:
    """Owns the simulator processes. `run` and `drain` belong to one thread, which must outlive the processes.

    Parameters
    ----------
    specification
        What every simulator plays.
    task
        The same task, on this side.
    recorder
        Turns what a slot has recorded into an episode body.
    simulators
        Number of processes.
    schedule
        Which episode is next.
    outbox
        Where episodes go.
    """

    def __init__(
        self,
        specification: SimulatorSpecification,
        task: Task,
        recorder: Recorder,
        *,
        simulators: int,
        schedule: Schedule,
        outbox: Outgoing,
        metrics: Metrics,
        limits: SimulatorLimits,
    ) -> None:
        self.slots = [SimulatorSlot(number, specification, task) for number in range(simulators)]
        self._changes: dict[int, tuple[Callable[[], SimulatorSlot], Recorder]] = {}
        self.environment_steps = 0
        self.episodes = 0
        self.failures: Counter[str] = Counter()
        self.policy_version = 0
        self._recorders = [recorder] * simulators
        self._schedule = schedule
        self._outbox = outbox
        self._metrics = metrics
        self._limits = limits
        self._memory_looked_at = 0.0

    def run(self, stop: threading.Event, check: Callable[[], None] = lambda: None) -> None:
        """Play until `stop` is set.

        Parameters
        ----------
        check
            Called at every tick; what it raises ends the work.

        Raises
        ------
        UnfitSimulatorError
            When a simulator does not fit the task, or cannot be loaded at all.
        """
        while not stop.is_set():
            check()
            self._renew()
            self._start()
            self._book_waiting()
            self._assign()
            self._wait(TICK_SECONDS)
            self._look()

    def change(self, specification: SimulatorSpecification, task: Task, recorder: Recorder) -> None:
        """Play something else from the next episode on. An episode under way is played to its end as it began."""
        self._changes = {
            number: (partial(SimulatorSlot, number, specification, task), recorder) for number in range(len(self.slots))
        }
        self._schedule.begin_stage(task)

    def _renew(self) -> None:
        """Replace the simulators of what is not played any more, as soon as they have nothing to play."""
        for number, (make, recorder) in list(self._changes.items()):
            if self.slots[number].state is not SlotState.PLAYING:
                self.slots[number].end()
                self.slots[number], self._recorders[number] = make(), recorder
                del self._changes[number]

    def drain(self, timeout_seconds: float) -> None:
        """End every episode at its next step; a simulator that does not come to it in this time is killed."""
        deadline = time.monotonic() + timeout_seconds
        for slot in self.slots:
            if slot.state is SlotState.PLAYING:
                slot.recording.stop = True
            else:
                slot.end()
        while any(slot.state is SlotState.PLAYING for slot in self.slots) and time.monotonic() < deadline:
            self._wait(min(TICK_SECONDS, max(0.0, deadline - time.monotonic())))
            self._look()
        for slot in self.slots:
            play = slot.play
            slot.end()
            if play is not None:
                self._salvage(slot, play, "preempted")

    def close(self) -> None:
        """Kill every process, whatever it does."""
        for slot in self.slots:
            slot.end()

    def _start(self) -> None:
        for slot in self.slots:
            try:
                slot.start_if_due()
            except OSError as error:
                self._failed(slot, "startup", str(error))

    def _book_waiting(self) -> None:
        """At every tick and not when a wait ends: whoever looks at the metrics wants to know of one that lasts."""
        for slot in self.slots:
            if slot.state is not SlotState.PLAYING:
                self._metrics.phase("wait", slot.waited_seconds())

    def _assign(self) -> None:
        for slot in self.slots:
            if slot.state is not SlotState.IDLE or slot.number in self._changes or not self._outbox.accepting:
                continue
            plan = self._schedule.next(slot.number)
            if plan is None:
                return
            self._metrics.phase("wait", slot.waited_seconds())
            self.policy_version = 0 if plan.policy is None else plan.policy.version
            self._metrics.acting(self.policy_version)
            slot.assign(plan)

    def _wait(self, seconds: float) -> None:
        awaited: list[Any] = []
        for slot in self.slots:
            awaited += [thing for thing in (slot.connection, slot.sentinel) if thing is not None]
        if awaited:
            wait(awaited, seconds)
        else:
            time.sleep(seconds)

    def _look(self) -> None:
        look_at_memory = time.monotonic() - self._memory_looked_at > MEMORY_LOOK_SECONDS
        if look_at_memory:
            self._memory_looked_at = time.monotonic()
        for slot in self.slots:
            if slot.state is SlotState.WAITING:
                continue
            self._look_at(slot)
            if look_at_memory and slot.resident_bytes() > 2 * self._limits.memory_limit_bytes:
                self._failed(slot, "memory", "over twice the memory limit")

    def _look_at(self, slot: SimulatorSlot) -> None:
        limits = self._limits
        match slot.receive():
            case Ready():
                slot.ready()
            case Unfit(message=message):
                raise UnfitSimulatorError(message)
            case Finished() as finished:
                self._finished(slot, finished)
            case Failed(kind=kind, message=message):
                self._failed(slot, kind, message)
            case None if slot.exit_code is not None:
                self._failed(slot, "process_died", f"exit code {slot.exit_code}")
            case None if slot.state is SlotState.PLAYING and slot.silent_seconds() > limits.step_timeout_seconds:
                self._failed(slot, "step_timeout", f"no step for {limits.step_timeout_seconds:g} s")
            case None if slot.state is SlotState.STARTING and slot.silent_seconds() > limits.startup_timeout_seconds:
                self._failed(slot, "startup_timeout", f"not ready after {limits.startup_timeout_seconds:g} s")

    def _finished(self, slot: SimulatorSlot, finished: Finished) -> None:
        play = slot.play
        if play is None:
            raise RuntimeError(f"simulator {slot.number} ended an episode that nobody had asked for")
        self._metrics.phase("simulate", finished.phases.simulate)
        self._metrics.phase("policy", finished.phases.policy)
        self._metrics.phase("record", finished.phases.record)
        if finished.reason == "preempted":
            self._salvage(slot, play, "preempted")
        else:
            record = self._recorders[slot.number].record(
                slot, play, finished.ending, finished.reason, finished.wall_seconds
            )
            self._submit(slot, record)
        slot.finished()
        self._recycle(slot)

    def _recycle(self, slot: SimulatorSlot) -> None:
        reason = None
        if slot.episodes_of_process >= self._limits.episodes_per_process:
            reason = "episodes"
        elif (resident := slot.resident_bytes()) > self._limits.memory_limit_bytes:
            reason = "memory"
            logger.info("simulator %d holds %d MiB", slot.number, resident >> 20)
        if reason is not None:
            self._metrics.simulator_replaced(reason)
            slot.replace(failed=False)

    def _failed(self, slot: SimulatorSlot, kind: str, message: str) -> None:
        self.failures[kind] += 1
        self._metrics.simulator_replaced(kind)
        play, stage = slot.play, slot.state.value
        delay = slot.replace(failed=True)  # kills it before its record is read, so that nobody writes to it any more
        particulars = {"kind": kind, "restart_in_seconds": round(delay, 1)}
        logger.warning("simulator %d failed while %s: %s: %s", slot.number, stage, kind, message, extra=particulars)
        if play is not None:
            self._metrics.phase("simulate", time.monotonic() - play.since)  # most of it is where it failed
            self._salvage(slot, play, "simulator_failure")

    def _salvage(self, slot: SimulatorSlot, play: Play, reason: EndingReason) -> None:
        """Post what there is of an unfinished episode, or drop it by rule."""
        former = slot.number in self._changes  # begun before the change: the schedule knows nothing of it any more
        if reason == "simulator_failure" and not former and self._schedule.failed(play.plan):
            self._metrics.dropped("repeated", slot.recording.steps)
        elif play.plan.role == "evaluate" and (former or reason == "preempted"):
            self._metrics.dropped("preempted_evaluation", slot.recording.steps)
        elif self._limits.partial_episodes == "drop":
            self._metrics.dropped("partial", slot.recording.steps)
        else:
            ending: Ending = "truncated"
            record = self._recorders[slot.number].record(slot, play, ending, reason, time.monotonic() - play.since)
            self._submit(slot, record)

    def _submit(self, slot: SimulatorSlot, record: EpisodeRecord | None) -> None:
        if record is None:
            self._metrics.dropped("empty")
            return
        trajectory = record.episode.trajectory
        step_seconds = slot.recording.step_seconds[: trajectory.steps]
        self._metrics.episode(record.episode.metadata.ending_reason, trajectory, step_seconds)
        simulated_step_seconds = self._recorders[slot.number].step_seconds
        if simulated_step_seconds is not None:
            simulated = trajectory.steps * simulated_step_seconds
            self._metrics.realtime(simulated / max(float(step_seconds.sum()), 1e-9))
        self.environment_steps += trajectory.steps
        self.episodes += 1
        self._outbox.submit(str(record.episode.metadata.episode_id), record.body)
