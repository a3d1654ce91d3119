"""One real OpenSim episode of every model: what was seen and earned step by step is what the whole episode says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gaitfleet.experiment import ProstheticsTask
from gaitfleet.task import make_task
from gaitfleet.task.prosthetics import OBSERVATIONS
from gaitfleet.task.prosthetics_reward import PRESETS
from gaitfleet.trajectory import Float32, Trajectory
from rollout.environments.factory import make_environment
from rollout.recording import Recording, RecordingShape, SharedBlock
from rollout.worker import run_episode

STEPS = 14
SEED = 5
SIMULATOR = {"integrator": "SemiExplicitEuler2", "accuracy": 1e-3}


def settings(model: str, prosthetic: bool, **blocks: Any) -> ProstheticsTask:
    known = {"round": 2, "time_limit_steps": STEPS, "action": {"repeat": 4}, "simulator": SIMULATOR}
    return ProstheticsTask(model=model, prosthetic=prosthetic, **known | blocks)


def play(task_settings: ProstheticsTask) -> tuple[Trajectory, list[Float32]]:
    """The episode, and what its policy saw."""
    task = make_task(task_settings)
    recording = Recording(SharedBlock((shape := RecordingShape.of(task.description)).nbytes), shape)
    generator = np.random.default_rng(SEED)
    seen: list[Float32] = []

    def act(observation: Float32) -> Float32:
        seen.append(observation)
        return generator.uniform(-1, 1, task.description.action_size).astype(np.float32)

    environment = make_environment(task_settings, "train")
    run_episode(environment, task, act, recording, seed=SEED, stopping=lambda: False)
    trajectory = recording.trajectory(task.target_velocities(SEED))
    assert trajectory is not None
    assert trajectory.steps == STEPS
    return trajectory, seen


@pytest.mark.parametrize("prosthetic", [True, False])
@pytest.mark.parametrize("model", ["3D", "2D"])
def test_step_by_step_and_whole_episode_agree_bit_for_bit(model: str, prosthetic: bool) -> None:
    task_settings = settings(model, prosthetic, observation={"history": 2})
    trajectory, seen = play(task_settings)
    state, targets = trajectory.state, trajectory.target_velocity
    assert targets is not None
    stored = make_task(task_settings).observe(state, targets, trajectory.decision_steps)
    assert np.stack(seen).tobytes() == stored.tobytes()
    for observation in OBSERVATIONS:
        task = make_task(settings(model, prosthetic, observation={"preset": observation}))
        whole = task.observe(state, targets)
        assert np.isfinite(whole).all()
        for t in range(STEPS + 1):
            assert task.observe(state[: t + 1], targets[: t + 1], np.array([t]))[0].tobytes() == whole[t].tobytes()
    for reward in PRESETS:
        task = make_task(settings(model, prosthetic, reward={"preset": reward}))
        terms = task.reward_terms(trajectory)
        for t in range(STEPS):
            step = Trajectory(
                state[t : t + 2],
                trajectory.action[t : t + 1],
                trajectory.reward[t : t + 1],
                trajectory.decision[t : t + 1],
                targets[t : t + 2],
            )
            for name, term in task.reward_terms(step).items():
                assert np.isfinite(term).all()
                assert term.tobytes() == terms[name][t : t + 1].tobytes()


def test_the_official_reward_of_the_task_is_the_simulators_own() -> None:
    """osim-rl's reward, from its own code in float64, and the preset's, from the recorded float32 rows."""
    for round_ in (1, 2):
        preset = {"preset": f"round{round_}", "scale": 1.0}
        task_settings = settings("2D", True, round=round_, reward=preset)
        trajectory, _ = play(task_settings)
        np.testing.assert_allclose(make_task(task_settings).reward(trajectory), trajectory.reward, rtol=2e-6)
