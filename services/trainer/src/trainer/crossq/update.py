"""One update of CrossQ, top to bottom. Nothing in it waits for the device."""

from __future__ import annotations

import torch

from trainer.crossq import losses
from trainer.crossq.config import CrossqConfig
from trainer.crossq.networks import CrossqState, by_running_statistics
from trainer.networks import descend, frozen
from trainer.squashed_gaussian import sample_action
from trainer.transitions import Transitions, UpdateResult, critic_diagnostics


def update(state: CrossqState, batch: Transitions, config: CrossqConfig) -> UpdateResult:
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
        Errors for the priorities, and diagnostics (explained in README.md beside this file). Those of the actor and
        the temperature are there only when these were updated.
    """
    temperature = state.log_temperature.detach().exp()  # []
    noise, next_noise = torch.randn(
        (2, *batch.action.shape), generator=state.generator, device=batch.action.device
    )  # [B, A], [B, A]

    with torch.no_grad(), by_running_statistics(state.actor):
        next_action, next_log_prob = sample_action(state.actor, batch.next_observation, next_noise)  # [B, A], [B]

    # Both pairs in one pass: policy's and replayed actions are distributed differently, and the statistics that
    # normalise them must be those of the mixture. This is what makes target networks unnecessary.
    both_q_values = state.critics(
        torch.cat([batch.observation, batch.next_observation]), torch.cat([batch.action, next_action])
    )  # [2, 2 B]
    q_values, next_q_values = both_q_values.chunk(2, dim=-1)  # [2, B], [2, B]
    target_q_values = losses.target_q_values(
        batch.reward, batch.discount, next_q_values.detach(), next_log_prob, temperature
    )  # [B]
    critic_loss = losses.critic_loss(q_values, target_q_values, batch.weight)
    descend(state.critic_optimizer, critic_loss)
    state.updates += 1

    td_error, diagnostics = critic_diagnostics(q_values.detach(), target_q_values, critic_loss)
    diagnostics["temperature"] = temperature

    # Actor and temperature: every d-th time
    if state.updates % config.policy_delay == 0:
        action, log_prob = sample_action(state.actor, batch.observation, noise)  # [B, A], [B]
        with frozen(state.critics), by_running_statistics(state.critics):
            policy_q_values = state.critics(batch.observation, action)  # [2, B]
        actor_loss = losses.actor_loss(policy_q_values, log_prob, temperature)
        descend(state.actor_optimizer, actor_loss)

        log_prob = log_prob.detach()
        temperature_loss = losses.temperature_loss(state.log_temperature, log_prob, config.target_entropy)
        descend(state.temperature_optimizer, temperature_loss)
        diagnostics |= {
            "actor_loss": actor_loss.detach(),
            "temperature_loss": temperature_loss.detach(),
            "entropy": -log_prob.mean(),
        }

    return UpdateResult(td_error=td_error, diagnostics=diagnostics)
