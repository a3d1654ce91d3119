"""The buffers one simulator records into, in memory that the supervisor shares.

The record of a simulator that hangs or dies is not lost with it: the supervisor reads whatever was complete. A step
counts only once everything of it is written (`Recording.commit` is the last write), so a row that was being written is
never read.
"""

from __future__ import annotations

import math
import mmap
import os
import tempfile
from dataclasses import dataclass
from multiprocessing import reduction
from typing import Any

import numpy as np
import numpy.typing as npt

from gaitfleet.checksum import first_checksum, next_checksum
from gaitfleet.task.interface import TaskDescription
from gaitfleet.trajectory import Float32, Trajectory


class SharedBlock:
    """Memory that a spawned process can map too.

    It has no name: nothing is left behind whoever is killed, and it is not bound by the size of /dev/shm (64 MB in a
    container), as the blocks of multiprocessing are.
    """

    def __init__(self, size: int) -> None:
        if hasattr(os, "memfd_create"):
            self._descriptor = os.memfd_create("gaitfleet-recording")
        else:
            with tempfile.TemporaryFile() as file:
                self._descriptor = os.dup(file.fileno())
        os.ftruncate(self._descriptor, size)
        self.map = mmap.mmap(self._descriptor, size)

    def __getstate__(self) -> Any:
        return reduction.DupFd(self._descriptor), len(self.map)

    def __setstate__(self, state: Any) -> None:
        descriptor, size = state
        self._descriptor = descriptor.detach()
        self.map = mmap.mmap(self._descriptor, size)

    def __del__(self) -> None:
        os.close(self._descriptor)


@dataclass(frozen=True)
class RecordingShape:
    """Sizes of the buffers."""

    time_limit_steps: int
    state_size: int
    action_size: int

    @classmethod
    def of(cls, task: TaskDescription) -> RecordingShape:
        """Buffers for the longest episode of a task."""
        return cls(task.time_limit_steps, len(task.state_layout), task.action_size)

    def arrays(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Dtype and shape by name, widest first so that all are aligned."""
        steps = self.time_limit_steps
        return {
            "counters": ("i8", (3,)),
            "state": ("f4", (steps + 1, self.state_size)),
            "action": ("f4", (steps, self.action_size)),
            "reward": ("f4", (steps,)),
            "step_seconds": ("f4", (steps,)),
            "checksum": ("u4", (steps + 1,)),
            "decision": ("u1", (steps,)),
        }

    @property
    def nbytes(self) -> int:
        return sum(np.dtype(dtype).itemsize * math.prod(shape) for dtype, shape in self.arrays().values())


_STEPS, _BEATS, _STOP = range(3)


class Recording:
    """One episode's buffers, written by the simulator process and read by the supervisor.

    Attributes
    ----------
    state
        float32 [T_max+1, S].
    action
        float32 [T_max, A].
    reward
        float32 [T_max].
    step_seconds
        float32 [T_max]. Wall-clock time of the simulator's own work.
    decision
        uint8 [T_max].
    """

    def __init__(self, block: SharedBlock, shape: RecordingShape) -> None:
        views: dict[str, npt.NDArray[Any]] = {}
        offset = 0
        for name, (dtype, dimensions) in shape.arrays().items():
            count = math.prod(dimensions)
            views[name] = np.frombuffer(block.map, dtype, count, offset).reshape(dimensions)
            offset += views[name].nbytes
        self.state: Float32 = views["state"]
        self.action: Float32 = views["action"]
        self.reward: Float32 = views["reward"]
        self.step_seconds: Float32 = views["step_seconds"]
        self.decision: npt.NDArray[np.uint8] = views["decision"]
        # single numbers are read and written faster without numpy
        self._checksum, self._counters = views["checksum"].data, views["counters"].data

    @property
    def steps(self) -> int:
        """Steps that are complete."""
        steps: int = self._counters[_STEPS]
        return steps

    @property
    def beats(self) -> int:
        """Changes with every sign of life of the simulator."""
        beats: int = self._counters[_BEATS]
        return beats

    @property
    def stop(self) -> bool:
        """Whether the supervisor wants the episode to end at the next step."""
        return bool(self._counters[_STOP])

    @stop.setter
    def stop(self, value: bool) -> None:
        self._counters[_STOP] = value

    def begin(self) -> None:
        """Forget the previous episode."""
        self._counters[_STEPS] = 0
        self.beat()

    def beat(self) -> None:
        """Sign of life."""
        self._counters[_BEATS] += 1

    def commit(self, steps: int) -> None:
        """Step number `steps`, and the row after it, is written; 0: the row after reset."""
        row, before = self.state[steps], steps - 1
        if steps == 0:
            self._checksum[0] = first_checksum(row)
        else:
            step = self.action[before], self.reward[before], self.decision[before], row
            self._checksum[steps] = next_checksum(self._checksum[before], *step)
        self._counters[_STEPS] = steps
        self._counters[_BEATS] += 1

    def checksum(self, steps: int) -> int:
        """CRC-32 of the first `steps` steps, each as it was when it was committed (`gaitfleet.checksum`)."""
        checksum: int = self._checksum[steps]
        return checksum

    def trajectory(self, target_velocity: Float32 | None) -> Trajectory | None:
        """A copy of what was recorded, up to the first number that is not finite; None when not one step is left.

        Parameters
        ----------
        target_velocity
            [T_max+1, 3] in m/s, for tasks that have one.
        """
        steps = self._finite_steps()
        if steps == 0:
            return None
        return Trajectory(
            state=self.state[: steps + 1].copy(),
            action=self.action[:steps].copy(),
            reward=self.reward[:steps].copy(),
            decision=self.decision[:steps].copy(),
            target_velocity=None if target_velocity is None else target_velocity[: steps + 1].copy(),
        )

    def _finite_steps(self) -> int:
        steps = self.steps
        rows = _finite_rows(self.state[: steps + 1])
        whole = rows[1:] & rows[:1] & _finite_rows(self.action[:steps]) & np.isfinite(self.reward[:steps])
        return steps if whole.all() else int(np.argmin(whole))


def _finite_rows(array: Float32) -> npt.NDArray[np.bool_]:
    finite: npt.NDArray[np.bool_] = np.logical_and.reduce(np.isfinite(array), axis=1)
    return finite
