"""One update of soft actor-critic, top to bottom. Nothing in it waits for the device."""

from __future__ import annotations

import torch

from trainer.networks import descend, frozen, polyak_update
from trainer.sac import losses
from trainer.sac.config import SacConfig
from trainer.sac.networks import SacState
from trainer.squashed_gaussian import sample_action
from trainer.transitions import Transitions, UpdateResult, critic_diagnostics


def update(state: SacState, batch: Transitions, config: SacConfig) -> UpdateResult:
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
        Errors for the priorities, and diagnostics (explained in README.md beside this file).
    """
    temperature = state.log_temperature.detach().exp()  # []
    noise, next_noise = torch.randn(
        (2, *batch.action.shape), generator=state.generator, device=batch.action.device
    )  # [B, A], [B, A]

    # Targets: reward plus the soft value of the next observation
    with torch.no_grad():
        next_action, next_log_prob = sample_action(state.actor, batch.next_observation, next_noise)  # [B, A], [B]
        next_q_values = state.target_critics(batch.next_observation, next_action)  # [2, B]
        target_q_values = losses.target_q_values(
            batch.reward, batch.discount, next_q_values, next_log_prob, temperature
        )  # [B]

    # Critics: regress to the targets
    q_values = state.critics(batch.observation, batch.action)  # [2, B]
    critic_loss = losses.critic_loss(q_values, target_q_values, batch.weight)
    descend(state.critic_optimizer, critic_loss)

    # Actor: actions of higher value and higher entropy; the critics only pass the gradient on
    action, log_prob = sample_action(state.actor, batch.observation, noise)  # [B, A], [B]
    with frozen(state.critics):
        policy_q_values = state.critics(batch.observation, action)  # [2, B]
    actor_loss = losses.actor_loss(policy_q_values, log_prob, temperature)
    descend(state.actor_optimizer, actor_loss)

    # Temperature: hold the entropy at its target
    log_prob = log_prob.detach()
    temperature_loss = losses.temperature_loss(state.log_temperature, log_prob, config.target_entropy)
    descend(state.temperature_optimizer, temperature_loss)

    # Targets follow slowly
    polyak_update(state.target_critics, state.critics, config.target_update_rate)
    state.updates += 1

    td_error, diagnostics = critic_diagnostics(q_values.detach(), target_q_values, critic_loss)
    diagnostics |= {
        "actor_loss": actor_loss.detach(),
        "temperature_loss": temperature_loss.detach(),
        "temperature": temperature,
        "entropy": -log_prob.mean(),
    }
    return UpdateResult(td_error=td_error, diagnostics=diagnostics)
