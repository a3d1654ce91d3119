"""The kinds of noise, by their statistics."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from scenario import pendulum, simba_policy

from gaitfleet.errors import PolicyError
from gaitfleet.experiment import ExplorationChoice
from gaitfleet.policy import NumpyPolicy
from gaitfleet.task import make_task
from gaitfleet.trajectory import Float32
from rollout.exploration import NO_EXPLORATION, UNIFORM, Act, Exploration, draw_exploration
from rollout.exploration import make_actor as make_actor_of_length
from rollout.noise import CORRELATION_DECISIONS, pink_noise
from rollout.parameter_noise import perturbed

OBSERVATION = np.array([0.1, -0.2, 0.3], np.float32)


def make_actor(exploration: Exploration, policy: NumpyPolicy | None, action_size: int, seed: int) -> Act:
    return make_actor_of_length(exploration, policy, action_size, seed, decisions=1000)


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


def test_pink_noise_has_a_deviation_of_one_and_half_the_power_at_twice_the_frequency() -> None:
    """Power over frequency is a line of slope -1 in logarithms, over 75 to 1000 decisions, even and odd."""
    for decisions in (75, 250, 1000):
        noise = pink_noise(decisions, 2_000, np.random.default_rng(0))
        assert noise.std() == pytest.approx(1.0, rel=0.05)
        power = np.square(np.abs(np.fft.rfft(noise, axis=0))).mean(1)[1:-1]
        slope = np.polyfit(np.log(np.fft.rfftfreq(decisions)[1:-1]), np.log(power), 1)[0]
        assert slope == pytest.approx(-1.0, abs=0.05)
        assert abs(np.corrcoef(noise[:, 0], noise[:, 1])[0, 1]) < 0.6


def test_pink_noise_takes_the_place_of_a_stochastic_policy_s_own_noise() -> None:
    policy = NumpyPolicy.from_bytes(simba_policy(make_task(pendulum().task).description))
    mean, log_std = policy.distribution(OBSERVATION)
    acts = [make_actor(Exploration(kind="pink"), policy, 1, seed) for seed in range(400)]
    drawn = np.arctanh(np.clip([[act(OBSERVATION)[0] for _ in range(20)] for act in acts], -0.999999, 0.999999))
    noise = (drawn - mean[0]) / np.exp(log_std[0])
    assert np.median(np.abs(noise)) == pytest.approx(0.6745, rel=0.1), "the median of a normal variable's size"
    assert np.corrcoef(noise[:, 0], noise[:, 19])[0, 1] > 0.2, "it remembers"


@pytest.mark.parametrize("deviation", [0.02, 0.1, 0.4])
def test_parameter_noise_changes_actions_by_as_much_as_it_is_asked_to(deviation: float) -> None:
    """On observations that it was not measured on; the mean over seeds, and most of the seeds."""
    task = make_task(pendulum().task).description
    policy = NumpyPolicy.from_bytes(simba_policy(task, hidden=32))
    observation = np.random.default_rng(1).standard_normal((200, task.observation_size)).astype(np.float32)
    usual = policy.act(observation)
    found = []
    for seed in range(8):
        act = make_actor(Exploration(kind="parameter", deviation=deviation), policy, 1, seed)
        found.append(np.sqrt(np.square(act(observation) - usual).mean()))
    assert np.mean(found) == pytest.approx(deviation, rel=0.2)
    assert np.median(np.abs(np.array(found) / deviation - 1)) < 0.2


def test_parameter_noise_is_another_policy_for_the_whole_episode_and_the_same_for_its_seed() -> None:
    policy = NumpyPolicy.from_bytes(simba_policy(make_task(pendulum().task).description))
    one, same, other = (perturbed(policy, 0.2, np.random.default_rng(seed)).act(OBSERVATION) for seed in (0, 0, 1))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_parameter_noise_needs_observations_to_be_measured_on() -> None:
    policy = NumpyPolicy.from_bytes(simba_policy(make_task(pendulum().task).description))
    bare = {name: tensor for name, tensor in policy.tensors.items() if name != "recent.observation"}
    with pytest.raises(PolicyError, match="recent observations"):
        perturbed(NumpyPolicy(policy.description, bare), 0.1, np.random.default_rng(0))
