"""Drawing transitions from the cache and laying them out as the bytes that travel.

Legend: B transitions of a batch, n decisions summed before the bootstrap, s serial, r reward, gamma discount.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from gaitfleet.batch import FIELDS, batch_specs
from gaitfleet.codec import TensorSpec
from gaitfleet.wire import BatchRequest
from replay_api.constants import MAX_REMAINING
from replay_api.services.cache import TERMINATED, Serials, TransitionCache

HALF_MAX = 65504.0
"""Largest float16; larger observations are clipped to it, because an infinity would poison a network."""

Columns = dict[str, npt.NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class Drawn:
    """Serials of a batch and the weight of each."""

    serials: Serials
    weight: npt.NDArray[np.float32]


class Sampler:
    """Draws batches; belongs to one thread at a time.

    Parameters
    ----------
    cache
        Where transitions come from.
    seed
        Of the random generator.
    """

    def __init__(self, cache: TransitionCache, seed: int | None = None) -> None:
        self._cache = cache
        self._random = np.random.default_rng(seed)

    def batch(self, request: BatchRequest) -> memoryview | None:
        """One batch as bytes, in a buffer of its own: a response may still be sending the one before it.

        None when the cache holds nothing.
        """
        cache = self._cache
        layout = self._layout(request)
        buffer = np.empty(layout.nbytes, np.uint8)
        columns = {name: buffer[at].view(spec.dtype).reshape(spec.shape) for name, at, spec in layout.columns}
        with cache.lock:
            if not cache.transitions:
                return None
            drawn = (
                self._prioritized(request) if request.sampling == "prioritized" else self._uniform(request.batch_size)
            )
            self._gather(drawn, request, columns)
        return buffer.data

    def batch_bytes(self, request: BatchRequest) -> int:
        """Bytes of one batch."""
        return self._layout(request).nbytes

    def _layout(self, request: BatchRequest) -> _Layout:
        sizes = self._cache.observation.shape[1], self._cache.action.shape[1]
        return _layout(request.batch_size, *sizes, request.half_precision)

    def _uniform(self, count: int) -> Drawn:
        """Serials uniform over transitions: uniform over rows, drawn again where a row is none."""
        cache = self._cache
        serials = self._random.integers(cache.tail, cache.head, size=count)
        again = np.flatnonzero((cache.end[serials % cache.rows] & MAX_REMAINING) == 0)
        while len(again):
            serials[again] = self._random.integers(cache.tail, cache.head, size=len(again))
            again = again[(cache.end[serials[again] % cache.rows] & MAX_REMAINING) == 0]
        return Drawn(serials, np.ones(count, np.float32))

    def _prioritized(self, request: BatchRequest) -> Drawn:
        """Serials in proportion to priority, one from each of B equal shares of the total (Schaul et al. 2016, 3.3)."""
        cache, count = self._cache, request.batch_size
        tree = cache.tree
        if tree is None:
            raise ValueError("this cache holds no priorities")
        total = tree.total
        prefix = (np.arange(count) + self._random.random(count)) * (total / count)
        position = tree.find(np.minimum(prefix, np.nextafter(total, 0.0)))
        # w_i = (N P(i))^-beta, divided by the largest of the batch
        share = tree.get(position) * (cache.transitions / total)
        weight = share**-request.importance_exponent
        serials = cache.tail + (position - cache.tail) % cache.rows
        return Drawn(serials, (weight / weight.max()).astype(np.float32))

    def _gather(self, drawn: Drawn, request: BatchRequest, columns: Columns) -> None:
        cache, rows = self._cache, self._cache.rows
        position = drawn.serials % rows
        end = cache.end[position]
        remaining = end & MAX_REMAINING
        count = np.minimum(remaining, request.n_step).astype(np.int64)  # [B], decisions summed
        following = (drawn.serials + count) % rows
        columns["index"][:] = drawn.serials
        columns["policy_version"][:] = cache.versions[cache.version[position]]
        _take(cache.observation, position, columns["observation"])
        _take(cache.observation, following, columns["next_observation"])
        _take(cache.action, position, columns["action"])
        columns["reward"][:] = self._reward(drawn.serials, count, request)
        powers = np.power(request.discount, np.arange(request.n_step + 1))
        ended = (end >= TERMINATED) & (count == remaining)
        columns["discount"][:] = np.where(ended, 0.0, powers[count])
        columns["weight"][:] = drawn.weight
        columns["return_so_far"][:] = cache.return_so_far[position]
        times = cache.times_sampled[position]
        cache.times_sampled[position] = times + (times < 255)

    def _reward(self, serials: Serials, count: Serials, request: BatchRequest) -> npt.NDArray[np.floating]:
        """Sum over j < count of gamma^j r[s+j], [B]."""
        cache = self._cache
        if request.n_step == 1:
            return cache.reward[serials % cache.rows]
        total = np.zeros(len(serials))
        for j in range(request.n_step):
            # past the end of the episode this reads the row of the final observation, whose reward is 0
            total += request.discount**j * cache.reward[(serials + np.minimum(j, count)) % cache.rows] * (j < count)
        return total


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where the columns of a batch lie in its buffer."""

    nbytes: int
    columns: tuple[tuple[str, slice, TensorSpec], ...]


@lru_cache(maxsize=256)
def _layout(batch_size: int, observation_size: int, action_size: int, half_precision: bool) -> _Layout:
    specs = batch_specs(1, batch_size, observation_size, action_size, half_precision=half_precision)
    columns = []
    offset = 0
    for name, spec in zip(FIELDS, specs.values(), strict=True):
        columns.append((name, slice(offset, offset + spec.nbytes), spec))
        offset += spec.nbytes
    return _Layout(offset, tuple(columns))


def _take(source: npt.NDArray[np.float32], position: Serials, target: npt.NDArray[np.generic]) -> None:
    if target.dtype == np.float32:
        np.take(source, position, axis=0, out=target, mode="clip")  # any other mode copies `out` once more
    else:
        wide = np.take(source, position, axis=0, mode="clip")
        np.clip(wide, -HALF_MAX, HALF_MAX, out=wide)
        target[:] = wide
