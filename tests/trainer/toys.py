"""Small runs and batches that the tests share."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch

from gaitfleet.batch import Batch
from gaitfleet.experiment import Experiment, parse_experiment
from gaitfleet.task.registry import make_task
from gaitfleet.wire import BatchRequest, RunDescription
from tests.trainer.stub_replay_api import random_batch
from trainer.agent import Agent
from trainer.transitions import Transitions

CPU = torch.device("cpu")
SMALL = {"kind": "simba", "hidden_size": 16, "blocks": 1}


def small_experiment(name: str = "sac", *, algorithm: dict[str, Any] | None = None, **changes: Any) -> Experiment:
    """A run of Pendulum-v1 with small networks; `algorithm` and `changes` are blocks of the experiment file."""
    small = SMALL | {"kind": "mlp"} if name == "crossq" else SMALL
    block = {"name": name, "batch_size": 32, "actor": small, "critic": small} | (algorithm or {})
    return parse_experiment({"task": {"environment": "gymnasium:Pendulum-v1"}, "algorithm": block, **changes})


def describe(experiment: Experiment, run: str = "toy") -> RunDescription:
    """What the replay API says of a run of `experiment`."""
    task = make_task(experiment.task).description
    return RunDescription(
        run=run,
        experiment=experiment,
        experiment_hash=experiment.hash,
        layout_hash=task.state_layout.hash,
        observation_hash=task.observation_hash,
        created_at=datetime.now(UTC),
    )


def small_agent(name: str = "sac", **changes: Any) -> Agent:
    """An agent at its start."""
    return Agent(describe(small_experiment(name, **changes)), CPU)


def noise_transitions(number: int, batch_size: int = 32) -> Transitions:
    """The n-th batch of noise for Pendulum-v1."""
    return as_transitions(random_batch(number, BatchRequest(batch_size=batch_size, discount=0.97)))


def as_transitions(batch: Batch) -> Transitions:
    """A batch as tensors."""
    names = ("observation", "action", "reward", "discount", "next_observation", "weight", "return_so_far")
    return Transitions(**{name: torch.from_numpy(np.array(getattr(batch, name))) for name in names})
