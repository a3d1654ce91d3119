"""Runs of noise with observations of any size, for what only depends on how many bytes there are."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np

from gaitfleet.episode import Episode, EpisodeMetadata, encode_episode
from gaitfleet.experiment import Experiment, parse_experiment
from gaitfleet.identity import new_episode_id
from gaitfleet.task import make_task
from gaitfleet.trajectory import Trajectory

EPISODE_STEPS = 300
CAPACITY = 1_000_000
"""Transitions that would fit: the priorities' tree is as deep as for a full memory."""


def experiment_of(observation_size: int, action_size: int) -> Experiment:
    """A run whose observation is its state."""
    return parse_experiment(
        {
            "task": {
                "environment": "gymnasium:Benchmark-v0",
                "spaces": {
                    "observation_size": observation_size,
                    "action_low": [0.0] * action_size,
                    "action_high": [1.0] * action_size,
                    "time_limit_steps": EPISODE_STEPS,
                },
            },
            "replay": {
                "capacity": CAPACITY,
                "min_size": 1,
                "samples_per_insert": 1,
                "error_buffer": 1e15,
                "sampling": "prioritized",
            },
        }
    )


def run_of(observation_size: int) -> str:
    return f"bench-{observation_size}"


def episode_of(experiment: Experiment, run: str, random: np.random.Generator) -> bytes:
    """The body of an episode of noise."""
    task = make_task(experiment.task).description
    metadata = EpisodeMetadata(
        episode_id=new_episode_id(),
        run=run,
        worker="benchmark",
        role="random",
        policy_version=0,
        seed=0,
        layout_hash=task.state_layout.hash,
        ending="truncated",
        ending_reason="time_limit",
        exploration="uniform",
        started_at=datetime.now(UTC),
        wall_seconds=0.0,
    )
    trajectory = Trajectory(
        state=random.normal(size=(EPISODE_STEPS + 1, task.observation_size)).astype(np.float32),
        action=random.random((EPISODE_STEPS, task.action_size)).astype(np.float32),
        reward=random.normal(size=EPISODE_STEPS).astype(np.float32),
        decision=np.ones(EPISODE_STEPS, np.uint8),
    )
    return encode_episode(Episode(metadata, trajectory))
