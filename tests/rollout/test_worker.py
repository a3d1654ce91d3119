"""The act, step, record loop: what the policy saw, what was recorded, and that it can be had again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from failing_environments import CountingEnvironment
from scenario import pendulum, simba_policy

from gaitfleet.experiment import Experiment, parse_experiment
from gaitfleet.policy import NumpyPolicy
from gaitfleet.task import Task, make_task
from gaitfleet.trajectory import Float32, Trajectory
from rollout.assignment import Finished
from rollout.environments.factory import make_environment
from rollout.environments.interface import Environment, SimulatorFailure
from rollout.exploration import Act, Exploration, make_actor
from rollout.recording import Recording, RecordingShape, SharedBlock
from rollout.worker import run_episode

GYMNASIUM = pendulum(steps=60, repeat=3)
OPENSIM = parse_experiment(
    {"task": {"round": 2, "time_limit_steps": 14, "action": {"repeat": 4}, "observation": {"preset": "seed-1260"}}}
)

experiments = pytest.mark.parametrize(
    "experiment",
    [
        pytest.param(GYMNASIUM, id="pendulum"),
        pytest.param(OPENSIM, id="opensim"),
    ],
)


@dataclass
class Played:
    """An episode, and what the policy saw and decided in it."""

    finished: Finished
    trajectory: Trajectory
    observations: list[Float32] = field(default_factory=list)
    decisions: list[Float32] = field(default_factory=list)


def new_recording(task: Task) -> Recording:
    shape = RecordingShape.of(task.description)
    return Recording(SharedBlock(shape.nbytes), shape)


def play(environment: Environment, task: Task, kind: Any = "sampled", *, seed: int = 5) -> Played:
    recording = new_recording(task)
    policy = NumpyPolicy.from_bytes(simba_policy(task.description))
    size, decisions_at_most = task.description.action_size, task.description.most_decisions
    act = make_actor(Exploration(kind=kind, deviation=0.2), policy, size, seed, decisions=decisions_at_most)
    observations: list[Float32] = []
    decisions: list[Float32] = []

    def watched(observation: Float32) -> Float32:
        observations.append(observation.copy())
        decisions.append(act(observation))
        return decisions[-1]

    finished = run_episode(environment, task, watched, recording, seed=seed, stopping=lambda: False)
    trajectory = recording.trajectory(task.target_velocities(seed))
    assert trajectory is not None
    return Played(finished, trajectory, observations, decisions)


@experiments
def test_the_policy_saw_exactly_what_the_stored_episode_says(experiment: Experiment) -> None:
    """One row at a time in the worker and the whole episode in the replay API give the same bits."""
    task = make_task(experiment.task)
    played = play(make_environment(experiment.task, "train"), task)
    trajectory = played.trajectory
    decided = trajectory.decision_steps
    stored = task.observe(trajectory.state, trajectory.target_velocity)[decided]
    assert np.stack(played.observations).tobytes() == stored.tobytes()
    received = task.to_simulator(np.stack(played.decisions))
    assert received.tobytes() == trajectory.action[decided].tobytes()
    assert decided.tolist() == list(range(0, trajectory.steps, experiment.task.action.repeat))


@pytest.mark.parametrize(
    ("experiment", "kind"),
    [
        *[
            pytest.param(GYMNASIUM, kind, id=f"pendulum-{kind}")
            for kind in ("sampled", "correlated", "pink", "parameter")
        ],
        *[pytest.param(OPENSIM, kind, id=f"opensim-{kind}") for kind in ("sampled", "correlated")],
    ],
)
def test_the_same_seed_and_policy_give_the_same_episode_again(experiment: Experiment, kind: str) -> None:
    task = make_task(experiment.task)
    environment = make_environment(experiment.task, "train")
    first = play(environment, task, kind).trajectory
    play(environment, task, kind, seed=6)  # what was played before must not matter
    again = play(environment, task, kind).trajectory
    other_process = play(make_environment(experiment.task, "train"), task, kind).trajectory
    for trajectory in (again, other_process):
        assert trajectory.state.tobytes() == first.state.tobytes()
        assert trajectory.action.tobytes() == first.action.tobytes()
        assert trajectory.reward.tobytes() == first.reward.tobytes()


@dataclass
class Ends:
    """Terminates, is truncated, fails or goes mad at step 3."""

    how: str
    state_size: int = 3
    action_size: int = 1
    step_number: int = 0

    def reset(self, seed: int, state: Any, target_velocity: Any = None, pose: Any = None) -> None:
        self.step_number = 0
        state[:] = np.inf if self.how == "bad first row" else 0

    def step(self, action: Any, state: Any) -> tuple[float, bool, bool]:
        self.step_number += 1
        state[:] = self.step_number
        third = self.step_number == 3
        if third and self.how == "non_finite row":
            state[1] = np.nan
        reward = np.nan if third and self.how == "non_finite reward" else 1.0
        return reward, third and self.how == "terminated", third and self.how == "truncated"

    def close(self) -> None:
        pass


def run(
    environment: Environment, task: Task, recording: Recording, stopping: Callable[[], bool] = lambda: False
) -> Finished:
    act: Act = lambda observation: np.zeros(1, np.float32)  # noqa: E731
    return run_episode(environment, task, act, recording, seed=1, stopping=stopping)


def test_the_time_limit_truncates_and_the_environment_terminates_or_truncates() -> None:
    task = make_task(GYMNASIUM.task)
    recording = new_recording(task)
    finished = run(CountingEnvironment(), task, recording)
    assert (finished.ending, finished.reason, recording.steps) == ("truncated", "time_limit", 60)
    finished = run(Ends("terminated"), task, recording)
    assert (finished.ending, finished.reason, recording.steps) == ("terminated", "environment", 3)
    finished = run(Ends("truncated"), task, recording)
    assert (finished.ending, finished.reason, recording.steps) == ("truncated", "environment", 3)


def test_a_fall_is_a_termination_of_its_own() -> None:
    class Falls(type(make_task(GYMNASIUM.task))):  # type: ignore[misc]
        def fallen(self, state: Float32) -> Any:
            return state[:, 0] >= 7

    recording = new_recording(Falls(GYMNASIUM.task))
    finished = run(CountingEnvironment(), Falls(GYMNASIUM.task), recording)
    assert (finished.ending, finished.reason, recording.steps) == ("terminated", "fall", 7)


def test_a_rule_aborts_unless_the_walker_has_fallen_too() -> None:
    class Aborts(type(make_task(GYMNASIUM.task))):  # type: ignore[misc]
        falls_at, may_abort = 9, True

        def fallen(self, state: Float32) -> Any:
            return state[:, 0] >= self.falls_at

        def aborted(self, trajectory: Trajectory) -> Any:
            return trajectory.state[1:, 0] >= 5

    task = Aborts(GYMNASIUM.task)
    recording = new_recording(task)
    finished = run(CountingEnvironment(), task, recording)
    assert (finished.ending, finished.reason, recording.steps) == ("aborted", "rule", 5)
    task.falls_at = 5
    finished = run(CountingEnvironment(), task, recording)
    assert (finished.ending, finished.reason, recording.steps) == ("terminated", "fall", 5)


@pytest.mark.parametrize("seed", [1, 2])
def test_random_holds_are_recorded_as_they_were_played(seed: int) -> None:
    """The policy is asked exactly where the record says, and what it said is held until it is asked again."""
    action = {"repeat": 1, "random_repeat": 5}
    task = make_task(parse_experiment({"task": {"environment": "gymnasium:Pendulum-v1", "action": action}}).task)
    played = play(CountingEnvironment(), task, seed=seed)
    trajectory = played.trajectory
    np.testing.assert_array_equal(trajectory.decision, task.decisions(seed))
    decided = trajectory.decision_steps
    assert np.stack(played.observations).tobytes() == trajectory.state[decided].tobytes()
    held = task.to_simulator(np.stack(played.decisions))[np.cumsum(trajectory.decision) - 1]
    assert held.tobytes() == trajectory.action.tobytes()
    assert set(np.diff(decided)) == {1, 2, 3, 4, 5, 6}


def test_only_levels_are_recorded_and_played() -> None:
    received: list[float] = []

    class Watched(CountingEnvironment):
        def step(self, action: Float32, state: Float32) -> tuple[float, bool, bool]:
            received.extend(action.tolist())
            return super().step(action, state)

    settings = {"environment": "gymnasium:Pendulum-v1", "action": {"repeat": 1, "bins": 3}}
    task = make_task(parse_experiment({"task": settings}).task)
    trajectory = play(Watched(), task).trajectory
    assert set(received) == {-2.0, 0.0, 2.0}
    assert trajectory.action.ravel().tolist() == received


def test_a_stop_ends_the_episode_before_the_next_step() -> None:
    task = make_task(GYMNASIUM.task)
    recording = new_recording(task)
    finished = run(CountingEnvironment(), task, recording, stopping=lambda: recording.steps == 9)
    assert (finished.ending, finished.reason, recording.steps) == ("truncated", "preempted", 9)


@pytest.mark.parametrize(("how", "steps"), [("bad first row", 0), ("non_finite row", 2), ("non_finite reward", 2)])
def test_a_number_that_is_not_finite_is_a_failure_and_is_not_recorded(how: str, steps: int) -> None:
    task = make_task(GYMNASIUM.task)
    recording = new_recording(task)
    with pytest.raises(SimulatorFailure) as failure:
        run(Ends(how), task, recording)
    assert failure.value.kind == "non_finite"
    assert recording.steps == steps


def test_a_policy_that_writes_to_its_observation_does_not_write_to_the_record() -> None:
    task = make_task(GYMNASIUM.task)
    recordings = [new_recording(task) for _ in range(2)]

    def scribbling(observation: Float32) -> Float32:
        observation[:] = 1e6  # Pendulum's observation is the row
        return np.zeros(1, np.float32)

    for recording, act in zip(recordings, (scribbling, lambda _: np.zeros(1, np.float32)), strict=True):
        run_episode(CountingEnvironment(), task, act, recording, seed=1, stopping=lambda: False)
    assert recordings[0].state.tobytes() == recordings[1].state.tobytes()


def test_a_task_cannot_write_to_a_recorded_row() -> None:
    class Scribbles(type(make_task(GYMNASIUM.task))):  # type: ignore[misc]
        def observe(self, state: Float32, target_velocity: Float32 | None, at: Any = None) -> Float32:
            state[0] = 1e6
            return state

    task = Scribbles(GYMNASIUM.task)
    with pytest.raises(ValueError, match="read-only"):
        run(CountingEnvironment(), task, new_recording(task))
