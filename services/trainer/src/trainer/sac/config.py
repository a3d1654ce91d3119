"""Hyper-parameters of soft actor-critic, with the sizes of the task."""

from __future__ import annotations

from dataclasses import dataclass

from trainer.algorithm_config import AlgorithmConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class SacConfig(AlgorithmConfig):
    """Everything that an update needs to know; `gaitfleet.experiment.SacSettings` describes each."""

    temperature_learning_rate: float
    initial_temperature: float
    target_entropy_per_action: float
    target_update_rate: float
    critic_bins: int | None
    value_bound: float

    @property
    def target_entropy(self) -> float:
        """Entropy in nats that the temperature steers to, for the whole action vector."""
        return self.target_entropy_per_action * self.action_size
