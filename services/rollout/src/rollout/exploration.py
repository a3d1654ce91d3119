"""From observation to decision: the policy, and the noise of one episode.

All noise comes from one generator that is derived from the episode's seed, so the same seed and policy decide the same
again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from gaitfleet.experiment import ExplorationChoice
from gaitfleet.policy import NumpyPolicy
from gaitfleet.trajectory import Float32
from rollout.noise import OrnsteinUhlenbeck, pink_noise
from rollout.parameter_noise import perturbed

# Streams of an episode's seed; the task has others. Gymnasium seeds a simulator with the bare number, which must not
# give the same draws.
_MIX_STREAM, _NOISE_STREAM = 1, 2

Kind = Literal["none", "sampled", "gaussian", "correlated", "pink", "parameter", "uniform"]
Act = Callable[[Float32], Float32]


class Exploration(BaseModel):
    """How one episode explores."""

    model_config = ConfigDict(frozen=True)

    kind: Kind
    deviation: float = 0.0


NO_EXPLORATION = Exploration(kind="none")
UNIFORM = Exploration(kind="uniform")


def draw_exploration(mix: Sequence[ExplorationChoice], seed: int) -> Exploration:
    """The kind of exploration of the episode with this seed, by the weights of the mix."""
    weights = np.array([choice.weight for choice in mix])
    chosen = mix[np.random.default_rng([seed, _MIX_STREAM]).choice(len(mix), p=weights / weights.sum())]
    return Exploration(kind=chosen.kind, deviation=chosen.deviation)


def make_actor(
    exploration: Exploration, policy: NumpyPolicy | None, action_size: int, seed: int, *, decisions: int
) -> Act:
    """A function from observation [O] to decision [A] in [-1, 1], for one episode.

    Parameters
    ----------
    policy
        None only for the kind `uniform`, which has none.
    seed
        The episode's.
    decisions
        That an episode has at most.

    Raises
    ------
    ValueError
        When a policy is needed and there is none.
    PolicyError
        When parameter noise is asked for of a policy that was published without observations.
    """
    generator = np.random.default_rng([seed, _NOISE_STREAM])
    if exploration.kind == "uniform":
        return lambda observation: generator.uniform(-1, 1, action_size).astype(np.float32)
    if policy is None:
        raise ValueError(f"exploration {exploration.kind!r} needs a policy")
    if exploration.kind == "none":
        return policy.act
    if exploration.kind == "parameter":
        return perturbed(policy, exploration.deviation, generator).act
    noise = _noise(exploration.kind, decisions, action_size, generator)
    if exploration.kind == "sampled" or (exploration.kind == "pink" and policy.description.head == "tanh_normal"):
        return lambda observation: policy.sample(observation, noise())
    deviation = np.float32(exploration.deviation)
    return lambda observation: np.clip(policy.act(observation) + deviation * noise(), -1, 1)


def _noise(kind: Kind, decisions: int, action_size: int, generator: np.random.Generator) -> Callable[[], Float32]:
    """Noise [A] of deviation 1 for one decision after the other."""

    def normal() -> Float32:
        return generator.standard_normal(action_size, np.float32)

    match kind:
        case "correlated":
            return OrnsteinUhlenbeck(normal)
        case "pink":
            return iter(pink_noise(decisions, action_size, generator)).__next__
        case _:
            return normal
