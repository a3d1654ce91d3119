"""One real OpenSim episode from the worker's loop through the store to a batch: not a bit may change on the way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from gaitfleet.batch import Batch
from gaitfleet.client import ReplayClient
from gaitfleet.episode import Episode, encode_episode
from gaitfleet.trajectory import Trajectory
from rollout.environments.prosthetics import ProstheticsEnvironment
from rollout.recording import Recording, RecordingShape, SharedBlock
from rollout.worker import run_episode
from tests.replay_api.fleet import Fleet, experiment_of

STEPS = 42
"""Ten decisions of four steps, and one that the time limit cuts."""

TASK: dict[str, Any] = {
    "environment": "prosthetics",
    "model": "2D",
    "round": 2,
    "time_limit_steps": STEPS,
    "observation": {"history": 2},
    "reward": {"preset": "walk"},
}


@pytest.fixture
def fleet(api: str) -> Iterator[Fleet]:
    replay = {"min_size": 1, "samples_per_insert": 1000, "error_buffer": 100_000}
    with Fleet(api, experiment_of(task=TASK, replay=replay)) as fleet:
        yield fleet


def play(fleet: Fleet) -> tuple[Trajectory, list[np.ndarray], list[np.ndarray]]:
    """The trajectory, and what the policy saw and decided."""
    environment = ProstheticsEnvironment("2D", round=2, integrator="RungeKuttaMerson", accuracy=1e-3)
    shape = RecordingShape.of(fleet.task.description)
    recording = Recording(SharedBlock(shape.nbytes), shape)
    generator = np.random.default_rng(0)
    seen: list[np.ndarray] = []
    decided: list[np.ndarray] = []

    def act(observation: np.ndarray) -> np.ndarray:
        seen.append(observation.copy())
        decided.append(generator.uniform(-1, 1, 19).astype(np.float32))
        return decided[-1]

    finished = run_episode(environment, fleet.task, act, recording, seed=3, stopping=lambda: False)
    assert (finished.ending, finished.reason) == ("truncated", "time_limit")
    trajectory = recording.trajectory(fleet.task.target_velocities(3))
    assert trajectory is not None
    return trajectory, seen, decided


def by_decision(batches: list[Batch]) -> dict[int, tuple[Batch, int]]:
    """Every sampled transition by its place in the episode."""
    first = min(int(batch.index.min()) for batch in batches)
    return {int(index) - first: (batch, row) for batch in batches for row, index in enumerate(batch.index)}


def test_what_the_worker_saw_and_did_is_what_the_trainer_gets_bit_for_bit(fleet: Fleet) -> None:
    trajectory, seen, decided = play(fleet)
    body = encode_episode(Episode(fleet.play(steps=STEPS, seed=3).metadata, trajectory))
    with ReplayClient(fleet.url, run=fleet.run) as client:
        receipt = client.post_episode(body)
        assert receipt.transitions == len(seen) == 11
        assert client.episode_content(receipt.episode_id) == body

    transitions = by_decision(fleet.batches(batches=32, batch_size=16, discount=0.9))
    assert sorted(transitions) == list(range(11))
    rewards = fleet.task.reward(trajectory)
    last = fleet.task.observe(trajectory.state, trajectory.target_velocity, np.array([STEPS]))[0]
    for decision, (batch, row) in transitions.items():
        steps = slice(4 * decision, min(4 * decision + 4, STEPS))
        assert batch.observation[row].tobytes() == seen[decision].tobytes()
        following = seen[decision + 1] if decision < 10 else last
        assert batch.next_observation[row].tobytes() == following.tobytes()
        assert trajectory.action[4 * decision].tobytes() == fleet.task.to_simulator(decided[decision]).tobytes()
        np.testing.assert_allclose(batch.action[row], decided[decision], atol=1e-6)
        np.testing.assert_allclose(batch.reward[row], rewards[steps].astype(np.float64).sum(), rtol=1e-6)
        assert batch.discount[row] == np.float32(0.9)  # the time limit bootstraps, from the last state of all


def test_the_official_score_of_the_store_is_the_simulators(fleet: Fleet) -> None:
    trajectory, _, _ = play(fleet)
    episode = Episode(fleet.play(steps=STEPS, seed=3).metadata, trajectory)
    assert fleet.post(episode).status_code == 201
    summary = fleet.get(f"/episodes/{episode.metadata.episode_id}").json()
    assert summary["simulator_return"] == pytest.approx(float(trajectory.reward.sum(dtype=np.float64)), rel=1e-12)
    pelvis_x = trajectory.state[:, fleet.task.description.state_layout.index("body_pos/pelvis/x")]
    assert summary["distance_m"] == pytest.approx(float(pelvis_x[-1]) - float(pelvis_x[0]), abs=1e-9)
