"""Losses of CrossQ: those of soft actor-critic. What is new is where their inputs come from, see `update`.

The next action's values come from the same critics and the same forward pass as the current one's, and the targets
pass no gradient on (Bhatt et al. 2024, section 3 and figure 2).
"""

from __future__ import annotations

from trainer.sac.losses import actor_loss, critic_loss, target_q_values, temperature_loss

__all__ = ["actor_loss", "critic_loss", "target_q_values", "temperature_loss"]
