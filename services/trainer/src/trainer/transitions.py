"""One batch as tensors, as every update function takes it.

Legend used in shape comments everywhere: B transitions in a batch, O observation values, A action values, H width of a
network; the leading 2 is the pair of critics.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Transitions:
    """A batch on one device.

    Parameters
    ----------
    observation, next_observation
        float32 [B, O].
    action
        float32 [B, A] in [-1, 1].
    reward
        float32 [B]. Discounted sum over the decisions of the transition.
    discount
        float32 [B]. What multiplies the bootstrap: gamma^k, and 0 where the episode terminated. Update functions use it
        as it is, so a time limit bootstraps and a fall does not.
    weight
        float32 [B]. Importance weight of the critics' loss.
    return_so_far
        float32 [B]. Discounted sum of the episode's rewards up to this decision, in the units of the reward.
    """

    observation: Tensor
    action: Tensor
    reward: Tensor
    discount: Tensor
    next_observation: Tensor
    weight: Tensor
    return_so_far: Tensor

    @classmethod
    def empty(cls, batch_size: int, observation_size: int, action_size: int, *, pinned: bool = False) -> Transitions:
        """Buffers on the host; `pinned` ones can be copied to a GPU without the host waiting."""

        def buffer(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float32, pin_memory=pinned)

        return cls(
            observation=buffer(batch_size, observation_size),
            action=buffer(batch_size, action_size),
            reward=buffer(batch_size),
            discount=buffer(batch_size),
            next_observation=buffer(batch_size, observation_size),
            weight=buffer(batch_size),
            return_so_far=buffer(batch_size),
        )

    def to(self, device: torch.device) -> Transitions:
        """The same batch on `device`; without a copy when it is there already, without waiting when it is pinned."""
        tensors = {field.name: getattr(self, field.name).to(device, non_blocking=True) for field in fields(self)}
        return Transitions(**tensors)

    def normalized(self, observation: Tensor, next_observation: Tensor, reward: Tensor) -> Transitions:
        """The same batch with other (normalised) observations and (scaled) rewards."""
        return replace(self, observation=observation, next_observation=next_observation, reward=reward)


class UpdateResult(NamedTuple):
    """What one update returns: detached tensors on the device, so that nothing has waited for it.

    Parameters
    ----------
    td_error
        [B]. Absolute temporal-difference error, the mean of both critics': the transition's new priority.
    diagnostics
        Scalars [] by name. A name may be missing from an update that did not compute it.
    """

    td_error: Tensor
    diagnostics: dict[str, Tensor]


def critic_diagnostics(
    q_values: Tensor, target_q_values: Tensor, critic_loss: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """New priorities [B], and the diagnostics that every algorithm has, from detached values [2, B] and targets [B]."""
    td_error = (q_values - target_q_values).abs().mean(0)  # [2, B] -> [B]
    diagnostics = {
        "critic_loss": critic_loss.detach(),
        "q_mean": q_values.mean(),
        "target_q_mean": target_q_values.mean(),
        "td_error_mean": td_error.mean(),
    }
    return td_error, diagnostics
