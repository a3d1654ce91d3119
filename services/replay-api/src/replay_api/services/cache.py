"""The transitions in memory: one column an array, every observation once.

An episode of D decisions takes D+1 consecutive rows; the last one holds only the final observation and is never
sampled. So the next observation of a row is the row after it. Rows are named by *serials* that only grow; serial s
lies at position s % rows, and serials outside [tail, head) are gone. Serials begin at the clock's time, so that an
index of an earlier process cannot be mistaken for one of this process.

MongoDB is the truth, this is disposable.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from replay_api.constants import MAX_REMAINING
from replay_api.services.sum_tree import SumTree
from replay_api.services.transitions import Transitions

Serials = npt.NDArray[np.int64]

TERMINATED = 0x80
"""Bit of a row's end byte: the episode ended by termination. The other bits: decisions until its end, at most 127; 0
marks the row of the final observation."""

TIMES_SAMPLED_BOUNDS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 254)
"""Upper bounds of the histogram of how often a transition had been sampled when it left."""

LARGEST = float(np.finfo(np.float32).max)

PRIORITY_FLOOR = 1e-6
"""Added to every priority, so that none is ever impossible to draw."""


@dataclass(frozen=True, slots=True)
class Row:
    """How wide a row is: observation size O, action size A."""

    observation_size: int
    action_size: int


@dataclass(frozen=True, slots=True)
class Rewards:
    """The reward of every row, and the discounted sum of its episode's up to it."""

    reward: npt.NDArray[np.float32]
    return_so_far: npt.NDArray[np.float32]
    discount: float

    @classmethod
    def empty(cls, rows: int, discount: float) -> Rewards:
        """Memory for so many rows."""
        return cls(np.empty(rows, np.float32), np.empty(rows, np.float32), discount)

    def write(self, position: Serials, reward: npt.NDArray[np.float32]) -> None:
        """Those of an episode [D] at its rows [D+1]."""
        self.reward[position[:-1]] = reward
        self.reward[position[-1]] = 0.0  # so that an n-step sum may read it
        returns = list(accumulate(reward.tolist(), lambda g, r: self.discount * g + r))
        self.return_so_far[position[:-1]] = np.clip(returns, -LARGEST, LARGEST)  # finite, as the rewards are


@dataclass(slots=True)
class Evictions:
    """What has left the memory since the start."""

    transitions: int = 0
    unsampled: int = 0


class TransitionCache:
    """A ring of rows with a lock: appending, filling and gathering exclude each other, so no sample is ever torn.

    Parameters
    ----------
    capacity
        Transitions held at most. There is one row in sixteen more than that for the final observations, so episodes of
        fewer than 16 decisions on average hold a little less.
    row
        Sizes of a row.
    discount
        Of one decision, in the running return of an episode.
    priority_exponent
        alpha of Schaul et al. 2016 where transitions are drawn by priority; None where they are not, and then no tree
        is held.
    blended
        Whether the reward of the stage before is held too.
    place
        0, 1 or 2: caches with different places never have a serial in common.
    """

    def __init__(
        self,
        capacity: int,
        row: Row,
        *,
        discount: float = 1.0,
        priority_exponent: float | None = None,
        blended: bool = False,
        place: int = 0,
    ) -> None:
        self.capacity = capacity
        self.rows = capacity + capacity // 16 + 1
        # Pages of these are backed by memory when they are first written, so an empty cache costs nothing.
        self.observation = np.empty((self.rows, row.observation_size), np.float32)
        self.action = np.empty((self.rows, row.action_size), np.float32)
        self.rewards = Rewards.empty(self.rows, discount)
        self.former_rewards = Rewards.empty(self.rows, discount) if blended else None
        self.end = np.empty(self.rows, np.uint8)
        self.version = np.empty(self.rows, np.uint32)  # position in `versions`
        self.times_sampled = np.empty(self.rows, np.uint8)
        self.versions: npt.NDArray[np.int64] = np.zeros(64, np.int64)
        self._version_codes: dict[int, int] = {}
        self.priority_exponent = priority_exponent
        self.tree = None if priority_exponent is None else SumTree(self.rows)
        self.largest_priority = 1.0
        self.lock = threading.Lock()
        self.tail = self.head = ((time.time_ns() // 1_000_000) << 20) + (place << 61)  # fits int64 until 2109
        self.transitions = 0
        self.evictions = Evictions()
        self.times_sampled_at_eviction = np.zeros(len(TIMES_SAMPLED_BOUNDS) + 1, np.int64)
        self.times_sampled_sum = 0
        self._ages: deque[tuple[int, float]] = deque()

    @property
    def nbytes(self) -> int:
        """Memory of the rows in use."""
        per_row = sum(column.nbytes for column in self._columns()) / self.rows
        return round(per_row * (self.head - self.tail)) + (self.tree.nbytes if self.tree else 0)

    def oldest_stored_at(self) -> float | None:
        """About when the oldest transition was stored, as a Unix time."""
        return self._ages[0][1] if self._ages and self.transitions else None

    def append(self, episode: Transitions, stored_at: float) -> None:
        """Add an episode at the head, evicting as many of the oldest as needed."""
        episode = episode.newest(self.capacity)
        with self.lock:
            rows = len(episode) + 1
            while self.transitions + len(episode) > self.capacity or self.head + rows - self.tail > self.rows:
                self._evict_oldest()
            self._write(self.head, episode)
            self.head += rows
            self.transitions += len(episode)
            if not self._ages or self.head - self._ages[-1][0] > self.rows // 256:
                self._ages.append((self.head - rows, stored_at))

    def fill(self, episode: Transitions, stored_at: float) -> bool:
        """Put a stored episode below the tail; False when it no longer fits, and then none older does."""
        rows = len(episode) + 1
        with self.lock:
            start = self.tail - rows
            full = start < self.head - self.rows or self.transitions + len(episode) > self.capacity
            if full or self.evictions.transitions:  # after an eviction something newer has left already
                return False
            self._write(start, episode)
            self.tail = start
            self.transitions += len(episode)
            if not self._ages or self._ages[0][0] - start > self.rows // 256:
                self._ages.appendleft((start, stored_at))
            return True

    def set_priorities(self, serials: Serials, priorities: npt.NDArray[np.float64]) -> int:
        """Set priorities of sampled transitions; how many were set. Others are gone, or another cache's."""
        if self.tree is None or self.priority_exponent is None:
            return 0
        with self.lock:
            position = serials % self.rows
            held = (serials >= self.tail) & (serials < self.head)
            held &= (self.end[position] & MAX_REMAINING) > 0
            values = (priorities[held] + PRIORITY_FLOOR) ** self.priority_exponent
            self.tree.set(position[held], values)
            if len(values):
                self.largest_priority = max(self.largest_priority, float(values.max()))
            return int(held.sum())

    def _columns(self) -> tuple[npt.NDArray[np.generic], ...]:
        return (
            self.observation,
            self.action,
            *(column for rewards in self._rewards() for column in (rewards.reward, rewards.return_so_far)),
            self.end,
            self.version,
            self.times_sampled,
        )

    def _rewards(self) -> tuple[Rewards, ...]:
        return (self.rewards,) if self.former_rewards is None else (self.rewards, self.former_rewards)

    def _write(self, start: int, episode: Transitions) -> None:
        decisions = len(episode)
        position = np.arange(start, start + decisions + 1) % self.rows
        for part in _runs(start % self.rows, decisions + 1, self.rows):
            self.observation[part.position] = episode.observation[part.source]
        acting = position[:-1]
        self.action[acting] = episode.action
        self.rewards.write(position, episode.reward)
        if self.former_rewards is not None:  # without one the blend is over, and nobody reads what stands here
            former = episode.reward if episode.former_reward is None else episode.former_reward
            self.former_rewards.write(position, former)
        remaining = np.minimum(np.arange(decisions, -1, -1), MAX_REMAINING).astype(np.uint8)
        self.end[position] = remaining | np.uint8(TERMINATED if episode.terminated else 0)
        self.version[position] = self._version_code(episode.policy_version)
        self.times_sampled[position] = 0
        if self.tree is not None:
            self.tree.set(acting, self.largest_priority)
            self.tree.set(position[-1:], 0.0)

    def _evict_oldest(self) -> None:
        end = self.tail
        while remaining := int(self.end[end % self.rows] & MAX_REMAINING):
            end += remaining
        evicted = end - self.tail
        acting = np.arange(self.tail, end) % self.rows
        times = self.times_sampled[acting]
        self.evictions.transitions += evicted
        self.evictions.unsampled += int((times == 0).sum())
        self.times_sampled_sum += int(times.sum())
        bins = np.searchsorted(TIMES_SAMPLED_BOUNDS, times)
        self.times_sampled_at_eviction += np.bincount(bins, minlength=len(TIMES_SAMPLED_BOUNDS) + 1)
        if self.tree is not None:
            self.tree.set(acting, 0.0)
        self.tail = end + 1
        self.transitions -= evicted
        while len(self._ages) > 1 and self._ages[1][0] <= self.tail:
            self._ages.popleft()

    def _version_code(self, version: int) -> int:
        code = self._version_codes.get(version)
        if code is None:
            code = self._version_codes[version] = len(self._version_codes)
            if code >= len(self.versions):
                self.versions = np.concatenate([self.versions, np.zeros_like(self.versions)])
            self.versions[code] = version
        return code


@dataclass(frozen=True, slots=True)
class _Part:
    position: slice
    source: slice


def _runs(start: int, count: int, rows: int) -> tuple[_Part, ...]:
    """The one or two stretches that `count` rows from `start` take in a ring."""
    first = min(count, rows - start)
    if first == count:
        return (_Part(slice(start, start + count), slice(0, count)),)
    return (_Part(slice(start, rows), slice(0, first)), _Part(slice(0, count - first), slice(first, count)))
