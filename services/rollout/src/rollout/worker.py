"""The act, step, record loop of one episode, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from gaitfleet.episode import Ending, EndingReason
from gaitfleet.pose import Pose
from gaitfleet.task.interface import Task, TaskDescription
from gaitfleet.trajectory import Float32, Trajectory
from rollout.assignment import Finished, PhaseSeconds
from rollout.environments.interface import Environment, check_finite
from rollout.exploration import Act
from rollout.recording import Recording


def run_episode(
    environment: Environment,
    task: Task,
    act: Act,
    recording: Recording,
    *,
    seed: int,
    stopping: Callable[[], bool],
    pose: Pose | None = None,
) -> Finished:
    """Play one episode into `recording`.

    Parameters
    ----------
    act
        Observation [O] to decision [A] in [-1, 1].
    seed
        Of the simulator, of the task's target velocities and of how long decisions are held.
    stopping
        Asked before every step; once it says yes the episode ends as truncated, preempted.
    pose
        Where it begins; None for the simulator's own pose.

    Raises
    ------
    SimulatorFailure
        When the simulator fails or a number it returns is not finite. The steps before are in the recording.
    """
    clock = time.perf_counter
    began = clock()
    description = task.description
    target_velocity, decides = task.target_velocities(seed), task.decisions(seed).tolist()
    rows, actions = _read_only(recording.state), _read_only(recording.action)
    action: Float32 = np.zeros(description.action_size, np.float32)
    ending: tuple[Ending, EndingReason] = "truncated", "time_limit"
    may_abort = task.may_abort

    _reset(environment, recording, description, seed, target_velocity, pose)
    simulating, deciding = clock() - began, 0.0
    for step in range(description.time_limit_steps):
        if stopping():
            ending = "truncated", "preempted"
            break
        deciding_since = clock()
        if decides[step]:
            target = None if target_velocity is None else target_velocity[: step + 1]
            action = task.to_simulator(act(task.observe(rows[: step + 1], target, np.array([step]))[0]))
        recording.action[step] = action
        recording.decision[step] = decides[step]
        stepping_since = clock()
        reward, terminated, truncated = environment.step(actions[step], recording.state[step + 1])
        stepped = clock()
        check_finite(rows[step + 1], reward, description.state_layout)
        recording.reward[step] = reward
        recording.step_seconds[step] = stepped - stepping_since
        recording.commit(step + 1)
        simulating += stepped - stepping_since
        deciding += stepping_since - deciding_since
        fallen = task.fallen(rows[step + 1 : step + 2])[0]
        if fallen or terminated:
            ending = "terminated", "fall" if fallen else "environment"
            break
        if may_abort and task.aborted(_last_step(recording, rows, actions, target_velocity, step))[0]:
            ending = "aborted", "rule"
            break
        if truncated:
            ending = "truncated", "environment"
            break
    wall = clock() - began
    return Finished(*ending, wall, PhaseSeconds(simulating, deciding, wall - simulating - deciding))


def _reset(
    environment: Environment,
    recording: Recording,
    description: TaskDescription,
    seed: int,
    target_velocity: Float32 | None,
    pose: Pose | None,
) -> None:
    recording.begin()
    environment.reset(seed, recording.state[0], target_velocity, pose)
    check_finite(recording.state[0], 0.0, description.state_layout)
    recording.commit(0)


def _last_step(
    recording: Recording, rows: Float32, actions: Float32, target_velocity: Float32 | None, step: int
) -> Trajectory:
    """The step that was just recorded, as an episode of one step."""
    this = slice(step, step + 1)
    both = slice(step, step + 2)
    target = None if target_velocity is None else target_velocity[both]
    return Trajectory(rows[both], actions[this], recording.reward[this], recording.decision[this], target)


def _read_only(array: Float32) -> Float32:
    """The same memory, for those who only read what was recorded."""
    view = array.view()
    view.flags.writeable = False
    return view
