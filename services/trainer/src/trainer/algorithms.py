"""From the experiment's algorithm block to something that learns: the one place that knows every algorithm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from torch import nn

from gaitfleet.experiment import CrossqSettings, SacSettings, Td3Settings
from trainer.crossq.config import CrossqConfig
from trainer.crossq.networks import folded
from trainer.crossq.networks import make_state as make_crossq_state
from trainer.crossq.update import update as update_crossq
from trainer.networks import TwinCritics
from trainer.sac.config import SacConfig
from trainer.sac.networks import make_state as make_sac_state
from trainer.sac.update import update as update_sac
from trainer.td3.config import Td3Config
from trainer.td3.networks import make_state as make_td3_state
from trainer.td3.update import update as update_td3
from trainer.transitions import Transitions, UpdateResult


class LearningState(Protocol):
    """What every algorithm's state has; it is a dataclass, and every field of it travels in a checkpoint."""

    actor: nn.Sequential
    critics: TwinCritics
    actor_optimizer: torch.optim.Adam
    critic_optimizer: torch.optim.Adam
    generator: torch.Generator
    updates: int


@dataclass(frozen=True)
class Algorithm:
    """An algorithm with its state.

    Parameters
    ----------
    state
        Everything that an update changes.
    learn
        One update, in place, from transitions with normalised observations.
    published_actor
        The actor as the workers get it, of layers that `gaitfleet.policy` knows; may share tensors with the state.
    head
        How a worker turns the actor's output into an action.
    policy_delay
        Every so many updates the actor is updated, too.
    """

    state: LearningState
    learn: Callable[[Transitions], UpdateResult]
    published_actor: Callable[[], nn.Sequential]
    head: Literal["deterministic", "tanh_normal"]
    policy_delay: int = 1

    def next_update_has_actor(self) -> bool:
        """Whether the next update is one of the actor, too, and not of the critics alone."""
        return (self.state.updates + 1) % self.policy_delay == 0


def make_algorithm(
    settings: SacSettings | CrossqSettings | Td3Settings,
    *,
    observation_size: int,
    action_size: int,
    seed: int,
    device: torch.device,
) -> Algorithm:
    """The algorithm at its start. The same seed gives the same networks on every device."""
    initial_seed, noise_seed = (int(word) for word in np.random.SeedSequence(seed).generate_state(2))
    generator = torch.Generator(device).manual_seed(noise_seed)
    sizes = {"observation_size": observation_size, "action_size": action_size}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(initial_seed)
        match settings:
            case SacSettings():
                return _sac(SacConfig.resolve(settings, **sizes), generator, device)
            case CrossqSettings():
                return _crossq(CrossqConfig.resolve(settings, **sizes), generator, device)
            case Td3Settings():
                return _td3(Td3Config.resolve(settings, **sizes), generator, device)


def _sac(config: SacConfig, generator: torch.Generator, device: torch.device) -> Algorithm:
    state = make_sac_state(config, generator, device)
    return Algorithm(state, lambda batch: update_sac(state, batch, config), lambda: state.actor, "tanh_normal")


def _crossq(config: CrossqConfig, generator: torch.Generator, device: torch.device) -> Algorithm:
    state = make_crossq_state(config, generator, device)
    return Algorithm(
        state,
        lambda batch: update_crossq(state, batch, config),
        lambda: folded(state.actor),
        "tanh_normal",
        config.policy_delay,
    )


def _td3(config: Td3Config, generator: torch.Generator, device: torch.device) -> Algorithm:
    state = make_td3_state(config, generator, device)
    return Algorithm(
        state,
        lambda batch: update_td3(state, batch, config),
        lambda: state.actor,
        "deterministic",
        config.policy_delay,
    )
