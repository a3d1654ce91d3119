"""Drawing transitions from the cache and laying them out as the bytes that travel.

Legend: K batches of B transitions, R of them from one cache, n decisions summed before the bootstrap, s serial, r
reward, gamma discount.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from gaitfleet.batch import FIELDS, batch_specs
from gaitfleet.codec import TensorSpec
from gaitfleet.wire import BatchRequest
from replay_api.constants import MAX_REMAINING
from replay_api.services.cache import TERMINATED, Serials, TransitionCache
from replay_api.services.mixture import Portion

HALF_MAX = 65504.0
"""Largest float16; larger observations are clipped to it, because an infinity would poison a network."""

Columns = dict[str, npt.NDArray[np.generic]]


DRAWN_AHEAD = 8192
"""Transitions drawn at once. Two dozen small numpy calls for every batch cost as much processor time as gathering it;
for many batches together they hardly cost more, and about a millisecond of the event loop."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """Rows of one cache for K batches, and all of them but the long columns.

    Parameters
    ----------
    rows
        Which rows of a batch they are.
    tail
        Of the cache when they were drawn: while it has not passed this, they are held.
    position, following
        Places in the cache of R rows and of those whose observation is the next, each [K, R].
    columns
        Short columns by name, each [K, R].
    weight
        Before the largest of the batch divides it, [K, R].
    """

    cache: TransitionCache
    rows: slice
    tail: int
    position: Serials
    following: Serials
    columns: Columns
    weight: npt.NDArray[np.float64]

    def gather(self, k: int, columns: Columns) -> bool:
        """Write batch k into the columns of its buffer; False when rows of it have been evicted."""
        cache, position, following = self.cache, self.position[k], self.following[k]
        with cache.lock:
            if cache.tail > self.tail:
                return False
            _take(cache.observation, position, columns["observation"][self.rows])
            _take(cache.observation, following, columns["next_observation"][self.rows])
            _take(cache.action, position, columns["action"][self.rows])
            times = cache.times_sampled[position]
            cache.times_sampled[position] = times + (times < 255)
        for name, values in self.columns.items():
            columns[name][self.rows] = values[k]
        return True


class Sampler:
    """Draws batches; belongs to one thread at a time.

    Parameters
    ----------
    seed
        Of the random generator.
    """

    def __init__(self, seed: int | None = None) -> None:
        self.random = np.random.default_rng(seed)

    def batches(
        self, request: BatchRequest, count: int, made_up: Sequence[Portion], reward_weight: float = 1.0
    ) -> Iterator[memoryview]:
        """So many batches as bytes, each in a buffer of its own: a response may still be sending the one before it.

        Ends early when a cache that they should be drawn from holds nothing.

        Parameters
        ----------
        made_up
            Where the rows of every batch come from, in order.
        reward_weight
            Weight of the stage's own reward; the rest is the weight of that of the stage before.
        """
        layout = batch_layout(request, made_up[0].cache)
        made = 0
        while made < count:
            ahead = min(count - made, max(1, DRAWN_AHEAD // request.batch_size))
            draws = self._draws(request, ahead, made_up, reward_weight)
            if draws is None:
                return
            weight = np.concatenate([drawn.weight for drawn in draws], axis=1)
            weight /= weight.max(axis=1, keepdims=True)
            for k in range(ahead):
                buffer = np.empty(layout.nbytes, np.uint8)
                columns = {name: buffer[at].view(spec.dtype).reshape(spec.shape) for name, at, spec in layout.columns}
                if not all(drawn.gather(k, columns) for drawn in draws):
                    break  # the rest is drawn anew
                columns["weight"][:] = weight[k]
                yield buffer.data
                made += 1

    def _draws(
        self, request: BatchRequest, count: int, made_up: Sequence[Portion], reward_weight: float
    ) -> list[Drawn] | None:
        draws = []
        begin = 0
        for portion in made_up:
            if not portion.rows:
                continue
            with portion.cache.lock:
                if not portion.cache.transitions:
                    return None
                draws.append(self._drawn(portion, begin, request, count, reward_weight))
            begin += portion.rows
        return draws

    def _drawn(self, portion: Portion, begin: int, request: BatchRequest, count: int, reward_weight: float) -> Drawn:
        cache, shape = portion.cache, (count, portion.rows)
        if request.sampling == "prioritized":
            serials, weight = self._prioritized(cache, shape, request.importance_exponent)
        else:
            serials, weight = self._uniform(cache, shape), np.ones(shape)
        position, end, summed = _steps(cache, serials, request.n_step)
        columns: Columns = {
            "index": serials,
            "policy_version": cache.versions[cache.version[position]],
            "reward": _reward(cache, serials, summed, request, reward_weight),
            "discount": _discount(end, summed, request),
            "return_so_far": _return_so_far(cache, position, reward_weight),
        }
        following = (serials + summed) % cache.rows
        rows = slice(begin, begin + portion.rows)
        return Drawn(cache, rows, cache.tail, position, following, columns, weight)

    def _uniform(self, cache: TransitionCache, shape: tuple[int, int]) -> Serials:
        """Serials uniform over transitions: uniform over rows, drawn again where a row is none."""
        serials = self.random.integers(cache.tail, cache.head, size=shape).ravel()
        again = np.flatnonzero((cache.end[serials % cache.rows] & MAX_REMAINING) == 0)
        while len(again):
            serials[again] = self.random.integers(cache.tail, cache.head, size=len(again))
            again = again[(cache.end[serials[again] % cache.rows] & MAX_REMAINING) == 0]
        return serials.reshape(shape)

    def _prioritized(
        self, cache: TransitionCache, shape: tuple[int, int], importance_exponent: float
    ) -> tuple[Serials, npt.NDArray[np.float64]]:
        """Serials in proportion to priority, one from each of R equal shares of the total (Schaul et al. 2016, 3.3)."""
        tree, count = cache.tree, shape[1]
        if tree is None:
            raise ValueError("this cache holds no priorities")
        total = tree.total
        prefix = (np.arange(count) + self.random.random(shape)) * (total / count)
        position = tree.find(np.minimum(prefix, np.nextafter(total, 0.0)).ravel()).reshape(shape)
        # w_i = (N P(i))^-beta of this cache: what it corrects is the draw within it; the mixture itself is wanted
        share = tree.get(position) * (cache.transitions / total)
        return cache.tail + (position - cache.tail) % cache.rows, share**-importance_exponent


def _steps(cache: TransitionCache, serials: Serials, n_step: int) -> tuple[Serials, npt.NDArray[np.uint8], Serials]:
    """Position of each row, its end byte, and how many decisions are summed from it, each [K, R]."""
    position = serials % cache.rows
    end = cache.end[position]
    return position, end, np.minimum(end & MAX_REMAINING, n_step).astype(np.int64)


def _discount(end: npt.NDArray[np.uint8], summed: Serials, request: BatchRequest) -> npt.NDArray[np.floating]:
    """gamma to the number of decisions summed, 0 where the episode terminated within them, [K, R]."""
    powers = np.power(request.discount, np.arange(request.n_step + 1))
    ended = (end >= TERMINATED) & (summed == end & MAX_REMAINING)
    return np.where(ended, 0.0, powers[summed])


def _return_so_far(cache: TransitionCache, position: Serials, reward_weight: float) -> npt.NDArray[np.float32]:
    former = None if cache.former_rewards is None else cache.former_rewards.return_so_far
    return _blended(cache.rewards.return_so_far, former, reward_weight, position)


def _reward(
    cache: TransitionCache, serials: Serials, count: Serials, request: BatchRequest, reward_weight: float
) -> npt.NDArray[np.floating]:
    """Sum over j < count of gamma^j r[s+j], [K, R]."""
    own = cache.rewards.reward
    former = None if cache.former_rewards is None else cache.former_rewards.reward
    if request.n_step == 1:
        return _blended(own, former, reward_weight, serials % cache.rows)
    total = np.zeros(serials.shape)
    for j in range(request.n_step):
        # past the end of the episode this reads the row of the final observation, whose reward is 0
        position = (serials + np.minimum(j, count)) % cache.rows
        total += request.discount**j * _blended(own, former, reward_weight, position) * (j < count)
    return total


def _blended(
    own: npt.NDArray[np.float32], former: npt.NDArray[np.float32] | None, weight: float, position: Serials
) -> npt.NDArray[np.float32]:
    """A stage's own value and that of the stage before, weighed; the return so far is linear in the reward."""
    if former is None or weight >= 1.0:
        return own[position]
    share = np.float32(weight)
    mixed: npt.NDArray[np.float32] = share * own[position] + (np.float32(1) - share) * former[position]
    return mixed


def batch_layout(request: BatchRequest, cache: TransitionCache) -> Layout:
    """How a batch lies in its buffer."""
    sizes = cache.observation.shape[1], cache.action.shape[1]
    return _layout(request.batch_size, *sizes, request.half_precision)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the columns of a batch lie in its buffer."""

    nbytes: int
    columns: tuple[tuple[str, slice, TensorSpec], ...]


@lru_cache(maxsize=256)
def _layout(batch_size: int, observation_size: int, action_size: int, half_precision: bool) -> Layout:
    specs = batch_specs(1, batch_size, observation_size, action_size, half_precision=half_precision)
    columns = []
    offset = 0
    for name, spec in zip(FIELDS, specs.values(), strict=True):
        columns.append((name, slice(offset, offset + spec.nbytes), spec))
        offset += spec.nbytes
    return Layout(offset, tuple(columns))


def _take(source: npt.NDArray[np.float32], position: Serials, target: npt.NDArray[np.generic]) -> None:
    if target.dtype == np.float32:
        np.take(source, position, axis=0, out=target, mode="clip")  # any other mode copies `out` once more
    else:
        wide = np.take(source, position, axis=0, mode="clip")
        np.clip(wide, -HALF_MAX, HALF_MAX, out=wide)
        target[:] = wide
