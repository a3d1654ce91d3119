"""State layouts and ids."""

import time
import uuid

import pytest

from gaitfleet.errors import LayoutError
from gaitfleet.identity import episode_seed, new_episode_id
from gaitfleet.layout import Column, StateLayout
from gaitfleet.task.prosthetics_layout import prosthetics_layout


def layout(*names: str) -> StateLayout:
    return StateLayout(tuple(Column(name, "m", "up", "g") for name in names))


def test_a_missing_column_is_named_with_its_neighbours() -> None:
    with pytest.raises(LayoutError, match=r"no column 'body_pos/pelvis/w' .* did you mean body_pos/pelvis"):
        prosthetics_layout("3D").index("body_pos/pelvis/w")


def test_a_column_that_stands_twice_is_refused() -> None:
    with pytest.raises(LayoutError, match="'a' stands twice"):
        layout("a", "b", "a")


def test_the_hash_follows_names_units_and_order() -> None:
    assert layout("a", "b").hash != layout("b", "a").hash
    assert layout("a").hash != StateLayout((Column("a", "cm", "up", "g"),)).hash
    assert layout("a").hash == StateLayout((Column("a", "m", "down", "h"),)).hash


def test_episode_ids_are_uuid7_and_sort_by_time() -> None:
    first = new_episode_id()
    time.sleep(0.002)
    second = new_episode_id()
    assert first.version == second.version == 7
    assert first.variant == uuid.RFC_4122
    assert str(first) < str(second)


def test_seeds_differ_between_workers_and_episodes_and_repeat_for_the_same() -> None:
    seeds = {episode_seed(0, worker, n) for worker in ("a", "b") for n in range(100)}
    assert len(seeds) == 200
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert episode_seed(0, "a", 1) == episode_seed(0, "a", 1)
