"""Actions: levels, limits, and how long a decision is held."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaitfleet.errors import ExperimentError
from gaitfleet.experiment import GymnasiumTask, ProstheticsTask, parse_experiment
from gaitfleet.task import make_task

SEEDS = st.integers(0, 2**31 - 1)


@given(bins=st.integers(2, 256), seed=SEEDS)
def test_only_the_levels_reach_the_simulator_and_each_is_the_nearest(bins: int, seed: int) -> None:
    task = make_task(ProstheticsTask(action={"bins": bins}))
    action = np.random.default_rng(seed).uniform(-1.5, 1.5, (20, 19)).astype(np.float32)
    received = task.to_simulator(action)
    levels = (np.arange(bins) / (bins - 1)).astype(np.float32)
    assert received.dtype == np.float32
    assert np.isin(received, levels).all()
    wanted = np.clip((action + 1) / 2, 0, 1)
    assert np.abs(received - wanted).max() <= 0.5 / (bins - 1) + 1e-6
    np.testing.assert_array_equal(task.to_simulator(task.to_policy(received)), received)


def test_every_level_can_be_reached_and_a_half_goes_up() -> None:
    task = make_task(ProstheticsTask(action={"bins": 3}))
    halves = np.repeat(np.array([[-1.0], [-0.5], [0.0], [0.5], [1.0]], np.float32), 19, axis=1)
    assert task.to_simulator(halves)[:, 0].tolist() == [0.0, 0.5, 0.5, 1.0, 1.0]


@given(seed=SEEDS, bins=st.none() | st.integers(2, 9))
def test_a_limited_muscle_stays_within_its_limits_and_the_others_do_not_care(seed: int, bins: int | None) -> None:
    limits = {"vasti_l": (0.1, 0.35), "abd_r": (0.0, 0.5)}
    limited, free = (make_task(ProstheticsTask(action={"bins": bins, "limits": chosen})) for chosen in (limits, {}))
    action = np.random.default_rng(seed).uniform(-1, 1, (20, 19)).astype(np.float32)
    received = limited.to_simulator(action)
    names = limited.description.action_names
    for muscle, (low, high) in limits.items():
        values = received[:, names.index(muscle)]
        assert (values >= np.float32(low)).all()
        assert (values <= np.float32(high)).all()
    others = [i for i, name in enumerate(names) if name not in limits]
    assert received[:, others].tobytes() == free.to_simulator(action)[:, others].tobytes()
    if bins is None:
        np.testing.assert_allclose(limited.to_policy(received), action, atol=2e-6)


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.0), (1.0, -1.0), (-3e38, 3e38), (0.0, 1e39), (1.0, 1.0 + 1e-9)])
def test_bounds_between_which_there_is_nothing_are_refused(low: float, high: float) -> None:
    """Equal in float32, the wrong way round, or too far apart: every action would come out as NaN."""
    spaces = {"observation_size": 3, "action_low": [-1, low], "action_high": [1, high], "time_limit_steps": 9}
    with pytest.raises(ExperimentError, match=r"task\.spaces: action 1 has the bounds \["):
        parse_experiment({"task": {"environment": "gymnasium:Mine-v0", "spaces": spaces}})


def test_limits_of_no_muscle_or_beyond_an_excitation_are_refused() -> None:
    with pytest.raises(ExperimentError, match=r"unknown muscle 'vasti'; did you mean 'vasti_[lr]'"):
        make_task(ProstheticsTask(action={"limits": {"vasti": (0, 0.5)}}))
    with pytest.raises(ExperimentError, match=r"limits of vasti_r are \[0\.5, 1\.2\]"):
        parse_experiment({"task": {"action": {"limits": {"vasti_r": [0.5, 1.2]}}}})


@given(seed=SEEDS, repeat=st.integers(1, 6), extra=st.integers(0, 8), steps=st.integers(1, 90))
def test_a_decision_is_held_within_its_bounds_and_the_first_step_decides(
    seed: int, repeat: int, extra: int, steps: int
) -> None:
    action = {"repeat": repeat, "random_repeat": extra}
    task = make_task(GymnasiumTask(environment="gymnasium:Pendulum-v1", action=action, time_limit_steps=steps))
    decides = task.decisions(seed)
    assert decides.dtype == np.uint8
    assert len(decides) == steps
    assert decides[0] == 1
    lengths = np.diff(np.append(np.flatnonzero(decides), steps))
    assert (lengths <= repeat + extra).all()
    assert (lengths[:-1] >= repeat).all()
    np.testing.assert_array_equal(decides, task.decisions(seed))
    if extra == 0:
        np.testing.assert_array_equal(np.flatnonzero(decides), np.arange(0, steps, repeat))


def test_random_holds_are_uniform_and_differ_between_episodes() -> None:
    """The 2018 system's: 1 to 6 steps, each as often as the other."""
    task = make_task(ProstheticsTask(action={"repeat": 1, "random_repeat": 5}))
    lengths = [np.diff(np.flatnonzero(task.decisions(seed))) for seed in range(200)]
    counts = np.bincount(np.concatenate(lengths), minlength=7)
    assert counts[0] == 0
    assert counts[1:].sum() > 15_000
    np.testing.assert_allclose(counts[1:] / counts.sum(), 1 / 6, atol=0.01)
    assert len({length.tobytes() for length in lengths}) == 200


@pytest.mark.parametrize(
    "settings", [ProstheticsTask, lambda **k: GymnasiumTask(environment="gymnasium:Pendulum-v1", **k)]
)
def test_evaluation_holds_every_decision_equally_long(settings: type[ProstheticsTask]) -> None:
    task = make_task(settings(action={"repeat": 2, "random_repeat": 5})).for_evaluation()
    assert set(np.diff(np.flatnonzero(task.decisions(3)))) == {2}
