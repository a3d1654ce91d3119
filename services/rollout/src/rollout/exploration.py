"""From observation to decision: the policy, and the noise of one episode.

All noise comes from one generator that is derived from the episode's seed, so the same seed and policy decide the same
again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from gaitfleet.experiment import ExplorationChoice
from gaitfleet.policy import NumpyPolicy
from gaitfleet.trajectory import Float32

CORRELATION_DECISIONS = 5.0
"""Time constant of correlated noise in decisions: 0.2 s at four steps of 10 ms each, about a third of a stride."""

# Streams of an episode's seed; the task has others. Gymnasium seeds a simulator with the bare number, which must not
# give the same draws.
_MIX_STREAM, _NOISE_STREAM = 1, 2

Kind = Literal["none", "sampled", "gaussian", "correlated", "uniform"]
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


def make_actor(exploration: Exploration, policy: NumpyPolicy | None, action_size: int, seed: int) -> Act:
    """A function from observation [O] to decision [A] in [-1, 1], for one episode.

    Parameters
    ----------
    policy
        None only for the kind `uniform`, which has none.
    seed
        The episode's.

    Raises
    ------
    ValueError
        When a policy is needed and there is none.
    """
    generator = np.random.default_rng([seed, _NOISE_STREAM])

    def normal() -> Float32:
        return generator.standard_normal(action_size, np.float32)

    if exploration.kind == "uniform":
        return lambda observation: generator.uniform(-1, 1, action_size).astype(np.float32)
    if policy is None:
        raise ValueError(f"exploration {exploration.kind!r} needs a policy")
    deviation = np.float32(exploration.deviation)
    match exploration.kind:
        case "none":
            return policy.act
        case "sampled":
            return lambda observation: policy.sample(observation, normal())
        case "gaussian":
            return lambda observation: np.clip(policy.act(observation) + deviation * normal(), -1, 1)
        case "correlated":
            noise = _OrnsteinUhlenbeck(deviation, normal)
            return lambda observation: np.clip(policy.act(observation) + noise(), -1, 1)


class _OrnsteinUhlenbeck:
    """Noise that forgets itself within `CORRELATION_DECISIONS`; its deviation is the same at every decision."""

    def __init__(self, deviation: np.float32, normal: Callable[[], Float32]) -> None:
        self._keep = np.float32(math.exp(-1 / CORRELATION_DECISIONS))
        self._fresh = np.float32(math.sqrt(1 - self._keep**2)) * deviation
        self._normal = normal
        self._value = deviation * normal()  # begins in its stationary distribution, not at zero

    def __call__(self) -> Float32:
        value = self._value
        self._value = self._keep * value + self._fresh * self._normal()
        return value
