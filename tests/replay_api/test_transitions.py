"""What is sampled, held against an independent recomputation in plain Python."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from gaitfleet.batch import FIELDS, Batch, batch_specs
from gaitfleet.experiment import parse_experiment
from gaitfleet.task import make_task
from gaitfleet.wire import BatchRequest
from replay_api.services.cache import Row, TransitionCache
from replay_api.services.mixture import Portion
from replay_api.services.sampling import Sampler
from replay_api.services.transitions import Transitions, transitions_of
from tests.replay_api.fleet import play

OBSERVATION, ACTION = 5, 2


def episode_of(decisions: int, *, number: int = 0, terminated: bool = False) -> Transitions:
    """An episode whose every value tells the episode and the row it is from."""
    row = np.arange(decisions + 1, dtype=np.float32)[:, None]
    return Transitions(
        observation=np.broadcast_to(1000 * number + row, (decisions + 1, OBSERVATION)).astype(np.float32),
        action=np.full((decisions, ACTION), number, np.float32),
        reward=(np.arange(decisions) + 1 + number).astype(np.float32),
        terminated=terminated,
        policy_version=number,
    )


def filled(capacity: int, *episodes: Transitions, **arguments: Any) -> TransitionCache:
    cache = TransitionCache(capacity, Row(OBSERVATION, ACTION), **arguments)
    for stored_at, episode in enumerate(episodes):
        cache.append(episode, stored_at)
    return cache


def drawn(
    cache: TransitionCache, seed: int = 0, *beside: Portion, reward_weight: float = 1.0, **arguments: Any
) -> Batch:
    request = BatchRequest(**{"batch_size": 256, "discount": 0.9} | arguments)
    own = Portion("run", cache, request.batch_size - sum(portion.rows for portion in beside))
    buffer = next(Sampler(seed).batches(request, 1, (own, *beside), reward_weight))
    return read(buffer, request)


def read(buffer: memoryview, request: BatchRequest) -> Batch:
    """The batch in a buffer."""
    offset = 0
    arrays = {}
    specs = batch_specs(1, request.batch_size, OBSERVATION, ACTION, half_precision=request.half_precision)
    for name, spec in zip(FIELDS, specs.values(), strict=True):
        arrays[name] = np.frombuffer(buffer, spec.dtype, count=spec.nbytes // spec.dtype.itemsize, offset=offset)
        arrays[name] = arrays[name].reshape(spec.shape)
        offset += spec.nbytes
    return Batch(**arrays)


@given(
    lengths=st.lists(st.tuples(st.integers(1, 140), st.booleans()), min_size=1, max_size=12),
    n_step=st.integers(1, 32),
    discount=st.floats(0, 1),
    capacity=st.integers(100, 400),
)
@hypothesis_settings(max_examples=60, deadline=None)
def test_n_step_returns_equal_a_plain_recomputation(
    lengths: list[tuple[int, bool]], n_step: int, discount: float, capacity: int
) -> None:
    episodes = [episode_of(length, number=i, terminated=fell) for i, (length, fell) in enumerate(lengths)]
    batch = drawn(filled(capacity, *episodes, discount=0.5), n_step=n_step, discount=discount, batch_size=64)
    for i in range(64):
        number = int(batch.action[i, 0])
        episode = episodes[number].newest(capacity)
        row = int(batch.observation[i, 0] - episode.observation[0, 0])
        rewards = [float(reward) for reward in episode.reward[row : row + n_step]]
        expected = sum(discount**j * reward for j, reward in enumerate(rewards))
        fell = episode.terminated and row + len(rewards) == len(episode)
        assert batch.reward[i] == pytest.approx(expected, rel=1e-5)
        assert batch.discount[i] == pytest.approx(0.0 if fell else discount ** len(rewards), rel=1e-5)
        np.testing.assert_array_equal(batch.next_observation[i], episode.observation[row + len(rewards)])
        so_far = sum(0.5 ** (row - j) * float(reward) for j, reward in enumerate(episode.reward[: row + 1]))
        assert batch.return_so_far[i] == pytest.approx(so_far, rel=1e-5)
        assert batch.policy_version[i] == number
        assert batch.weight[i] == 1


@pytest.mark.parametrize("sampling", ["uniform", "prioritized"])
def test_batches_of_one_answer_hold_nothing_that_was_evicted_meanwhile(sampling: str) -> None:
    cache = filled(60, *(episode_of(20, number=i) for i in range(3)), priority_exponent=0.6)
    request = BatchRequest(batch_size=256, discount=0.9, sampling=sampling)
    batches = Sampler(0).batches(request, 3, (Portion("run", cache, 256),))
    assert set(read(next(batches), request).policy_version) == {0, 1, 2}
    cache.append(episode_of(20, number=3), 3.0)
    rest = [read(buffer, request) for buffer in batches]
    assert [set(batch.policy_version) for batch in rest] == [{1, 2, 3}] * 2


@pytest.mark.parametrize(("ending", "bootstrap"), [("terminated", 0.0), ("truncated", 0.9), ("aborted", 0.9)])
def test_only_a_fall_ends_the_bootstrap(ending: str, bootstrap: float) -> None:
    """A time limit or an abort goes on from its last state."""
    task = make_task(parse_experiment({"task": {"environment": "gymnasium:Pendulum-v1"}}).task)
    episode = play(task, "run", steps=4, ending=ending)
    cache = TransitionCache(100, Row(3, 1))
    cache.append(transitions_of(episode, task), 0.0)
    request = BatchRequest(batch_size=64, discount=0.9)
    columns: dict[str, Any] = {}
    buffer = next(Sampler(0).batches(request, 1, (Portion("run", cache, 64),)))
    specs = batch_specs(1, 64, 3, 1)
    offset = 0
    for name, spec in zip(FIELDS, specs.values(), strict=True):
        columns[name] = np.frombuffer(buffer[offset : offset + spec.nbytes], spec.dtype).reshape(spec.shape)
        offset += spec.nbytes
    row = columns["index"] - cache.tail
    np.testing.assert_allclose(columns["discount"], np.where(row == 3, bootstrap, 0.9), rtol=1e-6)


@pytest.mark.parametrize(("ending", "keeps"), [("terminated", False), ("truncated", True), ("aborted", False)])
def test_an_abort_costs_the_future_where_the_task_says_so(ending: str, keeps: bool) -> None:
    task = make_task(parse_experiment({"task": {"ending": {"abort_bootstraps": False}}}).task)
    assert transitions_of(play(task, "run", steps=4, ending=ending), task).terminated != keeps


def test_the_reward_of_a_decision_is_the_sum_over_its_steps() -> None:
    task = make_task(parse_experiment({"task": {"environment": "gymnasium:Pendulum-v1", "action": {"repeat": 3}}}).task)
    episode = play(task, "run", steps=7)
    made = transitions_of(episode, task)
    reward = episode.trajectory.reward
    np.testing.assert_allclose(made.reward, [reward[:3].sum(), reward[3:6].sum(), reward[6]], rtol=1e-6)
    np.testing.assert_array_equal(made.observation, episode.trajectory.state[[0, 3, 6, 7]])
    np.testing.assert_allclose(made.action, episode.trajectory.action[[0, 3, 6]] / 2, rtol=1e-6)  # bounds are +-2


def test_sampling_is_uniform_over_transitions_whatever_the_episodes_length() -> None:
    """Chi-square with 99 degrees of freedom; its 0.9999 quantile is 161."""
    lengths = [1, 2, 7, 30, 60]
    cache = filled(100, *(episode_of(length, number=i) for i, length in enumerate(lengths)))
    counts: dict[tuple[float, float], int] = {}
    for seed in range(40):
        batch = drawn(cache, seed, batch_size=1000)
        for key in zip(batch.action[:, 0].tolist(), batch.observation[:, 0].tolist(), strict=True):
            counts[key] = counts.get(key, 0) + 1
    assert len(counts) == 100
    chi_square = sum((count - 400) ** 2 / 400 for count in counts.values())
    assert chi_square < 161


def test_what_was_evicted_is_never_sampled() -> None:
    cache = filled(100, *(episode_of(30, number=i) for i in range(9)))
    assert cache.transitions == 90
    batch = drawn(cache, batch_size=4096)
    assert set(batch.action[:, 0]) == {6, 7, 8}
    assert len(set(batch.index.tolist())) == 90
    assert cache.evictions.transitions == 180
    assert cache.evictions.unsampled == 180


def test_an_episode_longer_than_the_capacity_keeps_its_end() -> None:
    cache = filled(100, episode_of(250, terminated=True))
    batch = drawn(cache, batch_size=2048)
    assert cache.transitions == 100
    assert batch.observation[:, 0].min() == 150
    assert (batch.discount[batch.observation[:, 0] == 249] == 0).all()


@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=30),
    live=st.integers(0, 30),
    capacity=st.integers(100, 300),
)
@hypothesis_settings(max_examples=80, deadline=None)
def test_a_cache_filled_backwards_holds_the_newest_episodes(lengths: list[int], live: int, capacity: int) -> None:
    """Episodes up to `live` are loaded newest first, while those after it are appended in between, as after a
    restart."""
    episodes = [episode_of(length, number=i) for i, length in enumerate(lengths)]
    stored, new = episodes[:live], episodes[live:]
    rebuilt = TransitionCache(capacity, Row(OBSERVATION, ACTION))
    for episode in reversed(stored):
        if new:
            rebuilt.append(new.pop(0), 0.0)
        if not rebuilt.fill(episode, 0.0):
            break
    for episode in new:
        rebuilt.append(episode, 0.0)
    held, before = held_rows(rebuilt), held_rows(filled(capacity, *episodes))
    oldest = min(number for number, _ in held)
    newest = range(int(oldest), len(lengths))
    assert held == {(float(i), float(1000 * i + row)) for i in newest for row in range(lengths[i])}
    assert before <= held or live < len(lengths)
    if len(set(lengths)) == 1 and live >= len(lengths):
        assert held == before
    assert rebuilt.transitions == len(held) <= capacity


def held_rows(cache: TransitionCache) -> set[tuple[float, float]]:
    """(episode, row) of every transition held."""
    position = np.arange(cache.tail, cache.head) % cache.rows
    position = position[(cache.end[position] & 0x7F) > 0]
    return set(zip(cache.action[position, 0].tolist(), cache.observation[position, 0].tolist(), strict=True))


def test_no_sample_is_torn_while_episodes_are_appended() -> None:
    """Every row of an episode tells its number in every column; a writer laps the ring hundreds of times."""
    cache = filled(200, *(episode_of(20, number=i) for i in range(10)))
    stop = threading.Event()

    def write() -> None:
        number = 10
        while not stop.is_set():
            cache.append(episode_of(1 + number % 40, number=number % 1000), 0.0)
            number += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for seed in range(400):
            batch = drawn(cache, seed, batch_size=256, n_step=1 + seed % 5)
            number = batch.policy_version
            np.testing.assert_array_equal(batch.action, np.repeat(number[:, None], ACTION, axis=1))
            np.testing.assert_array_equal(batch.observation // 1000, np.repeat(number[:, None], OBSERVATION, axis=1))
            np.testing.assert_array_equal(batch.next_observation // 1000, batch.observation // 1000)
            assert (batch.observation[:, :1] == batch.observation).all()
    finally:
        stop.set()
        writer.join()
    assert cache.evictions.transitions > 2000


def test_half_precision_halves_observations_and_clips_what_does_not_fit() -> None:
    episode = episode_of(10)
    episode.observation[:, 0] = 1e6
    batch = drawn(filled(100, episode), half_precision=True)
    assert batch.observation.dtype == np.float16
    assert (batch.observation[:, 0] == 65504).all()
    assert batch.reward.dtype == np.float32


def test_prioritized_sampling_follows_the_priorities_and_weighs_them() -> None:
    """Schaul et al. 2016 with alpha 1: transition 3 has a third of the whole, the other 10 share the rest."""
    cache = filled(100, episode_of(11), priority_exponent=1.0)
    serials = np.arange(cache.tail, cache.tail + 11)
    cache.set_priorities(serials, np.where(np.arange(11) == 3, 5.0, 1.0))
    batch = drawn(cache, batch_size=30_000, sampling="prioritized", importance_exponent=1.0)
    share = np.bincount(batch.index - cache.tail, minlength=11) / 30_000
    expected = np.where(np.arange(11) == 3, 5 / 15, 1 / 15)
    np.testing.assert_allclose(share, expected, atol=0.01)
    np.testing.assert_allclose(batch.weight, np.where(batch.index - cache.tail == 3, 0.2, 1.0), rtol=1e-4)


def test_new_transitions_have_the_largest_priority_seen() -> None:
    cache = filled(100, episode_of(10), priority_exponent=1.0)
    cache.set_priorities(np.arange(cache.tail, cache.tail + 10), np.full(10, 0.01))
    cache.set_priorities(np.array([cache.tail]), np.array([9.0]))
    cache.append(episode_of(1, number=1), 0.0)
    assert cache.tree is not None
    newest = (cache.head - 2) % cache.rows
    assert cache.tree.get(np.array([newest]))[0] == pytest.approx(9.0, rel=1e-5)


def test_an_empty_cache_holds_no_memory_and_a_full_one_little_more_than_its_numbers() -> None:
    """At most 1.2 times the float32 bytes of a transition: observation, action, reward, return so far, discount."""
    for row, decisions in ((Row(3, 1), 200), (Row(412, 19), 75)):
        cache = TransitionCache(3000, row)
        assert cache.nbytes == 0
        for _ in range(60):
            cache.append(
                Transitions(
                    np.zeros((decisions + 1, row.observation_size), np.float32),
                    np.zeros((decisions, row.action_size), np.float32),
                    np.zeros(decisions, np.float32),
                    False,
                    0,
                ),
                0.0,
            )
        assert cache.nbytes / cache.transitions <= 1.2 * 4 * (row.observation_size + row.action_size + 3)
