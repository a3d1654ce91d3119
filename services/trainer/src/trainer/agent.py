"""What learns: algorithm and normaliser of one run, without the network.

`Agent` takes batches and gives checkpoints. Where batches come from and checkpoints go to is `learner`'s business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from gaitfleet import policy
from gaitfleet.checkpoint import Checkpoint, decode_checkpoint, encode_checkpoint
from gaitfleet.errors import GaitfleetError
from gaitfleet.experiment import Experiment
from gaitfleet.task.registry import make_task
from gaitfleet.wire import RunDescription
from trainer.algorithms import make_algorithm
from trainer.networks import describe_layers, gradient_norm
from trainer.normalizer import Normalizer
from trainer.snapshot import CheckpointMismatchError, Counters, Tensors, adopt, capture, restore, to_arrays
from trainer.transitions import Transitions, UpdateResult

REMEMBERED_BATCHES = 1000
"""Of another task's observations the normaliser keeps the weight of this many batches: statistics that still hold do
not jump, and others are right after a few thousand updates instead of never."""


class TaskMismatchError(GaitfleetError):
    """This trainer computes another observation than the replay API: their versions differ."""


@dataclass(frozen=True)
class Snapshot:
    """A copy of an agent at one moment, still on its device; nothing changes it any more."""

    description: policy.PolicyDescription
    policy_tensors: Tensors
    trainer_tensors: Tensors
    counters: Counters
    origin: dict[str, Any] | None = None

    @property
    def step(self) -> int:
        """Updates done."""
        return self.description.version

    def encode(self) -> bytes:
        """The checkpoint's body.

        Raises
        ------
        NonFiniteError
            When a weight or a moment is not finite; such a checkpoint is never written.
        """
        return encode_checkpoint(
            Checkpoint(
                policy=self.description,
                policy_tensors=to_arrays(self.policy_tensors),
                trainer_tensors=to_arrays(self.trainer_tensors),
                counters=self.counters | ({} if self.origin is None else {"warm_start": self.origin}),
            )
        )


class Agent:
    """Algorithm and normaliser of one run.

    Parameters
    ----------
    description
        The run.
    device
        What it computes on.

    Raises
    ------
    TaskMismatchError
        When the run's observation is not the one that this version computes.
    """

    def __init__(self, description: RunDescription, device: torch.device) -> None:
        task = make_task(description.experiment.task_at(description.stage)).description
        if task.observation_hash != description.observation_hash:
            raise TaskMismatchError(
                f"run {description.run!r} has observation hash {description.observation_hash}, this trainer computes "
                f"{task.observation_hash}: trainer and replay API are of different versions"
            )
        self.run = description.run
        self.device = device
        self.experiment: Experiment = description.experiment
        self.observation_size, self.action_size = task.observation_size, task.action_size
        self.observation_hash = description.observation_hash
        settings = self.experiment.algorithm
        self.algorithm = make_algorithm(
            settings,
            observation_size=self.observation_size,
            action_size=self.action_size,
            seed=self.experiment.seed,
            device=device,
        )
        self.normalizer = Normalizer.empty(self.observation_size, settings.observation_clip, device)
        self.origin: dict[str, Any] | None = None
        """Run and step of the checkpoint that this run began with; None where it began with nothing."""
        self.stage = 0
        """Stage of the run's curriculum that it learns in."""

    @property
    def updates(self) -> int:
        """Updates done in the whole run."""
        return self.algorithm.state.updates

    def learn(self, batch: Transitions) -> UpdateResult:
        """One update from a batch as it was sampled, on this agent's device."""
        self.normalizer.update(batch.observation)
        observation, next_observation = self.normalizer.normalize(batch.observation, batch.next_observation)
        return self.algorithm.learn(batch.with_observations(observation, next_observation))

    def gradient_norms(self) -> dict[str, torch.Tensor]:
        """Norms of the gradients that the last update left behind, by network."""
        state = self.algorithm.state
        return {"actor": gradient_norm(state.actor), "critic": gradient_norm(state.critics)}

    def snapshot(self) -> Snapshot:
        """A copy of everything, taken without waiting for the device. At least one update must have been done."""
        actor = self.algorithm.state.actor
        mean, std = self.normalizer.parameters()
        description = policy.PolicyDescription(
            run=self.run,
            version=self.updates,
            observation_size=self.observation_size,
            action_size=self.action_size,
            observation_hash=self.observation_hash,
            observation_clip=self.normalizer.clip,
            layers=describe_layers(actor),
            head=self.algorithm.head,
            log_std_bounds=self.algorithm.log_std_bounds,
        )
        tensors, counters = capture(self.algorithm.state, "algorithm")
        more_tensors, more_counters = capture(self.normalizer, "normalizer")
        actor_tensors = {name: tensor.detach().clone() for name, tensor in actor.state_dict().items()}
        return Snapshot(
            description=description,
            policy_tensors=actor_tensors | {"normalizer.mean": mean, "normalizer.std": std},
            trainer_tensors=tensors | more_tensors,
            counters=counters | more_counters | {"stage": self.stage},
            origin=self.origin,
        )

    def restore(self, body: bytes) -> None:
        """Go on from a checkpoint, bit for bit.

        Raises
        ------
        CodecError
            When the bytes are not a checkpoint.
        CheckpointMismatchError
            When they are one of other networks.
        """
        checkpoint = self._decode(body)
        self.origin = checkpoint.counters.get("warm_start")
        self.stage = int(checkpoint.counters.get("stage", 0))
        restore(self.algorithm.state, "algorithm", checkpoint.trainer_tensors, checkpoint.counters)
        restore(self.normalizer, "normalizer", checkpoint.trainer_tensors, checkpoint.counters)

    def warm_start(self, body: bytes, *, optimizers: bool) -> None:
        """Begin with what another run has learned. It counts as the first update, so that it can be published at once.

        Raises
        ------
        CodecError
            When the bytes are not a checkpoint.
        CheckpointMismatchError
            When they are one of other networks.
        """
        checkpoint = self._decode(body)
        adopt(self.algorithm.state, "algorithm", checkpoint.trainer_tensors, optimizers=optimizers)
        adopt(self.normalizer, "normalizer", checkpoint.trainer_tensors, optimizers=optimizers)
        self._forget()
        self.algorithm.state.updates = 1
        self.origin = {"run": checkpoint.policy.run, "step": checkpoint.step}

    def enter(self, stage: int) -> None:
        """Learn in another stage from now on. Batches come with its observation and reward already."""
        if stage != self.stage:
            self.stage = stage
            self._forget()

    def _forget(self) -> None:
        """Let the observations of another task fade from the normaliser: what never moved in 2D does in 3D."""
        self.normalizer.forget(beyond=REMEMBERED_BATCHES * self.experiment.algorithm.batch_size)

    def _decode(self, body: bytes) -> Checkpoint:
        checkpoint = decode_checkpoint(body)
        if checkpoint.policy.observation_hash != self.observation_hash:
            raise CheckpointMismatchError(
                f"the checkpoint has {checkpoint.policy.observation_size} observation values with hash "
                f"{checkpoint.policy.observation_hash}, the run {self.observation_size} with {self.observation_hash}"
            )
        return checkpoint
