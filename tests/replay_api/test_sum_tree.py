"""The sum-tree against a naive cumulative sum."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from replay_api.services.sum_tree import SumTree


@pytest.fixture(params=[0, 2, 12], autouse=True)
def shortcut(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trees that are descended from the root, from below it, and that are all running sum."""
    monkeypatch.setattr("replay_api.services.sum_tree.SHORTCUT_LEVEL", request.param)


@given(
    size=st.integers(1, 70),
    writes=st.lists(st.tuples(st.integers(0, 69), st.floats(0, 100)), min_size=1, max_size=60),
    points=st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=20),
)
@hypothesis_settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_it_finds_what_a_cumulative_sum_finds(size: int, writes: list[tuple[int, float]], points: list[float]) -> None:
    tree, naive = SumTree(size), np.zeros(size)
    for start in range(0, len(writes), 7):
        chunk = [(position % size, value) for position, value in writes[start : start + 7]]
        tree.set(np.array([position for position, _ in chunk]), np.array([value for _, value in chunk]))
        for position, value in chunk:
            naive[position] = value
    np.testing.assert_array_equal(tree.get(np.arange(size)), naive)
    np.testing.assert_allclose(tree.total, naive.sum(), rtol=1e-12, atol=1e-12)
    if tree.total < 1e-9:
        return
    found = tree.find(np.array(points) * tree.total)
    edges = np.concatenate([[0.0], np.cumsum(naive)])
    for point, leaf in zip(np.array(points) * tree.total, found, strict=True):
        slack = 1e-9 * tree.total
        assert naive[leaf] > 0
        assert edges[leaf] - slack <= point <= edges[leaf + 1] + slack


def test_an_empty_leaf_is_never_found() -> None:
    tree = SumTree(5)
    tree.set(np.array([0, 2]), np.array([1.0, 1.0]))
    prefix = np.concatenate([np.linspace(0, 2, 1000, endpoint=False), [np.nextafter(2.0, 0)]])
    assert set(tree.find(prefix)) == {0, 2}
