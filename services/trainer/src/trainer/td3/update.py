"""One update of TD3, top to bottom. Nothing in it waits for the device."""

from __future__ import annotations

import torch

from trainer.networks import descend, frozen, polyak_update
from trainer.td3 import losses
from trainer.td3.config import Td3Config
from trainer.td3.networks import Td3State, smoothed_action
from trainer.transitions import Transitions, UpdateResult, critic_diagnostics


def update(state: Td3State, batch: Transitions, config: Td3Config) -> UpdateResult:
    """Learn from one batch, in place.

    Parameters
    ----------
    state
        Networks, optimisers and generator; changed.
    batch
        Transitions with normalised observations.
    config
        Hyper-parameters.

    Returns
    -------
    UpdateResult
        Errors for the priorities, and diagnostics (explained in README.md beside this file). ``actor_loss`` is there
        only when the actor was updated.
    """
    # Targets: reward plus the value of the target policy's smoothed action
    with torch.no_grad():
        noise = config.target_noise * torch.randn(
            batch.action.shape, generator=state.generator, device=batch.action.device
        )  # [B, A]
        next_action = smoothed_action(
            state.target_actor, batch.next_observation, noise, config.target_noise_clip
        )  # [B, A]
        next_q_values = state.target_critics(batch.next_observation, next_action)  # [2, B]
        target_q_values = losses.target_q_values(batch.reward, batch.discount, next_q_values)  # [B]

    # Critics: regress to the targets
    q_values = state.critics(batch.observation, batch.action)  # [2, B]
    critic_loss = losses.critic_loss(q_values, target_q_values, batch.weight)
    descend(state.critic_optimizer, critic_loss)
    state.updates += 1

    td_error, diagnostics = critic_diagnostics(q_values.detach(), target_q_values, critic_loss)

    # Actor and targets: every d-th time, when the critics' error is smaller
    if state.updates % config.policy_delay == 0:
        action = state.actor(batch.observation).tanh()  # [B, A]
        with frozen(state.critics.q1):
            actor_loss = losses.actor_loss(state.critics.first(batch.observation, action))
        descend(state.actor_optimizer, actor_loss)

        polyak_update(state.target_critics, state.critics, config.target_update_rate)
        polyak_update(state.target_actor, state.actor, config.target_update_rate)
        diagnostics["actor_loss"] = actor_loss.detach()

    return UpdateResult(td_error=td_error, diagnostics=diagnostics)
