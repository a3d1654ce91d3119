"""Target velocities of round 2 against osim-rl's own generator of them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest

from gaitfleet.task.prosthetics import target_track
from rollout.environments.opensim_compatibility import ProstheticsEnv

ROWS = 1001
TRACKS = 350


@pytest.fixture(autouse=True)
def _global_generators() -> Iterator[None]:
    """osim-rl draws from the global generators; other tests get them back as they were."""
    states = random.getstate(), np.random.get_state()
    random.seed(1)
    np.random.seed(1)
    yield
    random.setstate(states[0])
    np.random.set_state(states[1])


def official_track() -> np.ndarray:
    environment = SimpleNamespace(time_limit=ROWS - 1)
    ProstheticsEnv.generate_new_targets(environment)
    return np.asarray(environment.targets, np.float32)


def changes_of(track: np.ndarray) -> np.ndarray:
    """Of every change: steps since the one before (or the start), and the changes of speed and heading.

    Three changes for the slower can make the speed negative, which turns the target round; the line on which it points
    turns by the heading's change alone.
    """
    speed, heading = np.hypot(track[:, 0], track[:, 2]), np.arctan2(track[:, 2], track[:, 0])
    at = 1 + np.flatnonzero(np.any(np.diff(track, axis=0) != 0, axis=1))
    turn = np.mod(np.diff(heading)[at - 1] + np.pi / 2, np.pi) - np.pi / 2
    return np.column_stack([np.diff(at, prepend=0), np.diff(speed)[at - 1], turn])


def test_tracks_have_the_distribution_of_osim_rls() -> None:
    """Two-sample Kolmogorov-Smirnov on intervals, speeds and headings of some 1200 changes each: at a level of 0.001
    the bound is 1.95 sqrt(2 / n)."""
    tracks = [target_track(seed, ROWS) for seed in range(TRACKS)], [official_track() for _ in range(TRACKS)]
    ours, theirs = (np.concatenate([changes_of(track) for track in drawn]) for drawn in tracks)
    assert min(len(ours), len(theirs)) > 1000
    assert len(ours) == pytest.approx(len(theirs), rel=0.05)
    for mine, official in zip(ours.T, theirs.T, strict=True):
        values = np.concatenate([mine, official])
        below = (np.searchsorted(np.sort(sample), values, side="right") / len(sample) for sample in (mine, official))
        assert np.abs(np.subtract(*below)).max() < 1.95 * np.sqrt(2 / min(len(mine), len(official)))
    assert np.abs(ours[:, 1]).max() <= 0.5 + 1e-6
    assert np.abs(ours[:, 2]).max() <= np.pi / 8 + 1e-6


def test_a_track_is_its_seeds_alone() -> None:
    first = target_track(7, ROWS)
    np.random.seed(99)
    np.testing.assert_array_equal(target_track(7, ROWS), first)
    assert len({target_track(seed, ROWS).tobytes() for seed in range(50)}) == 50
    np.testing.assert_array_equal(target_track(7, 301), first[:301])
