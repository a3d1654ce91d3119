"""Losses of TD3 as pure functions (Fujimoto et al. 2018, algorithm 1)."""

from __future__ import annotations

from torch import Tensor


def target_q_values(reward: Tensor, discount: Tensor, next_q_values: Tensor) -> Tensor:
    """What both critics regress to: clipped double Q-learning.

    Parameters
    ----------
    reward, discount
        [B]. The discount is used as it is: gamma^k, 0 after a fall.
    next_q_values
        [2, B]. The target critics' values of the target policy's smoothed action.
    """
    return reward + discount * next_q_values.amin(0)


def critic_loss(q_values: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Weighted squared error of both critics. [2, B], [B], [B] -> []."""
    return (weight * (q_values - target).square()).mean(-1).sum()


def actor_loss(first_q_values: Tensor) -> Tensor:
    """Deterministic policy gradient through the first critic. [B] -> []."""
    return -first_q_values.mean()
