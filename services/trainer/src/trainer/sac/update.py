"""One update of soft actor-critic, top to bottom. Nothing in it waits for the device."""

from __future__ import annotations

import torch
from torch import Tensor

from trainer.networks import TwinCritics, descend, frozen, polyak_update
from trainer.sac import losses
from trainer.sac.config import SacConfig
from trainer.sac.networks import CategoricalCritics, SacState
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

    with torch.no_grad():
        next_action, next_log_prob = sample_action(state.actor, batch.next_observation, next_noise)  # [B, A], [B]

    # Critics: regress to the reward plus the soft value of the next observation
    arguments = batch, next_action, next_log_prob, temperature
    match state.critics, state.target_critics:
        case CategoricalCritics() as critics, CategoricalCritics() as target_critics:
            errors = _distribution_errors(critics, target_critics, *arguments)
        case critics, target_critics:
            errors = _value_errors(critics, target_critics, *arguments)
    q_values, target_q_values, critic_loss = errors  # [2, B], [B], []
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


def _value_errors(
    critics: TwinCritics,
    target_critics: TwinCritics,
    batch: Transitions,
    next_action: Tensor,
    next_log_prob: Tensor,
    temperature: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Values [2, B], their targets [B] and the loss [] of critics that predict the mean of the return."""
    with torch.no_grad():
        next_q_values = target_critics(batch.next_observation, next_action)  # [2, B]
        target_q_values = losses.target_q_values(
            batch.reward, batch.discount, next_q_values, next_log_prob, temperature
        )  # [B]
    q_values = critics(batch.observation, batch.action)  # [2, B]
    return q_values, target_q_values, losses.critic_loss(q_values, target_q_values, batch.weight)


def _distribution_errors(
    critics: CategoricalCritics,
    target_critics: CategoricalCritics,
    batch: Transitions,
    next_action: Tensor,
    next_log_prob: Tensor,
    temperature: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """The same of critics that predict its distribution; values are the means."""
    with torch.no_grad():
        next_distributions = target_critics.logits(batch.next_observation, next_action).softmax(-1)  # [2, B, N]
        target = losses.target_distributions(
            batch.reward, batch.discount, next_distributions, critics.support, -temperature * next_log_prob
        )  # [B, N]
    logits = critics.logits(batch.observation, batch.action)  # [2, B, N]
    loss = losses.distribution_loss(logits, target, batch.weight)
    return critics.mean(logits.detach().softmax(-1)), critics.mean(target), loss
