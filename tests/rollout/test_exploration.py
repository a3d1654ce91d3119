"""The kinds of noise, by their statistics."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from scenario import pendulum, simba_policy

from gaitfleet.experiment import ExplorationChoice
from gaitfleet.policy import NumpyPolicy
from gaitfleet.task import make_task
from gaitfleet.trajectory import Float32
from rollout.exploration import (
    CORRELATION_DECISIONS,
    NO_EXPLORATION,
    UNIFORM,
    Exploration,
    draw_exploration,
    make_actor,
)

OBSERVATION = np.array([0.1, -0.2, 0.3], np.float32)


class Still:
    """A policy that always decides 0."""

    def act(self, observation: Float32) -> Float32:
        return np.zeros(2, np.float32)


def decisions(kind: Any, count: int, *, deviation: float = 0.1, seed: int = 0) -> Float32:
    act = make_actor(Exploration(kind=kind, deviation=deviation), Still(), 2, seed)  # type: ignore[arg-type]
    return np.stack([act(OBSERVATION) for _ in range(count)])


def test_gaussian_noise_has_the_deviation_asked_for_and_no_memory() -> None:
    noise = decisions("gaussian", 20_000)
    assert noise.std() == pytest.approx(0.1, rel=0.02)
    assert abs(np.corrcoef(noise[:-1, 0], noise[1:, 0])[0, 1]) < 0.03


def test_correlated_noise_has_the_same_deviation_and_forgets_within_its_time_constant() -> None:
    noise = decisions("correlated", 40_000)
    assert noise.std() == pytest.approx(0.1, rel=0.05)
    lag = int(CORRELATION_DECISIONS)
    assert np.corrcoef(noise[:-lag, 0], noise[lag:, 0])[0, 1] == pytest.approx(np.exp(-1), abs=0.05)


def test_correlated_noise_is_as_strong_at_the_first_decision() -> None:
    first = np.stack([decisions("correlated", 1, seed=seed)[0] for seed in range(2_000)])
    assert first.std() == pytest.approx(0.1, rel=0.05)


def test_decisions_stay_within_the_policy_s_bounds() -> None:
    for kind in ("gaussian", "correlated"):
        assert np.abs(decisions(kind, 1000, deviation=2.0)).max() == 1.0


def test_uniform_decisions_need_no_policy() -> None:
    act = make_actor(UNIFORM, None, 2, 0)
    drawn = np.stack([act(OBSERVATION) for _ in range(5_000)])
    assert drawn.dtype == np.float32
    assert (drawn.min(), drawn.max()) == pytest.approx((-1, 1), abs=0.01)
    assert drawn.std() == pytest.approx(1 / np.sqrt(3), rel=0.02)


def test_other_kinds_need_one() -> None:
    with pytest.raises(ValueError, match="needs a policy"):
        make_actor(NO_EXPLORATION, None, 2, 0)


def test_the_policy_s_own_sample_is_drawn_around_its_mean() -> None:
    policy = NumpyPolicy.from_bytes(simba_policy(make_task(pendulum().task).description))
    act = make_actor(Exploration(kind="sampled"), policy, 1, 0)
    mean, log_std = policy.distribution(OBSERVATION)
    drawn = np.arctanh(np.clip([act(OBSERVATION)[0] for _ in range(5_000)], -0.999999, 0.999999))
    assert np.median(drawn) == pytest.approx(mean[0], abs=4 * float(np.exp(log_std[0])) / np.sqrt(5_000))
    still = make_actor(NO_EXPLORATION, policy, 1, 0)
    assert np.array_equal(still(OBSERVATION), policy.act(OBSERVATION))


def test_the_mix_is_drawn_by_its_weights_and_again_by_the_seed() -> None:
    mix = [ExplorationChoice(kind="none", weight=1), ExplorationChoice(kind="correlated", weight=3, deviation=0.3)]
    drawn = [draw_exploration(mix, seed) for seed in range(4_000)]
    assert Counter(choice.kind for choice in drawn)["correlated"] == pytest.approx(3_000, abs=100)
    assert drawn == [draw_exploration(mix, seed) for seed in range(4_000)]
    assert Exploration(kind="correlated", deviation=0.3) in drawn
