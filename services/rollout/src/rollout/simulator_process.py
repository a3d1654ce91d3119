"""The child process: one simulator, one episode after the other, until told otherwise.

It posts nothing and decides nothing; the supervisor may kill it at any moment.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import traceback
from multiprocessing.connection import Connection

import numpy as np

from gaitfleet.errors import GaitfleetError
from gaitfleet.policy import NumpyPolicy
from gaitfleet.task import Task, make_task
from gaitfleet.task.interface import TaskDescription
from rollout.assignment import Assignment, Failed, Ready, SimulatorSpecification, Unfit
from rollout.environments.interface import Environment, SimulatorFailure
from rollout.exploration import make_actor
from rollout.recording import Recording, RecordingShape, SharedBlock
from rollout.worker import run_episode

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "VECLIB_MAXIMUM_THREADS": "1",
}
"""Environment of a simulator process, set before it starts: numpy reads these when it is loaded. The processes already
fill the cores, and a sum over several threads would not be the same every time."""

_PR_SET_PDEATHSIG = 1


def run(connection: Connection, block: SharedBlock, specification: SimulatorSpecification, parent: int) -> None:
    """Entry of the process.

    Parameters
    ----------
    connection
        To the supervisor. Its end is the end of this process.
    block
        The memory of the recording.
    specification
        What to play.
    parent
        Process id of the supervisor.
    """
    _belong_to(parent)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the supervisor wants no more
        _serve(connection, block, specification, parent)


def _belong_to(parent: int) -> None:
    """Leave signals to the supervisor, and die with it even inside a step that never returns."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise SystemExit(1)  # it died before the call above


def _serve(connection: Connection, block: SharedBlock, specification: SimulatorSpecification, parent: int) -> None:
    task = task_of(specification)
    recording = Recording(block, RecordingShape.of(task.description))
    try:
        environment = specification.make_environment(specification.task, specification.role)
        check_fits(environment, task.description)
    except (ImportError, GaitfleetError, ValueError) as error:
        connection.send(Unfit(f"{type(error).__name__}: {error}"))
        return
    except Exception:
        connection.send(Failed("startup", traceback.format_exc()))
        return
    connection.send(Ready())
    policy: NumpyPolicy | None = None
    while True:
        assignment: Assignment = connection.recv()
        if assignment.policy_body is not None:
            policy = NumpyPolicy.from_bytes(assignment.policy_body)
        act = make_actor(
            assignment.exploration,
            policy,
            task.description.action_size,
            assignment.seed,
            decisions=task.description.most_decisions,
        )
        try:
            finished = run_episode(
                environment,
                task,
                act,
                recording,
                seed=assignment.seed,
                pose=assignment.pose,
                # the second half is for systems without PR_SET_PDEATHSIG
                stopping=lambda: recording.stop or os.getppid() != parent,
            )
        except SimulatorFailure as failure:
            connection.send(Failed(failure.kind, failure.message))
            return
        except Exception:
            connection.send(Failed("exception", traceback.format_exc()))
            return
        connection.send(finished)


def task_of(specification: SimulatorSpecification) -> Task:
    """The task a simulator plays: for evaluation under the official rules."""
    task = make_task(specification.task)
    return task.for_evaluation() if specification.role == "evaluate" else task


def check_fits(environment: Environment, task: TaskDescription) -> None:
    """Hold the simulator against the task.

    Raises
    ------
    ValueError
        Naming what differs, with both values.
    """
    sizes = (
        ("state values", environment.state_size, len(task.state_layout)),
        ("action values", environment.action_size, task.action_size),
    )
    for what, actual, expected in sizes:
        if actual != expected:
            raise ValueError(f"the simulator has {actual} {what}, the task {expected}")
    for name in ("action_low", "action_high"):
        # bounds are not part of the protocol: OpenSim's are always 0 and 1
        bounds, expected_bounds = getattr(environment, name, None), getattr(task, name)
        if bounds is not None and not np.array_equal(np.asarray(bounds, np.float32), expected_bounds):
            actual_text, expected_text = np.asarray(bounds).tolist(), expected_bounds.tolist()
            raise ValueError(f"the simulator's {name} is {actual_text}, the task's {expected_text}")
