"""Gymnasium environments behind the worker's interface give Gymnasium's own numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("gymnasium", reason="Gymnasium is not installed")

import gymnasium

from gaitfleet.experiment import parse_experiment
from gaitfleet.task import make_task
from gaitfleet.trajectory import Float32
from rollout.environments.gymnasium_environment import GymnasiumEnvironment
from rollout.recording import Recording, RecordingShape, SharedBlock
from rollout.worker import run_episode


def test_rows_and_rewards_equal_gymnasiums_own() -> None:
    own = gymnasium.make("Pendulum-v1")
    environment = GymnasiumEnvironment("gymnasium:Pendulum-v1")
    assert (environment.state_size, environment.action_size) == (3, 1)
    row = np.empty(3, np.float32)
    for seed in (7, 8, 7):
        environment.reset(seed, row)
        np.testing.assert_array_equal(row, own.reset(seed=seed)[0])
        for action in np.random.default_rng(seed).uniform(-2, 2, (50, 1)).astype(np.float32):
            observation, reward, terminated, truncated, _ = own.step(action)
            assert environment.step(action, row) == (float(reward), terminated, truncated)
            np.testing.assert_array_equal(row, observation)
    environment.close()


def test_the_registered_time_limit_does_not_interfere() -> None:
    environment = GymnasiumEnvironment("Pendulum-v1")
    row = np.empty(3, np.float32)
    environment.reset(0, row)
    for _ in range(250):  # registered: 200
        assert environment.step(np.zeros(1, np.float32), row)[1:] == (False, False)


def test_terminated_is_what_the_environment_says() -> None:
    environment = GymnasiumEnvironment("MountainCarContinuous-v0")
    row = np.empty(2, np.float32)
    environment.reset(0, row)
    ended = False
    for _ in range(500):
        push = np.array([np.sign(row[1]) or 1.0], np.float32)  # with the velocity: swings up to the goal
        _, ended, _ = environment.step(push, row)
        if ended:
            break
    assert ended
    assert row[0] >= 0.45


class Impatient(gymnasium.Env[Float32, Float32]):
    """Ends after five steps by a time limit within itself, as Meta-World's environments do."""

    observation_space = gymnasium.spaces.Box(-9, 9, (1,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, **options: Any) -> tuple[Float32, dict[str, Any]]:
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Float32) -> tuple[Float32, float, bool, bool, dict[str, Any]]:
        assert self.steps < 5, "reset it first"
        self.steps += 1
        return np.full(1, self.steps, np.float32), 1.0, False, self.steps == 5, {}


def test_an_environment_that_truncates_an_episode_itself_ends_it_there() -> None:
    gymnasium.register("Impatient-v0", lambda **_: Impatient())
    environment = GymnasiumEnvironment("Impatient-v0")
    spaces = {"observation_size": 1, "action_low": [-1], "action_high": [1], "time_limit_steps": 20}
    task = make_task(parse_experiment({"task": {"environment": "gymnasium:Impatient-v0", "spaces": spaces}}).task)
    shape = RecordingShape.of(task.description)
    recording = Recording(SharedBlock(shape.nbytes), shape)
    finished = run_episode(
        environment, task, lambda _: np.zeros(1, np.float32), recording, seed=1, stopping=lambda: False
    )
    assert (finished.ending, finished.reason, recording.steps) == ("truncated", "environment", 5)
    assert recording.reward[:5].tolist() == [1.0] * 5


@pytest.mark.parametrize("value", [-2.5, 2.1, float("nan")])
def test_actions_outside_the_bounds_are_refused(value: float) -> None:
    environment = GymnasiumEnvironment("Pendulum-v1")
    row = np.empty(3, np.float32)
    environment.reset(0, row)
    with pytest.raises(ValueError, match=r"action\[0\] is .*, not within \[-2.0, 2.0\]"):
        environment.step(np.array([value], np.float32), row)


def test_a_target_velocity_is_refused() -> None:
    environment = GymnasiumEnvironment("Pendulum-v1")
    with pytest.raises(ValueError, match="Pendulum-v1 has no target velocity"):
        environment.reset(0, np.empty(3, np.float32), np.zeros((2, 3)))


def test_discrete_actions_are_refused() -> None:
    with pytest.raises(ValueError, match="CartPole-v1: the action must be a Box, not Discrete"):
        GymnasiumEnvironment("CartPole-v1")
