"""State of soft actor-critic: its networks and optimisers."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from torch import nn

from trainer.networks import TwinCritics, make_network, make_optimizer, start_at
from trainer.sac.config import SacConfig


@dataclass
class SacState:
    """Everything that an update changes. Every field travels in a checkpoint (see trainer.snapshot)."""

    actor: nn.Sequential
    critics: TwinCritics
    target_critics: TwinCritics
    log_temperature: nn.Parameter
    actor_optimizer: torch.optim.Adam
    critic_optimizer: torch.optim.Adam
    temperature_optimizer: torch.optim.Adam
    generator: torch.Generator
    updates: int = 0


def make_state(config: SacConfig, generator: torch.Generator, device: torch.device) -> SacState:
    """Networks at their start, drawn from torch's global generator; `generator` draws the noise of the updates."""
    actor = make_network(config.actor, config.observation_size, 2 * config.action_size, output_gain=0.01).to(device)
    start_at(actor, config.initial_excitation, config.action_size)
    critics = TwinCritics(config.critic, config.observation_size, config.action_size).to(device)
    log_temperature = nn.Parameter(torch.full((), math.log(config.initial_temperature), device=device))
    return SacState(
        actor=actor,
        critics=critics,
        target_critics=copy.deepcopy(critics).requires_grad_(False),
        log_temperature=log_temperature,
        actor_optimizer=make_optimizer(actor.parameters(), config.actor_learning_rate),
        critic_optimizer=make_optimizer(critics.parameters(), config.critic_learning_rate),
        temperature_optimizer=make_optimizer([log_temperature], config.temperature_learning_rate),
        generator=generator,
    )
