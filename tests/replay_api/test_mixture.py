"""Batches that are made of more than the run's own transitions, and rewards that go from one into another."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from replay_api.services.cache import TransitionCache
from replay_api.services.mixture import Portion, Source, portions
from replay_api.services.transitions import Transitions
from tests.replay_api.test_transitions import drawn, episode_of, filled


def source(cache: TransitionCache, share: float, name: str = "former") -> Source:
    return Source(name=name, cache=cache, share=share, planned=())  # type: ignore[arg-type]


@given(
    share=st.floats(0.001, 0.6),
    other=st.floats(0.001, 0.39),
    batch_size=st.integers(1, 300),
    seed=st.integers(0, 2**31),
)
@hypothesis_settings(max_examples=60, deadline=None)
def test_every_batch_keeps_its_shares_to_a_row_and_on_average_exactly(
    share: float, other: float, batch_size: int, seed: int
) -> None:
    own, former, demonstrated = (filled(100, episode_of(10, number=place), place=place) for place in range(3))
    sources = [source(former, share), source(demonstrated, other, "demonstrations")]
    random = np.random.default_rng(seed)
    made = [portions(own, sources, batch_size, random) for _ in range(400)]
    for parts in made:
        assert [part.name for part in parts] == ["run", "former", "demonstrations"]
        assert sum(part.rows for part in parts) == batch_size
        for part, asked in zip(parts[1:], (share, other), strict=True):
            assert abs(part.rows - asked * batch_size) < 1
    mean = np.mean([[part.rows for part in parts[1:]] for parts in made], axis=0)
    np.testing.assert_allclose(mean, np.array([share, other]) * batch_size, atol=0.15)  # six deviations of the mean
    parts = made[0]
    batch = drawn(own, seed, *parts[1:], batch_size=batch_size)
    numbers = np.repeat([0, 1, 2], [part.rows for part in parts])
    np.testing.assert_array_equal(batch.policy_version, numbers)
    for part, cache in zip(parts, (own, former, demonstrated), strict=True):
        serials = batch.index[batch.policy_version == cache.versions[0]]
        assert len(serials) == part.rows
        assert ((serials >= cache.tail) & (serials < cache.head)).all()


def test_a_source_that_holds_nothing_leaves_its_share_to_the_run() -> None:
    own, empty = filled(100, episode_of(10)), filled(100)
    (only,) = portions(own, [source(empty, 0.5)], 16, np.random.default_rng(0))
    assert (only.name, only.rows) == ("run", 16)


def test_priorities_reach_the_cache_that_a_row_came_from_and_correct_the_draw_within_it() -> None:
    own = filled(100, episode_of(10), priority_exponent=1.0)
    beside = filled(100, episode_of(10, number=1), priority_exponent=1.0, place=2)
    serials = np.concatenate([np.arange(own.tail, own.tail + 10), np.arange(beside.tail, beside.tail + 10)])
    priorities = np.where(np.arange(20) == 15, 9.0, 1.0)  # half of the priority of the second ten
    assert [cache.set_priorities(serials, priorities) for cache in (own, beside)] == [10, 10]
    part = Portion("demonstrations", beside, 10_000)
    batch = drawn(own, 0, part, batch_size=20_000, sampling="prioritized", importance_exponent=1.0)
    counts = np.bincount(batch.index[10_000:] - beside.tail, minlength=10) / 10_000
    np.testing.assert_allclose(counts, np.where(np.arange(10) == 5, 0.5, 0.5 / 9), atol=0.01)
    # w = 1 / (N P), in the first ten 1, in the others 9 / 5 and 1 / 5, divided by the largest
    weights = np.where(batch.index == beside.tail + 5, 1 / 9, np.where(np.arange(20_000) < 10_000, 5 / 9, 1.0))
    np.testing.assert_allclose(batch.weight, weights, rtol=1e-4)


@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0])
def test_a_blended_reward_is_the_weighted_mean_of_both_and_so_is_the_return_so_far(weight: float, n_step: int) -> None:
    made = episode_of(20)
    former = np.linspace(-3, 5, 20, dtype=np.float32)
    both = Transitions(made.observation, made.action, made.reward, False, 0, former_reward=former)
    cache = filled(100, both, blended=True, discount=0.9)
    batch = drawn(cache, reward_weight=weight, n_step=n_step)
    row = batch.index - cache.tail
    mixed = weight * made.reward.astype(float) + (1 - weight) * former
    summed = [sum(0.9**j * r for j, r in enumerate(mixed[i : i + n_step])) for i in range(20)]
    so_far = np.zeros(20)
    for i in range(20):
        so_far[i] = mixed[i] + (0.9 * so_far[i - 1] if i else 0)
    np.testing.assert_allclose(batch.reward, np.array(summed)[row], rtol=1e-5)
    np.testing.assert_allclose(batch.return_so_far, so_far[row], rtol=1e-5)
    if weight == 1.0 and n_step == 1:
        np.testing.assert_array_equal(batch.reward, made.reward[row])
