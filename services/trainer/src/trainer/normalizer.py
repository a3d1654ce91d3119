"""Running statistics of what is learned from: of the observations, and of the returns that scale the rewards.

The policy is shipped with these statistics, so what a worker sees is what the networks learn from. They change with
every batch, as in SimBa's RSNorm: they settle like 1/n while the networks are still changing fast.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SMALLEST_STD = 1e-2
"""Least deviation, in the observation's own units (m, rad, m/s, fractions): below it a change is noise, and dividing by
it would turn a feature that was constant so far into the largest one. A feature without variance comes out as 0."""

SMALLEST_RETURN_VARIANCE = 1e-8
"""Added to the variance of the returns (SimBaV2's epsilon): rewards that are all 0 stay 0."""


@dataclass
class RunningMoments:
    """Mean and variance of everything learned from, in float64; every field travels in a checkpoint.

    All changes are in place: a CUDA graph of an update goes on with the tensors that it was recorded with.

    Parameters
    ----------
    count
        float64 []. Vectors seen.
    mean
        float64 [N].
    squares
        float64 [N]. Sum of squared deviations from the mean.
    """

    count: Tensor
    mean: Tensor
    squares: Tensor

    def merge(self, vectors: Tensor) -> None:
        """Merge a batch [B, N] (Chan et al. 1983)."""
        size = vectors.shape[0]
        exact = vectors.double()
        mean = exact.mean(0)  # [B, N] -> [N]
        squares = (exact - mean).square().sum(0)  # torch.var_mean over the first axis takes ten times as long
        total = self.count + size
        delta = mean - self.mean
        self.squares += squares + delta.square() * (self.count * size / total)
        self.mean += delta * (size / total)
        self.count.copy_(total)

    def forget(self, *, beyond: int) -> None:
        """Count what was seen as no more than this many vectors, so that what comes next soon weighs as much."""
        share = (beyond / self.count.clamp_min(1.0)).clamp_max(1.0)
        self.count *= share
        self.squares *= share


@dataclass
class Normalizer(RunningMoments):
    """Observations in units of their running deviation.

    Parameters
    ----------
    clip
        Normalised observations are clipped to plus and minus this.
    """

    clip: float

    @classmethod
    def empty(cls, observation_size: int, clip: float, device: torch.device) -> Normalizer:
        """Statistics of nothing."""
        zeros = torch.zeros(observation_size, dtype=torch.float64, device=device)
        return cls(torch.zeros((), dtype=torch.float64, device=device), zeros, zeros.clone(), clip)

    def parameters(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation as a worker gets them, float32 [O]. The deviation is 1 before the first batch."""
        std = (self.squares / self.count).sqrt().clamp_min(SMALLEST_STD)
        return self.mean.float(), torch.where(self.count > 0, std, 1.0).float()

    def normalize(self, *observations: Tensor) -> list[Tensor]:
        """Observations [B, O] in units of their deviation, clipped; the same arithmetic as `gaitfleet.policy`."""
        mean, std = self.parameters()
        inverse_std = 1.0 / std
        return [((observation - mean) * inverse_std).clamp_(-self.clip, self.clip) for observation in observations]


@dataclass
class RewardScale(RunningMoments):
    """Rewards in units in which returns have a deviation of at most 1 and stay within a bound (SimBaV2).

    Lee et al. 2025, https://arxiv.org/abs/2502.15280. They follow one environment; here the statistics are of the
    returns so far of the transitions that were learned from, which the replay API sends along.

    Parameters
    ----------
    largest
        float64 []. Largest absolute return seen, since it last forgot.
    bound
        What that return comes out as at most.
    """

    largest: Tensor
    bound: float

    @classmethod
    def empty(cls, bound: float, device: torch.device) -> RewardScale:
        """Statistics of nothing."""
        zero = torch.zeros(1, dtype=torch.float64, device=device)
        return cls(zero.squeeze(0).clone(), zero, zero.clone(), zero.squeeze(0).clone(), bound)

    def forget(self, *, beyond: int) -> None:
        """As the moments do; the largest return begins anew.

        A maximum has no weight that could fade. Each batch is seen before it is scaled, so that what is learned from
        stays within the bound, and the scale falls at once no further than to the deviation.
        """
        super().forget(beyond=beyond)
        self.largest.zero_()

    def update(self, return_so_far: Tensor) -> None:
        """Merge the returns so far of a batch, [B]."""
        self.merge(return_so_far[:, None])
        torch.maximum(self.largest, return_so_far.abs().amax().double(), out=self.largest)

    def scale(self, reward: Tensor) -> Tensor:
        """Scaled rewards, [B]."""
        deviation = (self.squares / self.count + SMALLEST_RETURN_VARIANCE).sqrt()  # [1]
        return reward / torch.maximum(deviation, self.largest / self.bound).float()
