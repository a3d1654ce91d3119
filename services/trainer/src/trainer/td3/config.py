"""Hyper-parameters of TD3, with the sizes of the task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from gaitfleet.experiment import NetworkSettings, Td3Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Td3Config:
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
    target_update_rate: float
    """Polyak rate of all target networks, tau."""
    policy_delay: int
    """Critic updates for one update of the actor and of the targets, d."""
    target_noise: float
    """Standard deviation of the noise on the target policy's action."""
    target_noise_clip: float
    """That noise is clipped to plus and minus this, c."""

    @classmethod
    def resolve(cls, settings: Td3Settings, *, observation_size: int, action_size: int) -> Self:
        """The configuration that `settings` mean for a task of these sizes."""
        return cls(
            observation_size=observation_size,
            action_size=action_size,
            actor=settings.actor,
            critic=settings.critic,
            actor_learning_rate=settings.actor_learning_rate,
            critic_learning_rate=settings.critic_learning_rate,
            target_update_rate=settings.target_update_rate,
            policy_delay=settings.policy_delay,
            target_noise=settings.target_noise,
            target_noise_clip=settings.target_noise_clip,
        )
