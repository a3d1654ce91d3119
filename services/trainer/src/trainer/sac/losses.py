"""Losses of soft actor-critic as pure functions (Haarnoja et al. 2018, "Algorithms and Applications").

Equation numbers are those of arXiv:1812.05905.
"""

from __future__ import annotations

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


def actor_loss(q_values: Tensor, log_prob: Tensor, temperature: Tensor) -> Tensor:
    """Divergence to the exponentiated values, eq. 9. [2, B], [B], [] -> []."""
    return (temperature * log_prob - q_values.amin(0)).mean()


def temperature_loss(log_temperature: Tensor, log_prob: Tensor, target_entropy: float) -> Tensor:
    """Rises while the policy is less random than `target_entropy`, eq. 18 with log alpha for alpha. [], [B] -> []."""
    return -(log_temperature * (log_prob + target_entropy)).mean()
