"""The stochastic policy of soft actor-critic and of CrossQ: a Gaussian whose sample goes through tanh."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn.functional import softplus

LOG_STD_BOUNDS = (-10.0, 2.0)
"""The log standard deviation is clipped to these, in torch and in the exported policy."""


def sample_action(actor: nn.Module, observation: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Reparameterised sample of the policy, and its log probability.

    Parameters
    ----------
    actor
        Network from [B, O] to mean and log standard deviation, [B, 2 A].
    observation
        [B, O], normalised.
    noise
        [B, A], standard normal.

    Returns
    -------
    tuple
        Action [B, A] in (-1, 1), log probability [B].
    """
    mean, log_std = actor(observation).chunk(2, dim=-1)  # [B, A], [B, A]
    log_std = log_std.clamp(*LOG_STD_BOUNDS)
    pre_tanh = mean + log_std.exp() * noise  # [B, A]
    log_normal = -0.5 * noise.square() - log_std - 0.5 * math.log(2.0 * math.pi)
    return pre_tanh.tanh(), (log_normal - log_tanh_derivative(pre_tanh)).sum(-1)  # [B, A], [B, A] -> [B]


def log_tanh_derivative(x: Tensor) -> Tensor:
    """``log(1 - tanh(x)**2)``, in a form that stays exact where tanh rounds to 1."""
    return 2.0 * (math.log(2.0) - x - softplus(-2.0 * x))
