"""What learns: algorithm and normaliser of one run, without the network.

`Agent` takes batches and gives checkpoints. Where batches come from and checkpoints go to is `learner`'s business.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, fields
from typing import Any, cast

import torch
from torch import nn

from gaitfleet import policy
from gaitfleet.checkpoint import Checkpoint, decode_checkpoint, encode_checkpoint
from gaitfleet.errors import GaitfleetError
from gaitfleet.experiment import Experiment
from gaitfleet.task.registry import make_task
from gaitfleet.wire import RunDescription
from trainer.algorithms import make_algorithm
from trainer.linear import multiply_in_bf16
from trainer.networks import describe_layers, gradient_norm
from trainer.normalizer import Normalizer, RewardScale
from trainer.snapshot import CheckpointMismatchError, Counters, Tensors, adopt, capture, restore, to_arrays
from trainer.squashed_gaussian import LOG_STD_BOUNDS
from trainer.transitions import Transitions, UpdateResult

logger = logging.getLogger(__name__)

REMEMBERED_BATCHES = 1000
"""Of another task's observations and returns the statistics keep the weight of this many batches: those that still hold
do not jump, and others are right after a few thousand updates instead of never."""

RECENT_OBSERVATIONS = 64
"""Observations that are published for parameter noise: enough for a mean of its effect, a few tens of kilobytes."""


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
    bf16
        Whether its networks multiply in bfloat16.

    Raises
    ------
    TaskMismatchError
        When the run's observation is not the one that this version computes.
    """

    def __init__(self, description: RunDescription, device: torch.device, *, bf16: bool = False) -> None:
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
        if bf16:
            state = self.algorithm.state
            for network in (getattr(state, field.name) for field in fields(cast(Any, state))):
                if isinstance(network, nn.Module):
                    multiply_in_bf16(network)
        self.normalizer = Normalizer.empty(self.observation_size, settings.observation_clip, device)
        self.origin: dict[str, Any] | None = None
        """Run and step of the checkpoint that this run began with; None where it began with nothing."""
        self.stage = 0
        """Stage of the run's curriculum that it learns in."""
        self._keeps_observations = any(choice.kind == "parameter" for choice in self.experiment.exploration_mix)
        self._recent_observation: torch.Tensor | None = None
        self.reward_scale = RewardScale.empty(settings.value_bound, device) if settings.reward_scaling else None

    @property
    def updates(self) -> int:
        """Updates done in the whole run."""
        return self.algorithm.state.updates

    @property
    def publishable(self) -> bool:
        """Whether the rollouts can explore by its policy: parameter noise is measured on observations learned from."""
        return not self._keeps_observations or self._recent_observation is not None

    def learn(self, batch: Transitions) -> UpdateResult:
        """One update from a batch as it was sampled, on this agent's device."""
        if self._keeps_observations:
            self._recent_observation = batch.observation[:RECENT_OBSERVATIONS].clone()
        self.normalizer.merge(batch.observation)
        observation, next_observation = self.normalizer.normalize(batch.observation, batch.next_observation)
        reward = batch.reward
        if self.reward_scale is not None:
            self.reward_scale.update(batch.return_so_far)
            reward = self.reward_scale.scale(reward)
        return self.algorithm.learn(batch.normalized(observation, next_observation, reward))

    def gradient_norms(self) -> dict[str, torch.Tensor]:
        """Norms of the gradients that the last update left behind, by network."""
        state = self.algorithm.state
        return {"actor": gradient_norm(state.actor), "critic": gradient_norm(state.critics)}

    def snapshot(self) -> Snapshot:
        """A copy of everything, taken without waiting for the device. At least one update must have been done."""
        actor = self.algorithm.published_actor()
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
            log_std_bounds=LOG_STD_BOUNDS,
        )
        tensors: Tensors = {}
        counters: Counters = {}
        for name, part in self._parts().items():
            part_tensors, part_counters = capture(part, name)
            tensors |= part_tensors
            counters |= part_counters
        actor_tensors = {name: tensor.detach().clone() for name, tensor in actor.state_dict().items()}
        recent = (
            {} if self._recent_observation is None else {policy.RECENT_OBSERVATION: self._recent_observation.clone()}
        )
        return Snapshot(
            description=description,
            policy_tensors=actor_tensors | {"normalizer.mean": mean, "normalizer.std": std} | recent,
            trainer_tensors=tensors,
            counters=counters | {"stage": self.stage},
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
        for name, part in self._parts().items():
            restore(part, name, checkpoint.trainer_tensors, checkpoint.counters)

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
        parts = self._parts()
        scaled = any(name.startswith("reward_scale/") for name in checkpoint.trainer_tensors)
        if self.reward_scale is not None and not scaled:
            logger.info("run %r did not scale its rewards: their statistics begin anew", checkpoint.policy.run)
            del parts["reward_scale"]
        for name, part in parts.items():
            adopt(part, name, checkpoint.trainer_tensors, optimizers=optimizers)
        self._forget()
        recent = checkpoint.policy_tensors.get(policy.RECENT_OBSERVATION)
        if self._keeps_observations and recent is not None:
            self._recent_observation = torch.from_numpy(recent.copy()).to(self.device)
        self.algorithm.state.updates = 1
        self.origin = {"run": checkpoint.policy.run, "step": checkpoint.step}

    def enter(self, stage: int) -> None:
        """Learn in another stage from now on. Every batch that comes has its observation and reward already."""
        if stage != self.stage:
            self.stage = stage
            self._forget()

    def _forget(self) -> None:
        """Let another task fade from the statistics: what never moved in 2D does in 3D, and returns are others."""
        beyond = REMEMBERED_BATCHES * self.experiment.algorithm.batch_size
        self.normalizer.forget(beyond=beyond)
        if self.reward_scale is not None:
            self.reward_scale.forget(beyond=beyond)

    def _decode(self, body: bytes) -> Checkpoint:
        checkpoint = decode_checkpoint(body)
        if checkpoint.policy.observation_hash != self.observation_hash:
            raise CheckpointMismatchError(
                f"the checkpoint has {checkpoint.policy.observation_size} observation values with hash "
                f"{checkpoint.policy.observation_hash}, the run {self.observation_size} with {self.observation_hash}"
            )
        return checkpoint

    def _parts(self) -> dict[str, Any]:
        """Everything that changes with an update, as dataclasses."""
        parts = {"algorithm": self.algorithm.state, "normalizer": self.normalizer, "reward_scale": self.reward_scale}
        return {name: part for name, part in parts.items() if part is not None}
