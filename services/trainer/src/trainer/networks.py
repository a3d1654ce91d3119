"""Networks that the algorithms share, and their export to what a worker evaluates in numpy.

A network is a `Sequential` of `Linear`, `ReLU`, `LayerNorm` and `ResidualBlock`: exactly the layers that
`gaitfleet.policy` knows, under the same names, so that an actor is exported by walking over its children.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from gaitfleet import policy
from gaitfleet.experiment import NetworkSettings
from trainer.linear import Linear

EXPANSION = 4
"""A residual block's inner width over its outer one, as in a transformer (Lee et al. 2025, section 4.2)."""


class ResidualBlock(nn.Sequential):
    """SimBa's block: ``x + Linear(ReLU(Linear(LayerNorm(x))))`` with an inner width of 4 H."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.add_module("norm", nn.LayerNorm(hidden_size))
        self.add_module("expand", _initialized(Linear(hidden_size, EXPANSION * hidden_size), "he"))
        self.add_module("relu", nn.ReLU())
        self.add_module("contract", _initialized(Linear(EXPANSION * hidden_size, hidden_size), "he"))

    def forward(self, x: Tensor) -> Tensor:
        branch = x
        for layer in self:
            branch = layer(branch)
        return x + branch


def make_network(
    settings: NetworkSettings, input_size: int, output_size: int, *, output_gain: float = 1.0
) -> nn.Sequential:
    """A network from [B, input] to [B, output].

    Parameters
    ----------
    settings
        ``mlp``: `blocks` linear layers with ReLU and a linear head. ``simba``: a linear layer, `blocks` residual
        blocks, a final LayerNorm and a linear head.
    input_size, output_size
        Lengths of the vectors.
    output_gain
        Gain of the head's orthogonal initialisation; small for an actor, so that it starts in the middle of its range.
    """
    hidden = settings.hidden_size
    network = nn.Sequential()
    if settings.kind == "mlp":
        size = input_size
        for block in range(settings.blocks):
            network.add_module(f"hidden_{block}", _initialized(Linear(size, hidden), "he"))
            network.add_module(f"relu_{block}", nn.ReLU())
            size = hidden
    else:
        network.add_module("input", _initialized(Linear(input_size, hidden), "orthogonal"))
        for block in range(settings.blocks):
            network.add_module(f"block_{block}", ResidualBlock(hidden))
        network.add_module("norm", nn.LayerNorm(hidden))
    network.add_module("head", _initialized(Linear(hidden, output_size), "orthogonal", gain=output_gain))
    return network


@torch.no_grad()
def start_at(actor: nn.Sequential, excitation: float | None, action_size: int) -> None:
    """Let the mean action begin at `excitation`, from 0 (lowest) to 1 (highest); None leaves it in the middle.

    The head's bias does it: ``tanh(bias) = 2 excitation - 1``. A log standard deviation behind the means stays.
    """
    if excitation is not None:
        actor.get_submodule("head").get_parameter("bias")[:action_size] = math.atanh(2.0 * excitation - 1.0)


class TwinCritics(nn.Module):
    """Two independent action-value functions of the same shape (Fujimoto et al. 2018, clipped double Q-learning).

    They are two networks and not one with a leading axis of 2: on a CPU one batched product is no faster than two, and
    it would keep them off the faster library (see `trainer.linear`).
    """

    def __init__(
        self, settings: NetworkSettings, observation_size: int, action_size: int, *, output_size: int = 1
    ) -> None:
        super().__init__()
        self.q1 = make_network(settings, observation_size + action_size, output_size)
        self.q2 = make_network(settings, observation_size + action_size, output_size)

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        """Both values of each pair, [2, B]."""
        x = torch.cat([observation, action], dim=-1)  # [B, O + A]
        return torch.stack([self.q1(x), self.q2(x)]).squeeze(-1)

    def first(self, observation: Tensor, action: Tensor) -> Tensor:
        """The first critic's value of each pair, [B]."""
        values: Tensor = self.q1(torch.cat([observation, action], dim=-1))
        return values.squeeze(-1)


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Let gradients pass through `module` without computing those of its own parameters: a third of the work saved."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)


@torch.no_grad()
def polyak_update(target: nn.Module, source: nn.Module, rate: float) -> None:
    """Move every parameter of `target` by `rate` of the way to `source`, in place."""
    torch._foreach_lerp_(list(target.parameters()), list(source.parameters()), rate)


def make_optimizer(
    parameters: Iterator[nn.Parameter] | list[nn.Parameter],
    learning_rate: float,
    betas: tuple[float, float] = (0.9, 0.999),
) -> torch.optim.Adam:
    """Adam in one fused pass over the parameters: on a CPU 8 to 10 % more updates per second than with `foreach`."""
    return torch.optim.Adam(parameters, lr=learning_rate, betas=betas, fused=True)


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step of `optimizer` down the gradient of `loss`."""
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def gradient_norm(module: nn.Module) -> Tensor:
    """Euclidean norm of the gradients that the last update left behind, []. Zero before the first."""
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    if not gradients:
        return torch.zeros((), device=next(module.parameters()).device)
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    return norm


def describe_layers(network: nn.Sequential, prefix: str = "") -> tuple[policy.Layer, ...]:
    """The network as `gaitfleet.policy` describes it; tensors keep the names they have in its ``state_dict``.

    Raises
    ------
    TypeError
        When the network holds a layer that a worker could not evaluate.
    """
    return tuple(_describe(prefix + name, module) for name, module in network.named_children())


def _describe(name: str, module: nn.Module) -> policy.Layer:
    match module:
        case nn.Linear():
            return policy.Linear(name=name)
        case nn.LayerNorm(eps=epsilon):
            return policy.LayerNorm(name=name, epsilon=epsilon)
        case nn.ReLU():
            return policy.Activation(kind="relu")
        case ResidualBlock():
            inner = describe_layers(module, f"{name}.")
            return policy.Residual.model_validate({"layers": [layer.model_dump() for layer in inner]})
    raise TypeError(f"layer {name!r} is a {type(module).__name__}, which gaitfleet.policy does not know")


def _initialized(layer: Linear, scheme: Literal["he", "orthogonal"], *, gain: float = 1.0) -> Linear:
    if scheme == "he":
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    else:
        nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer
