"""Episodes for the benchmarks of the replay API: one walk that OpenSim has played, under as many ids as are wanted."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

import numpy as np
import yaml

from gaitfleet.checkpoint import Checkpoint, encode_checkpoint
from gaitfleet.checksum import trajectory_checksum
from gaitfleet.episode import Episode, EpisodeMetadata, encode_episode
from gaitfleet.experiment import Experiment, ProstheticsTask, parse_experiment
from gaitfleet.identity import new_episode_id
from gaitfleet.policy import NumpyPolicy
from gaitfleet.task import make_task
from gaitfleet.trajectory import Trajectory
from rollout.one_episode import played

WALK = files("gaitfleet") / "policies"
SEED = 1
STEPS = 300


def experiment_of(**blocks: Any) -> Experiment:
    """The experiment of the recorded walk, with other blocks.

    412 numbers of state and 159 of observation a step, episodes of 300 steps.
    """
    return parse_experiment(yaml.safe_load((WALK / "walk-2d.yaml").read_text()) | blocks)


def play() -> Trajectory:
    """The walk, played by its policy in OpenSim: some seconds of work. Every step counts as a decision, so that it has
    300 transitions."""
    experiment = experiment_of()
    assert isinstance(experiment.task, ProstheticsTask)
    policy = NumpyPolicy.from_bytes((WALK / "walk-2d.safetensors").read_bytes())
    trajectory = played(policy, experiment.task, SEED).trajectory
    return replace(trajectory, decision=np.ones_like(trajectory.decision))


class Copies:
    """The same episode as if it had been played again and again, by a policy without noise: no check objects.

    Parameters
    ----------
    run
        The run that it belongs to.
    """

    def __init__(self, experiment: Experiment, trajectory: Trajectory, run: str) -> None:
        self._trajectory = trajectory
        self._checksum = trajectory_checksum(trajectory)
        self._layout_hash = make_task(experiment.task).description.state_layout.hash
        self._run = run

    def body(self, worker: str = "benchmark", policy_version: int = 0) -> bytes:
        """The body of another one, uncompressed."""
        metadata = EpisodeMetadata(
            episode_id=new_episode_id(),
            run=self._run,
            worker=worker,
            role="train",
            policy_version=policy_version,
            seed=SEED,
            layout_hash=self._layout_hash,
            ending="truncated",
            ending_reason="time_limit",
            exploration="none",
            started_at=datetime.now(UTC),
            wall_seconds=3.0,
            rows_checksum=self._checksum,
        )
        return encode_episode(Episode(metadata, self._trajectory))


def policy_checkpoint(run: str, step: int) -> bytes:
    """A checkpoint whose policy is that of the walk, some hundred kilobytes."""
    policy = NumpyPolicy.from_bytes((WALK / "walk-2d.safetensors").read_bytes())
    description = policy.description.model_copy(update={"run": run, "version": step})
    tensors = {name: tensor + np.float32(1e-6 * step) for name, tensor in policy.tensors.items()}
    return encode_checkpoint(Checkpoint(description, tensors, {"step": np.array([step])}, {"updates": step}))
