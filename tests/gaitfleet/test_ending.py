"""Abort rules: off by default, each on its own quantity, never in evaluation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gaitfleet.experiment import ProstheticsTask
from gaitfleet.task import Task, make_task
from gaitfleet.trajectory import Trajectory

RULES = {"head_behind_pelvis": 0.2, "head_sideways": 0.5, "coach_reward_below": -10}


def aborted(task: Task, **columns: float) -> bool:
    """As the worker asks."""
    state = np.zeros((2, len(task.description.state_layout)), np.float32)
    for name, value in columns.items():
        state[1, task.description.state_layout.index(name.replace("__", "/"))] = value
    step = Trajectory(state, np.zeros((1, 19), np.float32), np.zeros(1, np.float32), np.ones(1, np.uint8))
    return task.may_abort and bool(task.aborted(step)[0])


@pytest.mark.parametrize(
    ("rule", "within", "beyond"),
    [
        ("head_behind_pelvis", {"body_pos__head__x": -0.19}, {"body_pos__head__x": -0.21}),
        ("head_behind_pelvis", {"body_pos__head__x": 5.0}, {"body_pos__pelvis__x": 0.3}),
        ("head_sideways", {"body_pos__head__z": 0.49}, {"body_pos__head__z": 0.51}),
        ("head_sideways", {"body_pos__head__z": -0.49}, {"body_pos__head__z": -0.51}),
        # standing pays 156.46; a vertical speed of v costs 5 v^2, so that -10 is reached at 5.77 m/s
        ("coach_reward_below", {"body_vel__pelvis__y": -5.7}, {"body_vel__pelvis__y": -5.8}),
    ],
)
def test_a_rule_aborts_beyond_its_bound_and_only_when_asked_for(
    rule: str, within: dict[str, float], beyond: dict[str, float]
) -> None:
    task = make_task(ProstheticsTask(ending={rule: RULES[rule]}))
    assert not aborted(task, **within)
    assert aborted(task, **beyond)
    assert not aborted(make_task(ProstheticsTask()), **beyond)
    assert not aborted(task.for_evaluation(), **beyond)


@pytest.mark.parametrize(
    ("reward", "aborts"),
    [
        ({"preset": "round1"}, False),
        ({"preset": "coach"}, False),
        ({"preset": "coach", "scale": 0.001}, False),
        ({"preset": "coach", "weights": {"survival": -100}}, True),
        ({"preset": "coach-2018", "weights": {"survival": -100}}, True),
        ({"preset": "round1", "weights": {"survival": -100}}, False),
    ],
)
def test_the_coach_that_aborts_is_the_runs_own_where_it_has_one(reward: dict[str, Any], aborts: bool) -> None:
    assert aborted(make_task(ProstheticsTask(reward=reward, ending=RULES))) == aborts


def test_an_abort_keeps_the_future_unless_the_file_says_otherwise() -> None:
    assert make_task(ProstheticsTask()).abort_bootstraps
    assert not make_task(ProstheticsTask(ending={"abort_bootstraps": False})).abort_bootstraps
