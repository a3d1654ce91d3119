"""Hyper-parameters of soft actor-critic, with the sizes of the task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from gaitfleet.experiment import NetworkSettings, SacSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class SacConfig:
    """Everything that an update needs to know."""

    observation_size: int
    """Length of the observation, O."""
    action_size: int
    """Length of the action, A."""
    actor: NetworkSettings
    """Shape of the actor's network."""
    critic: NetworkSettings
    """Shape of each critic's network."""
    actor_learning_rate: float
    """Adam's step size for the actor."""
    critic_learning_rate: float
    """Adam's step size for both critics."""
    temperature_learning_rate: float
    """Adam's step size for the logarithm of the temperature."""
    initial_temperature: float
    """Entropy temperature at the start, alpha."""
    target_entropy: float
    """Entropy in nats that the temperature steers to, for the whole action vector."""
    target_update_rate: float
    """Polyak rate of the target critics, tau."""
    log_std_bounds: tuple[float, float] = (-10.0, 2.0)
    """The log standard deviation is clipped to these, in torch and in the exported policy."""

    @classmethod
    def resolve(cls, settings: SacSettings, *, observation_size: int, action_size: int) -> Self:
        """The configuration that `settings` mean for a task of these sizes."""
        return cls(
            observation_size=observation_size,
            action_size=action_size,
            actor=settings.actor,
            critic=settings.critic,
            actor_learning_rate=settings.actor_learning_rate,
            critic_learning_rate=settings.critic_learning_rate,
            temperature_learning_rate=settings.temperature_learning_rate,
            initial_temperature=settings.initial_temperature,
            target_entropy=settings.target_entropy_per_action * action_size,
            target_update_rate=settings.target_update_rate,
        )
