"""Hyper-parameters of TD3, with the sizes of the task."""

from __future__ import annotations

from dataclasses import dataclass

from trainer.algorithm_config import AlgorithmConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Td3Config(AlgorithmConfig):
    """Everything that an update needs to know; `gaitfleet.experiment.Td3Settings` describes each."""

    target_update_rate: float
    policy_delay: int
    target_noise: float
    target_noise_clip: float
