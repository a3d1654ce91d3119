"""Running mean and deviation of the observations.

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


@dataclass
class Normalizer:
    """Statistics of everything learned from, in float64; every field travels in a checkpoint.

    Parameters
    ----------
    count
        float64 []. Observations seen.
    mean
        float64 [O].
    squares
        float64 [O]. Sum of squared deviations from the mean.
    clip
        Normalised observations are clipped to plus and minus this.
    """

    count: Tensor
    mean: Tensor
    squares: Tensor
    clip: float

    @classmethod
    def empty(cls, observation_size: int, clip: float, device: torch.device) -> Normalizer:
        """Statistics of nothing."""
        zeros = torch.zeros(observation_size, dtype=torch.float64, device=device)
        return cls(torch.zeros((), dtype=torch.float64, device=device), zeros, zeros.clone(), clip)

    def update(self, observation: Tensor) -> None:
        """Merge a batch [B, O] (Chan et al. 1983)."""
        size = observation.shape[0]
        exact = observation.double()
        mean = exact.mean(0)  # [B, O] -> [O]
        squares = (exact - mean).square().sum(0)  # torch.var_mean over the first axis takes ten times as long
        total = self.count + size
        delta = mean - self.mean
        self.squares += squares + delta.square() * (self.count * size / total)
        self.mean += delta * (size / total)
        self.count = total

    def forget(self, *, beyond: int) -> None:
        """Count what was seen as no more than this many observations, so that what comes next soon weighs as much."""
        share = (beyond / self.count.clamp_min(1.0)).clamp_max(1.0)
        self.count = self.count * share
        self.squares *= share

    def parameters(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation as a worker gets them, float32 [O]. The deviation is 1 before the first batch."""
        std = (self.squares / self.count).sqrt().clamp_min(SMALLEST_STD)
        return self.mean.float(), torch.where(self.count > 0, std, 1.0).float()

    def normalize(self, *observations: Tensor) -> list[Tensor]:
        """Observations [B, O] in units of their deviation, clipped; the same arithmetic as `gaitfleet.policy`."""
        mean, std = self.parameters()
        inverse_std = 1.0 / std
        return [((observation - mean) * inverse_std).clamp_(-self.clip, self.clip) for observation in observations]
