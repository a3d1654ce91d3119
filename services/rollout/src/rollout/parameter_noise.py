"""Exploration by another policy near this one: noise on the weights, held for a whole episode.

Plappert et al. 2018 (https://arxiv.org/abs/1706.01905): such noise depends on the state and so is consistent within an
episode. How far weights may move says nothing about how far actions do, so the size is measured in actions.
"""

from __future__ import annotations

import numpy as np

from gaitfleet.errors import PolicyError
from gaitfleet.policy import NumpyPolicy
from gaitfleet.trajectory import Float32

TOLERANCE = 0.05
"""Relative error of the action deviation at which the search ends."""

MOST_STEPS = 40
"""Steps of the search at most: 20 doublings find a scale, 20 halvings divide it finer than float32 resolves."""

FIRST_SCALE = 0.01
"""Where the search begins, relative to the weights' own deviation."""


def perturbed(policy: NumpyPolicy, deviation: float, generator: np.random.Generator) -> NumpyPolicy:
    """A policy whose actions differ from `policy`'s by `deviation` (root mean square, policy units).

    One direction is drawn for the weights and biases of all linear layers; how far to go along it is found by bisection
    on the observations that the trainer learned from last, which travel with the policy: the same policy and seed give
    the same episode again.

    Raises
    ------
    PolicyError
        When no observations came with the policy.
    """
    observations = policy.recent_observations
    if observations is None:
        raise PolicyError("parameter noise needs a policy that was published with recent observations")
    if deviation == 0:
        return policy
    direction = {name: _direction(policy.tensors[name], generator) for name in policy.linear_tensors}
    usual = policy.act(observations)

    def moved(scale: float) -> NumpyPolicy:
        changed = {name: policy.tensors[name] + np.float32(scale) * step for name, step in direction.items()}
        return NumpyPolicy(policy.description, {**policy.tensors, **changed})

    low, high, scale = 0.0, None, FIRST_SCALE
    candidate = moved(scale)
    for _ in range(MOST_STEPS):
        found = float(np.sqrt(np.square(candidate.act(observations) - usual).mean()))
        if abs(found - deviation) <= TOLERANCE * deviation:
            break
        if found > deviation:
            high = scale
        else:
            low = scale
        scale = 2.0 * scale if high is None else 0.5 * (low + high)
        candidate = moved(scale)
    return candidate


def _direction(tensor: Float32, generator: np.random.Generator) -> Float32:
    """Normal noise in units of the tensor's own size, so that no layer is drowned by another's noise."""
    size = np.float32(max(float(np.sqrt(np.square(tensor).mean())), 1e-3))
    return size * generator.standard_normal(tensor.shape, np.float32)
