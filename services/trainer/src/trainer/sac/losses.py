"""Losses of soft actor-critic as pure functions (Haarnoja et al. 2018, "Algorithms and Applications").

Equation numbers are those of arXiv:1812.05905.
"""

from __future__ import annotations

import torch
from torch import Tensor


def target_q_values(
    reward: Tensor, discount: Tensor, next_q_values: Tensor, next_log_prob: Tensor, temperature: Tensor
) -> Tensor:
    """What both critics regress to, eq. 5 and 6.

    Parameters
    ----------
    reward, discount
        [B]. The discount is used as it is: gamma^k, 0 after a fall.
    next_q_values
        [2, B]. The target critics' values of the policy's next action.
    next_log_prob
        [B]. That action's log probability.
    temperature
        []. alpha.
    """
    soft_value = next_q_values.amin(0) - temperature * next_log_prob  # [2, B] -> [B]
    return reward + discount * soft_value


def critic_loss(q_values: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Weighted squared error of both critics, eq. 5. [2, B], [B], [B] -> []."""
    return 0.5 * (weight * (q_values - target).square()).mean(-1).sum()


def target_distributions(
    reward: Tensor, discount: Tensor, next_distributions: Tensor, support: Tensor, next_entropy_bonus: Tensor
) -> Tensor:
    """What both categorical critics learn: the next distribution, moved and projected onto the bins.

    Bellemare et al. 2017, algorithm 1, with the soft value of eq. 3; of the two critics it takes the one with the lower
    mean, as SimBaV2 does.

    Parameters
    ----------
    reward, discount
        [B].
    next_distributions
        [2, B, N]. The target critics' distributions for the policy's next action.
    support
        [N]. Values of the bins, equally spaced.
    next_entropy_bonus
        [B]. Minus alpha times that action's log probability.

    Returns
    -------
    Tensor
        [B, N]. What lies beyond the bins is put into the outermost.
    """
    rows = torch.arange(len(reward), device=reward.device)
    lower = (next_distributions @ support).argmin(0)  # [2, B, N] -> [2, B] -> [B]
    distribution = next_distributions[lower, rows]  # [B, N]
    values = reward[:, None] + discount[:, None] * (support + next_entropy_bonus[:, None])  # [B, N]
    last = len(support) - 1
    position = ((values - support[0]) / (support[-1] - support[0]) * last).clamp(0, last)  # [B, N], in bins
    below = position.floor()
    share_above = position - below
    index = below.nan_to_num(0.0).long()  # NaN is no index; by its share it is in the target all the same, and found
    target = torch.zeros_like(distribution).scatter_add_(1, index, distribution * (1.0 - share_above))
    return target.scatter_add_(1, (index + 1).clamp_max(last), distribution * share_above)


def distribution_loss(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Weighted cross-entropy of both categorical critics. [2, B, N], [B, N], [B] -> []."""
    return -(weight * (target * logits.log_softmax(-1)).sum(-1)).mean(-1).sum()


def actor_loss(q_values: Tensor, log_prob: Tensor, temperature: Tensor) -> Tensor:
    """Divergence to the exponentiated values, eq. 9. [2, B], [B], [] -> []."""
    return (temperature * log_prob - q_values.amin(0)).mean()


def temperature_loss(log_temperature: Tensor, log_prob: Tensor, target_entropy: float) -> Tensor:
    """Rises while the policy is less random than `target_entropy`, eq. 18 with log alpha for alpha. [], [B] -> []."""
    return -(log_temperature * (log_prob + target_entropy)).mean()
