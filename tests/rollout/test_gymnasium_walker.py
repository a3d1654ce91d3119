"""The walker as a Gymnasium environment: Gymnasium's own checks, and the numbers that a worker would have recorded."""

from __future__ import annotations

import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils import seeding
from gymnasium.utils.env_checker import check_env
from test_worker import new_recording

from gaitfleet.errors import ExperimentError
from gaitfleet.experiment import parse_experiment
from gaitfleet.task import make_task
from gaitfleet.trajectory import Float32
from rollout.environments.factory import make_environment
from rollout.gymnasium_walker import GymnasiumWalker
from rollout.worker import run_episode

MADE_BY = "rollout.gymnasium_walker:gaitfleet/Prosthetics-v0"
QUICK: dict[str, Any] = {"model": "2D", "simulator": {"integrator": "SemiExplicitEuler2"}}


def walker(**task: Any) -> GymnasiumWalker:
    environment = gymnasium.make(MADE_BY, **QUICK | task).unwrapped
    assert isinstance(environment, GymnasiumWalker)
    return environment


def test_gymnasiums_own_checks_find_nothing_but_unbounded_observations() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_env(walker(reward={"preset": "walk"}), skip_render_check=True)
    messages = [str(warning.message) for warning in caught if issubclass(warning.category, UserWarning)]
    assert len(messages) == 2
    assert all("infinity" in message for message in messages)


def test_a_decision_gives_what_a_worker_records() -> None:
    """Round 2, random holds, a shaping: observations, learned and official rewards of the same seed and decisions."""
    task = {
        "round": 2,
        "time_limit_steps": 11,
        "action": {"repeat": 2, "random_repeat": 2},
        "reward": {"preset": "walk"},
        "observation": {"history": 2},
    }
    environment = walker(**task)
    seed = int(seeding.np_random(7)[0].integers(1 << 31))
    decided, observed, rewards, official = [], [], [], []
    observation, _ = environment.reset(seed=7)
    truncated = False
    while not truncated:
        observed.append(observation)
        decided.append(np.random.default_rng(len(decided)).uniform(-1, 1, 19).astype(np.float32))
        observation, reward, terminated, truncated, info = environment.step(decided[-1])
        assert not terminated
        rewards.append(reward)
        official.append(info["official_reward"])

    settings = parse_experiment({"task": QUICK | task}).task
    functions, recording, seen = make_task(settings), new_recording(make_task(settings)), list[Float32]()

    def act(now: Float32) -> Float32:
        seen.append(now.copy())
        return decided[len(seen) - 1]

    run_episode(make_environment(settings, "train"), functions, act, recording, seed=seed, stopping=lambda: False)
    trajectory = recording.trajectory(functions.target_velocities(seed))
    assert trajectory is not None
    np.testing.assert_array_equal(np.stack(observed), np.stack(seen))
    starts = trajectory.decision_steps
    np.testing.assert_allclose(np.add.reduceat(functions.reward(trajectory), starts), rewards, rtol=1e-5)
    np.testing.assert_allclose(np.add.reduceat(trajectory.reward, starts), official, rtol=1e-5)


def test_the_time_limit_truncates_and_a_fall_terminates() -> None:
    environment = walker(time_limit_steps=6)
    environment.reset(seed=1)
    limp = -np.ones(19, np.float32)
    first, second = environment.step(limp), environment.step(limp)
    assert (first[2:4], first[4]["simulator_steps"]) == ((False, False), 4)
    assert (second[2:4], second[4]["simulator_steps"]) == ((False, True), 2)
    with pytest.raises(RuntimeError, match="reset"):
        environment.step(limp)

    environment = walker(ending={"fall_height": 0.9})
    environment.reset(seed=1)
    for _ in range(30):
        *_, terminated, truncated, info = environment.step(limp)
        if terminated or truncated:
            break
    assert (terminated, truncated) == (True, False)
    assert set(info["reward_terms"]) == {"alive", "speed_error"}


def test_a_failing_simulator_truncates_and_is_named() -> None:
    environment = walker()
    first, _ = environment.reset(seed=1)
    environment._simulator.simulator.istep = -10  # type: ignore[attr-defined]  # asks OpenSim to integrate backwards
    observation, reward, terminated, truncated, info = environment.step(np.zeros(19, np.float32))
    assert (reward, terminated, truncated, info["simulator_steps"]) == (0.0, False, True, 0)
    assert "integrator" in info["simulator_failure"]
    np.testing.assert_array_equal(observation, first)
    again, _ = environment.reset(seed=1)
    np.testing.assert_array_equal(again, first)


def test_the_seed_decides_the_episode() -> None:
    environment = walker(initial_state={"kind": "stride", "official_share": 0.0, "anneal_episodes": None})
    poses = [environment.reset(seed=seed)[1]["initial_pose"] for seed in (1, 2, 1)]
    assert poses[0] == poses[2] != poses[1]


def test_an_experiment_can_be_given_and_what_is_wrong_is_named() -> None:
    experiment = {"task": QUICK | {"action": {"repeat": 2}}, "algorithm": {"name": "td3"}}
    environment = GymnasiumWalker(experiment)
    assert environment.task.description.action_repeat == 2
    with pytest.raises(ValueError, match="not both: model"):
        GymnasiumWalker(experiment, model="2D")
    with pytest.raises(ExperimentError, match="unknown key 'modle'; did you mean 'model'"):
        GymnasiumWalker(modle="2D")
    with pytest.raises(ValueError, match="'gymnasium:Pendulum-v1', must be 'prosthetics'"):
        GymnasiumWalker(environment="gymnasium:Pendulum-v1")


def test_evaluation_plays_by_the_official_rules() -> None:
    strict = {"ending": {"fall_height": 0.9}, "initial_state": {"kind": "stride", "official_share": 0.0}}
    environment = GymnasiumWalker(evaluation=True, **QUICK | strict)
    assert environment.reset(seed=1)[1]["initial_pose"] is None
    assert environment._simulator.simulator.integrator == "RungeKuttaMerson"  # type: ignore[attr-defined]
    row = np.zeros((1, len(environment.task.description.state_layout)), np.float32)
    row[0, environment.task.description.state_layout.index("body_pos/pelvis/y")] = 0.7
    assert not environment.task.fallen(row)[0]
