"""State of TD3: its networks and optimisers."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainer.networks import TwinCritics, make_network, make_optimizer, start_at
from trainer.td3.config import Td3Config


@dataclass
class Td3State:
    """Everything that an update changes. Every field travels in a checkpoint (see trainer.snapshot)."""

    actor: nn.Sequential
    target_actor: nn.Sequential
    critics: TwinCritics
    target_critics: TwinCritics
    actor_optimizer: torch.optim.Adam
    critic_optimizer: torch.optim.Adam
    generator: torch.Generator
    updates: int = 0


def make_state(config: Td3Config, generator: torch.Generator, device: torch.device) -> Td3State:
    """Networks at their start, drawn from torch's global generator; `generator` draws the noise of the updates."""
    actor = make_network(config.actor, config.observation_size, config.action_size, output_gain=0.01).to(device)
    start_at(actor, config.initial_excitation, config.action_size)
    critics = TwinCritics(config.critic, config.observation_size, config.action_size).to(device)
    return Td3State(
        actor=actor,
        target_actor=copy.deepcopy(actor).requires_grad_(False),
        critics=critics,
        target_critics=copy.deepcopy(critics).requires_grad_(False),
        actor_optimizer=make_optimizer(actor.parameters(), config.actor_learning_rate),
        critic_optimizer=make_optimizer(critics.parameters(), config.critic_learning_rate),
        generator=generator,
    )


def smoothed_action(actor: nn.Module, observation: Tensor, noise: Tensor, noise_clip: float) -> Tensor:
    """The policy's action with clipped noise, so that the target cannot exploit a narrow peak of the critics.

    [B, O], [B, A] -> [B, A] in [-1, 1].
    """
    action: Tensor = actor(observation).tanh() + noise.clamp(-noise_clip, noise_clip)
    return action.clamp(-1.0, 1.0)
