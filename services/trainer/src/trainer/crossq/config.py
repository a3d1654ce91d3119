"""Hyper-parameters of CrossQ, with the sizes of the task."""

from __future__ import annotations

from dataclasses import dataclass

from trainer.algorithm_config import AlgorithmConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossqConfig(AlgorithmConfig):
    """Everything that an update needs to know; `gaitfleet.experiment.CrossqSettings` describes each."""

    temperature_learning_rate: float
    initial_temperature: float
    target_entropy_per_action: float
    policy_delay: int
    adam_beta1: float
    renorm_momentum: float
    renorm_warmup_updates: int

    @property
    def target_entropy(self) -> float:
        """Entropy in nats that the temperature steers to, for the whole action vector."""
        return self.target_entropy_per_action * self.action_size
