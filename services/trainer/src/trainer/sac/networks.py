"""State of soft actor-critic: its networks and optimisers."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gaitfleet.experiment import NetworkSettings
from trainer.networks import TwinCritics, make_network, make_optimizer, start_at
from trainer.sac.config import SacConfig


class CategoricalCritics(TwinCritics):
    """Two critics of how the return is distributed over N equally spaced values (Bellemare et al. 2017).

    Parameters
    ----------
    bins, bound
        N, and the value of the last; the first is its negative.
    """

    support: Tensor

    def __init__(
        self, settings: NetworkSettings, observation_size: int, action_size: int, *, bins: int, bound: float
    ) -> None:
        super().__init__(settings, observation_size, action_size, output_size=bins)
        self.register_buffer("support", torch.linspace(-bound, bound, bins), persistent=False)

    def logits(self, observation: Tensor, action: Tensor) -> Tensor:
        """Both unnormalised log distributions of each pair, [2, B, N]."""
        x = torch.cat([observation, action], dim=-1)  # [B, O + A]
        return torch.stack([self.q1(x), self.q2(x)])

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        """Both means of each pair, [2, B]."""
        return self.mean(self.logits(observation, action).softmax(-1))

    def mean(self, distribution: Tensor) -> Tensor:
        """Mean of distributions, [..., N] -> [...]."""
        return distribution @ self.support


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
    critics = _make_critics(config).to(device)
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


def _make_critics(config: SacConfig) -> TwinCritics:
    sizes = config.observation_size, config.action_size
    if config.critic_bins is None:
        return TwinCritics(config.critic, *sizes)
    return CategoricalCritics(config.critic, *sizes, bins=config.critic_bins, bound=config.value_bound)
