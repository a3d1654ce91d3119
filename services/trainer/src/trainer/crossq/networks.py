"""State of CrossQ: networks with batch renormalisation and their optimisers; and the actor without it, for the workers.

A network is ``renorm, (linear, ReLU, renorm) x blocks, linear``: inputs and every hidden layer are normalised, after
the activation as in the authors' code.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainer.crossq.config import CrossqConfig
from trainer.networks import TwinCritics, make_network, make_optimizer, start_at

LARGEST_SCALE, LARGEST_SHIFT = 3.0, 5.0
"""Bounds of the correction of a batch's statistics, r_max and d_max of Ioffe 2017."""

EPSILON = 1e-3
"""Added to variances; a unit that never fires has none."""


class BatchRenorm(nn.Module):
    """Batch renormalisation (Ioffe 2017): in training, a batch's own statistics pulled towards the running ones.

    Parameters
    ----------
    size
        Length of the vectors, H.
    momentum
        What the running statistics keep in an update.
    warmup_updates
        Before so many updates it is plain batch normalisation: the running statistics are not settled yet.
    """

    running_mean: Tensor
    running_variance: Tensor
    updates: Tensor

    def __init__(self, size: int, momentum: float, warmup_updates: int) -> None:
        super().__init__()
        self.momentum, self.warmup_updates = momentum, warmup_updates
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size))
        self.register_buffer("running_mean", torch.zeros(size))
        self.register_buffer("running_variance", torch.ones(size))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        """Normalised vectors, [B, H]; in training the running statistics move."""
        if not self.training:
            scale, shift = self.affine()
            return x * scale + shift
        # torch's own kernel gives the batch's statistics, too: [B, H] -> [B, H], [H], [H]
        normalized, mean, inverse_std = torch.native_batch_norm(x, None, None, None, None, True, 0.0, EPSILON)
        with torch.no_grad():
            inverse_running_std = (self.running_variance + EPSILON).rsqrt()
            settled = self.updates >= self.warmup_updates
            r = (inverse_running_std / inverse_std).clamp(1.0 / LARGEST_SCALE, LARGEST_SCALE)
            d = ((mean - self.running_mean) * inverse_running_std).clamp(-LARGEST_SHIFT, LARGEST_SHIFT)
            r, d = torch.where(settled, r, 1.0), torch.where(settled, d, 0.0)
            variance = (inverse_std.square().reciprocal() - EPSILON).clamp_min(0.0)
            self.running_mean.lerp_(mean, 1.0 - self.momentum)
            self.running_variance.lerp_(variance, 1.0 - self.momentum)
            self.updates += 1
        return normalized * (r * self.weight) + (d * self.weight + self.bias)

    def affine(self) -> tuple[Tensor, Tensor]:
        """Scale and shift that it amounts to by the running statistics, [H] and [H]."""
        scale = self.weight * (self.running_variance + EPSILON).rsqrt()
        return scale, self.bias - self.running_mean * scale


@dataclass
class CrossqState:
    """Everything that an update changes. Every field travels in a checkpoint (see trainer.snapshot)."""

    actor: nn.Sequential
    critics: TwinCritics
    log_temperature: nn.Parameter
    actor_optimizer: torch.optim.Adam
    critic_optimizer: torch.optim.Adam
    temperature_optimizer: torch.optim.Adam
    generator: torch.Generator
    updates: int = 0


def make_state(config: CrossqConfig, generator: torch.Generator, device: torch.device) -> CrossqState:
    """Networks at their start, drawn from torch's global generator; `generator` draws the noise of the updates."""
    actor = make_network(config.actor, config.observation_size, 2 * config.action_size, output_gain=0.01)
    start_at(actor, config.initial_excitation, config.action_size)
    actor = renormalized(actor, config).to(device)
    critics = TwinCritics(config.critic, config.observation_size, config.action_size)
    critics.q1, critics.q2 = renormalized(critics.q1, config), renormalized(critics.q2, config)
    critics.to(device)
    log_temperature = nn.Parameter(torch.full((), math.log(config.initial_temperature), device=device))
    betas = (config.adam_beta1, 0.999)
    return CrossqState(
        actor=actor,
        critics=critics,
        log_temperature=log_temperature,
        actor_optimizer=make_optimizer(actor.parameters(), config.actor_learning_rate, betas),
        critic_optimizer=make_optimizer(critics.parameters(), config.critic_learning_rate, betas),
        temperature_optimizer=make_optimizer([log_temperature], config.temperature_learning_rate),
        generator=generator,
    )


def renormalized(network: nn.Sequential, config: CrossqConfig) -> nn.Sequential:
    """The same layers with batch renormalisation before every linear one."""
    result = nn.Sequential()
    for name, layer in network.named_children():
        if isinstance(layer, nn.Linear):
            renorm = BatchRenorm(layer.in_features, config.renorm_momentum, config.renorm_warmup_updates)
            result.add_module(f"{name}_renorm", renorm)
        result.add_module(name, layer)
    return result


@torch.no_grad()
def folded(network: nn.Sequential) -> nn.Sequential:
    """A network of linear layers alone that computes what `network` does by its running statistics.

    Each renormalisation is affine then, and goes into the linear layer after it:
    ``W (scale x + shift) + b = (W scale) x + (W shift + b)``, in float64.
    """
    result = nn.Sequential()
    scale = shift = torch.zeros(())
    for name, layer in network.named_children():
        match layer:
            case BatchRenorm():
                scale, shift = (part.double() for part in layer.affine())
            case nn.Linear():
                plain = copy.deepcopy(layer)
                weight = layer.weight.double()
                plain.weight.copy_(weight * scale)
                plain.bias.copy_(layer.bias.double() + weight @ shift)
                result.add_module(name, plain)
            case _:
                result.add_module(name, layer)
    return result


@contextmanager
def by_running_statistics(module: nn.Module) -> Iterator[None]:
    """Let `module` normalise by its running statistics, which do not move meanwhile."""
    module.eval()
    try:
        yield
    finally:
        module.train()
