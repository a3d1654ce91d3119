"""From the experiment's algorithm block to something that learns: the one place that knows every algorithm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from torch import nn

from gaitfleet.experiment import SacSettings, Td3Settings
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
    head
        How a worker turns the actor's output into an action.
    log_std_bounds
        Bounds of the log standard deviation, for a `tanh_normal` head.
    """

    state: LearningState
    learn: Callable[[Transitions], UpdateResult]
    head: Literal["deterministic", "tanh_normal"]
    log_std_bounds: tuple[float, float] = (-10.0, 2.0)


def make_algorithm(
    settings: SacSettings | Td3Settings, *, observation_size: int, action_size: int, seed: int, device: torch.device
) -> Algorithm:
    """The algorithm at its start. The same seed gives the same networks on every device."""
    initial_seed, noise_seed = (int(word) for word in np.random.SeedSequence(seed).generate_state(2))
    generator = torch.Generator(device).manual_seed(noise_seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(initial_seed)
        if isinstance(settings, SacSettings):
            sac = SacConfig.resolve(settings, observation_size=observation_size, action_size=action_size)
            sac_state = make_sac_state(sac, generator, device)
            return Algorithm(
                sac_state, lambda batch: update_sac(sac_state, batch, sac), "tanh_normal", sac.log_std_bounds
            )
        td3 = Td3Config.resolve(settings, observation_size=observation_size, action_size=action_size)
        td3_state = make_td3_state(td3, generator, device)
        return Algorithm(td3_state, lambda batch: update_td3(td3_state, batch, td3), "deterministic")
