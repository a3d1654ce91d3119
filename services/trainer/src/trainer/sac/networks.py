"""State of soft actor-critic: its networks and optimisers, and how its actor draws an action."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from trainer.networks import TwinCritics, make_network, make_optimizer
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


def sample_action(
    actor: nn.Module, observation: Tensor, noise: Tensor, log_std_bounds: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """Reparameterised sample of the policy, and its log probability.

    Parameters
    ----------
    actor
        Network from [B, O] to mean and log standard deviation, [B, 2 A].
    observation
        [B, O], normalised.
    noise
        [B, A], standard normal.
    log_std_bounds
        The log standard deviation is clipped to these.

    Returns
    -------
    tuple
        Action [B, A] in (-1, 1), log probability [B].
    """
    mean, log_std = actor(observation).chunk(2, dim=-1)  # [B, A], [B, A]
    log_std = log_std.clamp(*log_std_bounds)
    pre_tanh = mean + log_std.exp() * noise  # [B, A]
    log_normal = -0.5 * noise.square() - log_std - 0.5 * math.log(2.0 * math.pi)
    return pre_tanh.tanh(), (log_normal - log_tanh_derivative(pre_tanh)).sum(-1)  # [B, A], [B, A] -> [B]


def log_tanh_derivative(x: Tensor) -> Tensor:
    """``log(1 - tanh(x)**2)``, in a form that stays exact where tanh rounds to 1."""
    return 2.0 * (math.log(2.0) - x - softplus(-2.0 * x))
