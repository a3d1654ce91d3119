"""Drawing transitions from the cache and laying them out as the bytes that travel.

Legend: B transitions of a batch, n decisions summed before the bootstrap, s serial, r reward, gamma discount.
"""

from __future__ import annotations

from collections.abc import Sequence
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


class Sampler:
    """Draws batches; belongs to one thread at a time.

    Parameters
    ----------
    seed
        Of the random generator.
    """

    def __init__(self, seed: int | None = None) -> None:
        self.random = np.random.default_rng(seed)

    def batch(self, request: BatchRequest, made_up: Sequence[Portion], reward_weight: float = 1.0) -> memoryview | None:
        """One batch as bytes, in a buffer of its own: a response may still be sending the one before it.

        None when a cache that it should be drawn from holds nothing.

        Parameters
        ----------
        made_up
            Where its rows come from, in order.
        reward_weight
            Weight of the stage's own reward; the rest is the weight of that of the stage before.
        """
        layout = batch_layout(request, made_up[0].cache)
        buffer = np.empty(layout.nbytes, np.uint8)
        columns = {name: buffer[at].view(spec.dtype).reshape(spec.shape) for name, at, spec in layout.columns}
        weight = np.ones(request.batch_size) if request.sampling == "prioritized" else None
        begin = 0
        for portion in made_up:
            here = slice(begin, begin + portion.rows)
            begin = here.stop
            if portion.rows:
                rows = columns if len(made_up) == 1 else {name: column[here] for name, column in columns.items()}
                with portion.cache.lock:
                    if not portion.cache.transitions:
                        return None
                    if weight is None:
                        serials = self._uniform(portion.cache, portion.rows)
                    else:
                        exponent = request.importance_exponent
                        serials, weight[here] = self._prioritized(portion.cache, portion.rows, exponent)
                    _gather(portion.cache, serials, request, reward_weight, rows)
        columns["weight"][:] = 1.0 if weight is None else weight / weight.max()
        return buffer.data

    def _uniform(self, cache: TransitionCache, count: int) -> Serials:
        """Serials uniform over transitions: uniform over rows, drawn again where a row is none."""
        serials = self.random.integers(cache.tail, cache.head, size=count)
        again = np.flatnonzero((cache.end[serials % cache.rows] & MAX_REMAINING) == 0)
        while len(again):
            serials[again] = self.random.integers(cache.tail, cache.head, size=len(again))
            again = again[(cache.end[serials[again] % cache.rows] & MAX_REMAINING) == 0]
        return serials

    def _prioritized(
        self, cache: TransitionCache, count: int, importance_exponent: float
    ) -> tuple[Serials, npt.NDArray[np.float64]]:
        """Serials in proportion to priority, one from each of B equal shares of the total (Schaul et al. 2016, 3.3).

        And the weight of each, before the largest of the batch divides them.
        """
        tree = cache.tree
        if tree is None:
            raise ValueError("this cache holds no priorities")
        total = tree.total
        prefix = (np.arange(count) + self.random.random(count)) * (total / count)
        position = tree.find(np.minimum(prefix, np.nextafter(total, 0.0)))
        # w_i = (N P(i))^-beta of this cache: what it corrects is the draw within it; the mixture itself is wanted
        share = tree.get(position) * (cache.transitions / total)
        serials = cache.tail + (position - cache.tail) % cache.rows
        return serials, share**-importance_exponent


def _gather(
    cache: TransitionCache, serials: Serials, request: BatchRequest, reward_weight: float, columns: Columns
) -> None:
    rows = cache.rows
    position = serials % rows
    end = cache.end[position]
    remaining = end & MAX_REMAINING
    count = np.minimum(remaining, request.n_step).astype(np.int64)  # [B], decisions summed
    following = (serials + count) % rows
    columns["index"][:] = serials
    columns["policy_version"][:] = cache.versions[cache.version[position]]
    _take(cache.observation, position, columns["observation"])
    _take(cache.observation, following, columns["next_observation"])
    _take(cache.action, position, columns["action"])
    own, former = cache.rewards, cache.former_rewards
    columns["reward"][:] = _reward(cache, serials, count, request, reward_weight)
    powers = np.power(request.discount, np.arange(request.n_step + 1))
    ended = (end >= TERMINATED) & (count == remaining)
    columns["discount"][:] = np.where(ended, 0.0, powers[count])
    before = None if former is None else former.return_so_far
    columns["return_so_far"][:] = _blended(own.return_so_far, before, reward_weight, position)
    times = cache.times_sampled[position]
    cache.times_sampled[position] = times + (times < 255)


def _reward(
    cache: TransitionCache, serials: Serials, count: Serials, request: BatchRequest, reward_weight: float
) -> npt.NDArray[np.floating]:
    """Sum over j < count of gamma^j r[s+j], [B]."""
    own = cache.rewards.reward
    former = None if cache.former_rewards is None else cache.former_rewards.reward
    if request.n_step == 1:
        return _blended(own, former, reward_weight, serials % cache.rows)
    total = np.zeros(len(serials))
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
