"""Observations: the 2018 system's against a walk through osim-rl's dictionary, histories, frames, names and units."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from gaitfleet.experiment import ProstheticsTask
from gaitfleet.layout import StateLayout
from gaitfleet.task import Task, make_task
from gaitfleet.task.prosthetics import OBSERVATIONS

Description = dict[str, dict[str, Any]]
"""A state as osim-rl tells it: group -> part -> list of numbers, or muscle -> quantity -> number."""

SIDED = ("femur", "tibia", "pros_tibia", "talus", "toes", "pros_foot", "calcn")
FORCES = [(f"{name}_l", f"{name}_r") for name in ("abd", "add", "hamstrings", "bifemsh", "glut_max", "iliopsoas")]
FORCES += [(f"{name}_l", f"{name}_r") for name in ("rect_fem", "vasti", "gastroc", "soleus", "tib_ant")]
FORCES += [("ankleSpring",), ("pros_foot_r",), ("foot_l", "foot_r")]
FORCES += [(f"{name}Limit_l", f"{name}Limit_r") for name in ("Hip", "Knee", "Ankle", "HipAdd")]
ABSENT_FORCES = {"foot_r": 24, "pros_foot_r": 18}


def described(row: np.ndarray, layout: StateLayout) -> Description:
    state: Description = {}
    for value, column in zip(row.tolist(), layout.columns, strict=True):
        group, part, rest = column.name.split("/")
        parts = state.setdefault(group, {})
        if group == "muscles":
            parts.setdefault(part, {})[rest] = value
        else:
            parts.setdefault(part, []).append(value)
    return state


def of_a_step(state: Description, target: tuple[float, float]) -> tuple[list[float], list[float]]:
    """Values of lower and of the highest order of one step, told again from the dictionary."""
    lower: list[float] = []
    highest: list[float] = []
    center = {kind: state["misc"][f"mass_center_{kind}"] for kind in ("pos", "vel", "acc")}
    names = ["head", "torso", "pelvis"]
    for part in SIDED:
        names += [f"{part}_r"] if part.startswith("pros") else [f"{part}_l", f"{part}_r"]
    for body in names:
        if body not in state["body_pos"]:
            lower += [0.0] * 12
            highest += [0.0] * 6
            continue
        for kind, values in (("pos", lower), ("vel", lower), ("acc", highest)):
            values += [a - b for a, b in zip(state[f"body_{kind}"][body], center[kind], strict=True)]
        for kind, values in (("pos", lower), ("vel", lower), ("acc", highest)):
            values.append(state[f"body_{kind}_rot"][body][2])
    for joint in ("ground_pelvis", "ankle_l", "ankle_r", "back", "hip_l", "hip_r", "knee_l", "knee_r"):
        lower += state["joint_pos"][joint] + state["joint_vel"][joint]
        highest += state["joint_acc"][joint]
    for _, muscle in sorted(state["muscles"].items()):
        highest += [muscle[name] for name in ("activation", "fiber_length", "fiber_velocity", "fiber_force")]
    for pair in FORCES:
        for force in pair:
            highest += state["forces"].get(force, [0.0] * ABSENT_FORCES.get(force, 1))
    lower += center["pos"] + center["vel"]
    highest += [*center["acc"], center["vel"][0] - target[0], center["vel"][2] - target[1]]
    return lower, highest


def random_rows(task: Task, rows: int, seed: int = 0) -> np.ndarray:
    scale = 10.0 ** np.random.default_rng(seed).uniform(-2, 3, len(task.description.state_layout))
    noise = np.random.default_rng(seed + 1).normal(size=(rows, len(scale)))
    return (noise * scale).astype(np.float32)


@pytest.mark.parametrize(("prosthetic", "highest", "size"), [(True, 271, 1260), (False, 279, 1284)])
@pytest.mark.parametrize("round_", [1, 2])
def test_seed_1260_equals_a_walk_through_the_dictionary(prosthetic: bool, highest: int, size: int, round_: int) -> None:
    """To the last bit, at the start of an episode and later; the steps before are simulator steps."""
    settings = {"observation": {"preset": "seed-1260"}, "prosthetic": prosthetic, "action": {"repeat": 4}}
    task = make_task(ProstheticsTask(**settings, round=round_))
    rows = random_rows(task, 7)
    track = task.target_velocities(3)
    targets = np.repeat([[3.0, 0.0, 0.0]], 7, axis=0).astype(np.float32) if track is None else track[293:300]
    states = [described(row, task.description.state_layout) for row in rows]
    told = [of_a_step(state, (float(t[0]), float(t[2]))) for state, t in zip(states, targets, strict=True)]
    assert [len(part) for part in told[0]] == [447 - highest, highest]
    observed = task.observe(rows, None if track is None else targets)
    assert observed.shape == (7, size) == (7, task.description.observation_size)
    for t in range(7):
        expected = [*told[t][0], *told[t][1]]
        for ago in (1, 2, 3):
            expected += told[max(t - ago, 0)][1]
        assert observed[t].tobytes() == np.array(expected, np.float32).tobytes()


def test_seed_1260_by_hand_and_by_name() -> None:
    """The head 0.57 m above the mass centre and pitched by 0.3 rad; the foot 0.08 m beside it; 1 m/s too slow."""
    task = make_task(ProstheticsTask(observation={"preset": "seed-1260"}))
    layout, names = task.description.state_layout, task.description.observation_names
    rows = np.zeros((4, len(layout)), np.float32)
    values = {"body_pos/head/y": 1.57, "misc/mass_center_pos/y": 1.0, "body_pos/pros_foot_r/z": 0.08}
    values |= {"body_pos_rot/head/z": 0.3, "misc/mass_center_vel/x": 2.0, "body_vel/head/x": 2.5}
    for name, value in values.items():
        rows[:, layout.index(name)] = value
    rows[:, layout.index("muscles/soleus_l/activation")] = [0.1, 0.2, 0.3, 0.4]
    last = dict(zip(names, task.observe(rows, None)[3].tolist(), strict=True))
    expected = {
        "body_pos/head/y/relative": 0.57,
        "body_pos/pros_foot_r/z/relative": 0.08,
        "body_pos_rot/head/z": 0.3,
        "body_vel/head/x/relative": 0.5,
        "velocity_error/x": -1.0,
        "t-3/velocity_error/x": -1.0,
        "muscles/soleus_l/activation": 0.4,
        "t-1/muscles/soleus_l/activation": 0.3,
        "t-3/muscles/soleus_l/activation": 0.1,
    }
    assert {name: last[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert {name: value for name, value in last.items() if "absent" in name and value != 0} == {}
    assert not any(name.startswith("t-") and "_pos/" in name for name in names)


@pytest.mark.parametrize("prosthetic", [True, False])
@pytest.mark.parametrize("settings", [*({"preset": name} for name in OBSERVATIONS), {"history": 2}], ids=str)
def test_every_value_has_a_name_of_its_own_and_a_unit(settings: dict[str, Any], prosthetic: bool) -> None:
    description = make_task(ProstheticsTask(observation=settings, prosthetic=prosthetic)).description
    assert len(description.observation_units) == description.observation_size
    assert all(description.observation_units)
    assert len(set(description.observation_names)) == description.observation_size


def test_a_history_is_what_was_observed_at_the_decisions_before() -> None:
    """Two decisions of 3 steps before; at the start of the episode its first observation, as often as needed."""
    alone, both = (
        make_task(ProstheticsTask(action={"repeat": 3}, observation={"history": history})) for history in (0, 2)
    )
    rows = random_rows(alone, 11)
    single, stacked = alone.observe(rows, None), both.observe(rows, None)
    for t in range(11):
        expected = np.concatenate([single[t], single[max(t - 3, 0)], single[max(t - 6, 0)]])
        assert stacked[t].tobytes() == expected.tobytes()
    names, size = both.description.observation_names, alone.description.observation_size
    assert names[:size] == alone.description.observation_names
    assert names[size] == f"t-3/{names[0]}"
    assert names[2 * size :] == tuple(f"t-6/{name}" for name in names[:size])
    assert both.description.observation_hash != alone.description.observation_hash


@pytest.mark.parametrize(
    ("yaw", "target", "ahead", "right"),
    [
        (0.0, (1.0, 0.0, 0.5), 1.0, 0.5),
        (math.pi / 2, (0.0, 0.0, -1.2), 1.2, 0.0),  # facing left, as asked for
        (math.pi / 2, (1.2, 0.0, 0.0), 0.0, 1.2),
        (-math.pi / 4, (1.0, 0.0, 0.0), math.sqrt(0.5), -math.sqrt(0.5)),
    ],
)
def test_the_target_velocity_is_seen_in_the_frame_of_the_pelvis(
    yaw: float, target: tuple[float, float, float], ahead: float, right: float
) -> None:
    """And so is the pelvis' velocity, here 0.7 m/s straight ahead, less the target."""
    task = make_task(ProstheticsTask(round=2))
    layout = task.description.state_layout
    row = np.zeros((1, len(layout)), np.float32)
    row[0, layout.index("body_pos_rot/pelvis/y")] = yaw
    row[0, layout.index("body_vel/pelvis/x")] = 0.7 * math.cos(yaw)
    row[0, layout.index("body_vel/pelvis/z")] = -0.7 * math.sin(yaw)
    observed = dict(
        zip(
            task.description.observation_names,
            task.observe(row, np.array([target], np.float32))[0].tolist(),
            strict=True,
        )
    )
    expected = {"target_velocity/ahead": ahead, "target_velocity/right": right}
    expected |= {"velocity_error/ahead": 0.7 - ahead, "velocity_error/right": -right}
    assert {name: observed[name] for name in expected} == pytest.approx(expected, abs=1e-6)
