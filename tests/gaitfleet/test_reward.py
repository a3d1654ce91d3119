"""Reward presets: every formula by hand on rows made for it, and the coach against a plain recomputation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, get_args

import numpy as np
import pytest

from gaitfleet.experiment import ProstheticsRewardSettings, ProstheticsTask
from gaitfleet.layout import StateLayout
from gaitfleet.task import Task, make_task
from gaitfleet.task.prosthetics_reward import PRESETS, TERMS
from gaitfleet.trajectory import Trajectory


def rewarded(preset: str, **settings: Any) -> Task:
    reward = {"preset": preset, "scale": 1.0} | settings.pop("reward", {})
    return make_task(ProstheticsTask(reward=reward, **settings))


def rows(layout: StateLayout, *columns: Mapping[str, float]) -> np.ndarray:
    state = np.zeros((len(columns), len(layout)), np.float32)
    for row, values in zip(state, columns, strict=True):
        for name, value in values.items():
            row[layout.index(name)] = value
    return state


def one_step(
    task: Task,
    after: Mapping[str, float],
    before: Mapping[str, float] | None = None,
    action: float = 0.0,
    target: tuple[float, float, float] | None = None,
) -> Trajectory:
    """A step to a row that is zero but for `after`."""
    return Trajectory(
        rows(task.description.state_layout, before or {}, after),
        np.full((1, task.description.action_size), action, np.float32),
        np.zeros(1, np.float32),
        np.ones(1, np.uint8),
        None if target is None else np.array([target, target], np.float32),
    )


def terms_of(task: Task, step: Trajectory) -> dict[str, float]:
    return {name: float(value[0]) for name, value in task.reward_terms(step).items()}


def test_the_file_names_exactly_the_presets_there_are() -> None:
    named = get_args(ProstheticsRewardSettings.model_fields["preset"].annotation)
    assert set(named) == set(PRESETS)
    for preset in PRESETS.values():
        assert set(preset.weights_in(1)) | set(preset.weights_in(2)) <= set(TERMS)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("settings", [{}, {"round": 2}, {"prosthetic": False}, {"model": "2D"}], ids=str)
def test_terms_add_up_to_what_is_learned(preset: str, settings: dict[str, Any]) -> None:
    task = rewarded(preset, **settings, reward={"scale": 0.5})
    description = task.description
    generator = np.random.default_rng(0)
    velocities = task.target_velocities(0)
    trajectory = Trajectory(
        generator.normal(size=(31, len(description.state_layout))).astype(np.float32),
        generator.random((30, description.action_size), np.float32),
        np.zeros(30, np.float32),
        np.ones(30, np.uint8),
        None if velocities is None else velocities[:31],
    )
    terms = task.reward_terms(trajectory)
    assert all(term.shape == (30,) and term.dtype == np.float64 for term in terms.values())
    np.testing.assert_allclose(task.reward(trajectory), 0.5 * sum(terms.values()), rtol=1e-5, atol=1e-5)


def test_walk_is_a_base_a_saturating_speed_and_a_posture() -> None:
    """At the target speed, leaning back 0.5 m, 5 cm low, turned by 0.2 rad, feet in line, the right knee straight."""
    task = rewarded("walk")
    after = {
        "body_vel/pelvis/x": 1.25,
        "body_vel/pelvis/z": 0.1,
        "body_pos/pelvis/x": 0.5,
        "body_pos/pelvis/y": 0.7,
        "body_pos_rot/pelvis/y": 0.2,
        "joint_pos/knee_r/knee_angle_r": -0.1,
        "joint_pos/knee_l/knee_angle_l": -1.0,
        "muscles/soleus_l/activation": 0.5,
    }
    assert terms_of(task, one_step(task, after)) == pytest.approx(
        {
            "alive": 1.0,
            "forward_velocity": 3 * math.tanh(1.5),
            "lateral_velocity": -2 * math.tanh(0.2) ** 2,
            "lean_back": -4 * 0.3,
            "low_pelvis": -10 * 0.05,
            "heading": -(0.2**2),
            "feet_crossing": -10 * 0.176**2,
            "straight_knee": -0.5 * 0.2,
            "effort": -0.02 * 0.5**2,
            "beyond_limits": 0.0,
        },
        rel=1e-5,
    )


@pytest.mark.parametrize(("speed", "yaw", "learned"), [(-5.0, 3.0, -1.5), (5.0, 0.0, 0.4), (-5.0, 0.0, -0.2)])
def test_walk_is_kept_within_its_limits_after_its_scale(speed: float, yaw: float, learned: float) -> None:
    """0.1 (1 + 3 tanh(1.5 v / 1.25) - yaw^2), within [-1.5, 2]; the pelvis is high and the feet are far apart. Leaning
    back by 2 m takes another 0.72, which the limit gives back."""
    task = make_task(ProstheticsTask(reward={"preset": "walk"}))
    after = {
        "body_vel/pelvis/x": speed,
        "body_pos/pelvis/y": 0.9,
        "body_pos/pros_foot_r/z": 0.2,
        "body_pos_rot/pelvis/y": yaw,
        "joint_pos/knee_r/knee_angle_r": -1.0,
        "joint_pos/knee_l/knee_angle_l": -1.0,
        "body_pos/head/x": -2.0 if yaw else 0.0,
    }
    step = one_step(task, after)
    assert task.reward(step)[0] == pytest.approx(learned, abs=1e-4)
    assert 0.1 * sum(terms_of(task, step).values()) == pytest.approx(learned, abs=1e-4)


def test_run_fastest_pays_for_the_faster_shin_and_little_for_posture() -> None:
    """0.05 m of the right shin; the head 0.15 m too far back and beyond the limit to the left; a knee 0.05 too far."""
    task = rewarded("run_fastest")
    before = {"body_pos/tibia_l/x": 1.0, "body_pos/pros_tibia_r/x": 0.5}
    after = {
        "body_pos/tibia_l/x": 1.02,
        "body_pos/pros_tibia_r/x": 0.55,
        "body_pos/pelvis/x": 0.5,
        "body_pos/head/x": 0.2,
        "body_pos/head/z": -0.6,
        "joint_pos/knee_r/knee_angle_r": 0.15,
        "joint_pos/knee_l/knee_angle_l": -0.3,
    }
    assert terms_of(task, one_step(task, after, before)) == pytest.approx(
        {
            "shin_advance": 0.05,
            "limited_lean_back": -0.15 * 0.05 * 0.15,
            "limited_lean_left": -0.15 * 0.05 * 0.3,
            "overextended_knee": -0.15 * 0.03 * 0.05,
        },
        rel=1e-5,
    )


@pytest.mark.parametrize(("excitation", "effort"), [(0.0, 1.5), (0.2, 1.5), (1.0, math.sqrt(19))])
def test_fixed_target_speed_charges_effort_only_above_its_floor(excitation: float, effort: float) -> None:
    task = rewarded("fixed_target_speed", reward={"target_speed": 3.0, "effort_floor": 1.5})
    step = one_step(task, {"body_vel/pelvis/x": 2.5, "body_vel/pelvis/z": 0.5}, action=excitation)
    assert task.reward(step)[0] == pytest.approx(36 - 0.5**2 - 0.5**2 - 5 * effort, rel=1e-6)


FEET_BEHIND = {"body_pos/head/y": 0.6, "body_pos/toes_l/x": -0.1, "body_pos/pros_foot_r/x": -0.1}


@pytest.mark.parametrize(("left_z", "volume"), [(0.1, -0.012), (-0.1, 0.0)])
def test_catalyst_punishes_crossed_legs_by_the_triple_product(left_z: float, volume: float) -> None:
    """Feet 0.1 m behind and 1 m below the pelvis: (l x r) . h = 2 * 0.1 * 0.1 * 0.6, negative when crossed."""
    task = rewarded("catalyst", round=2)
    after = FEET_BEHIND | {
        "body_pos/toes_l/y": -1.0,
        "body_pos/pros_foot_r/y": -1.0,
        "body_pos/toes_l/z": left_z,
        "body_pos/pros_foot_r/z": -left_z,
        "body_vel/pelvis/x": 1.0,
        "muscles/abd_r/activation": 0.5,
    }
    step = one_step(task, after, target=(1.5, 0.0, -0.5))
    official = 10 - 0.5**2 - 0.5**2 - 0.001 * 0.5**2
    assert task.reward(step)[0] == pytest.approx(official - 10 + 2 + 10 * volume, rel=1e-5)


MATTIAS_ROW = {
    "body_vel/pelvis/x": 2.0,
    "joint_pos/knee_r/knee_angle_r": -0.2,
    "joint_pos/knee_l/knee_angle_l": -1.0,
    "body_pos/pros_foot_r/z": 0.2,
    "body_pos/toes_l/z": 0.1,
    "body_pos/femur_r/z": 0.1,
    "body_pos/femur_l/z": -0.1,
}


def test_mattias_in_round_1_is_the_official_reward_and_a_posture() -> None:
    task = rewarded("mattias")
    posture = {
        "unflexed_knee": -0.5 * 0.3,
        "splayed_legs": -5 * (0.1**2 + 0.2**2),
        "heading": 0.0,
        "feet_separation_error": -100 * 0.076**2,
    }
    expected = {"alive": 9.0, "speed_error": -1.0, **posture, "posture_beyond_limit": 0.0}
    assert terms_of(task, one_step(task, MATTIAS_ROW)) == pytest.approx(expected, rel=1e-5, abs=1e-9)


def test_mattias_takes_at_most_nine_for_the_posture() -> None:
    task = rewarded("mattias")
    step = one_step(task, MATTIAS_ROW | {"body_pos_rot/pelvis/y": 2.0})
    assert terms_of(task, step)["heading"] == pytest.approx(-40, rel=1e-5)
    assert task.reward(step)[0] == pytest.approx(9 - 1 - 9, rel=1e-5)


@pytest.mark.parametrize(("speed", "penalty"), [(1.0, 0.0), (1.5, 8 * 0.5**2), (-5.0, 12.0)])
def test_mattias_in_round_2_caps_the_official_penalty_and_turns_with_the_target(speed: float, penalty: float) -> None:
    """The target and the pelvis point 45 degrees to the right; both feet are 0.1 rad off, and a hip's width apart."""
    task = rewarded("mattias", round=2)
    yaw, width = -math.pi / 4, 0.176 / math.sqrt(2)
    after = {
        "body_vel/pelvis/x": speed,
        "body_vel/pelvis/z": 1.0,
        "body_pos_rot/pelvis/y": yaw,
        "body_pos_rot/pros_foot_r/y": yaw + 0.1,
        "body_pos_rot/toes_l/y": yaw - 0.1,
        "joint_pos/knee_r/knee_angle_r": -1.0,
        "joint_pos/knee_l/knee_angle_l": -1.0,
        **{f"body_pos/{body}/x": -width for body in ("pros_foot_r", "femur_r")},
        **{f"body_pos/{body}/z": width for body in ("pros_foot_r", "femur_r")},
    }
    step = one_step(task, after, target=(1.0, 0.0, 1.0))
    assert task.reward(step)[0] == pytest.approx(10 - penalty - 20 * 2 * 0.1**2, rel=1e-4)


@pytest.mark.parametrize("pelvis_yaw", [0.0, 0.5])
def test_mattias_measures_feet_across_the_target_wherever_the_pelvis_points(pelvis_yaw: float) -> None:
    """The target is 0.6 forward, 0.8 to the right, so across it is (-0.8, 0.6): the right foot is 0.3 m on that side of
    the left toes, 0.2 m beside its thigh; the left toes are 0.1 m on the other side of theirs."""
    task = rewarded("mattias", round=2)
    across = {"x": -0.8, "z": 0.6}
    after = {"body_pos_rot/pelvis/y": pelvis_yaw}
    for body, distance in (("pros_foot_r", 0.3), ("toes_l", 0.0), ("femur_r", 0.1), ("femur_l", 0.1)):
        after |= {f"body_pos/{body}/{axis}": distance * share for axis, share in across.items()}
    terms = terms_of(task, one_step(task, after, target=(0.6, 0.0, 0.8)))
    assert terms["feet_separation_error"] == pytest.approx(-10 * (0.3 - 0.176) ** 2, rel=1e-5)
    assert terms["splayed_legs"] == pytest.approx(-5 * (0.2**2 + 0.1**2), rel=1e-5)
    turn = math.atan2(-0.8, 0.6) - pelvis_yaw
    assert terms["heading_error"] == pytest.approx(-20 * turn**2, rel=1e-5)


def test_the_feet_of_the_official_first_pose_are_far_enough_apart() -> None:
    """Lateral positions of osim-rl's first pose; its heels are 1 mm closer together."""
    pose = {"body_pos/pros_foot_r/z": 0.0835, "body_pos/toes_l/z": -0.0925, "body_pos/calcn_l/z": -0.09142}
    for preset, term in (("walk", "feet_crossing"), ("mattias", "feet_separation_error")):
        task = rewarded(preset)
        assert terms_of(task, one_step(task, pose))[term] == pytest.approx(0.0, abs=1e-12)


STANDING_COACH = {
    "survival": 100.0,
    "target_velocity_x": 3 * (1 - 0.6**2),
    "target_velocity_z": 3.0,
    "head_velocity_x": 2 * (1 - 0.6**2),
    "head_velocity_z": 2.0,
    "lean_forward_x": 5 * (1 - 0.75**2),
    "lean_forward_z": 5.0,
    "hips_squared": 5.0,
    "knee_bent_l": 5 * 8 / 9,
    "knee_bent_r": 5 * 8 / 9,
    "low_y_vel_pelvis": 5.0,
    "low_y_vel_head": 5.0,
    "low_y_vel_toes_l": 5.0,
    "low_y_vel_pros_foot_r": 5.0,
    "knees_opposite_joint_vel": 0.0,
    "feet_behind_mass_x": 5 * (1 - 0.75**2),
    "feet_behind_mass_z": 5.0,
    "one_foot_off_ground": 0.0,
    "femurs_parallel": 0.0,
    "absolute_foot_velocity": 0.0,
    "forefoot_strike": 0.0,
}


@pytest.mark.parametrize("preset", ["coach", "coach-2018"])
def test_the_coach_has_21_terms_and_pays_157_for_standing_stock_still(preset: str) -> None:
    task = rewarded(preset)
    terms = terms_of(task, one_step(task, {}))
    assert len(terms) == 21
    assert terms == pytest.approx(STANDING_COACH, rel=1e-6)


def plain_coach(row: Mapping[str, float], sign: int) -> float:
    """The 2018 system's reward of a row for round 1, written out; `sign` is that of a flexed knee."""

    def parabola(value: float, target: float, tolerance: float) -> float:
        return 1 - ((value - target) / tolerance) ** 2

    knees = {side: row[f"joint_pos/knee_{side}/knee_angle_{side}"] for side in "lr"}
    speeds = {side: row[f"joint_vel/knee_{side}/knee_angle_{side}"] for side in "lr"}
    yaw = row["body_pos_rot/pelvis/y"] % (2 * math.pi)
    total = 100 + 5 * parabola(min(yaw, 2 * math.pi - yaw), 0, math.pi)
    for axis, target in (("x", 3.0), ("z", 0.0)):
        feet = (row[f"body_pos/toes_l/{axis}"] + row[f"body_pos/pros_foot_r/{axis}"]) / 2
        lean = row[f"body_pos/head/{axis}"] - row[f"body_pos/pelvis/{axis}"]
        total += 3 * parabola(row[f"misc/mass_center_vel/{axis}"], target, 5)
        total += 2 * parabola(row[f"body_vel/head/{axis}"], target, 5)
        total += 5 * parabola(lean, 0.1 * target, 0.4)
        total += 5 * parabola(row[f"misc/mass_center_pos/{axis}"] - feet, 0.1 * target, 0.4)
    for body in ("pelvis", "head", "toes_l", "pros_foot_r"):
        total += 5 * parabola(row[f"body_vel/{body}/y"], 0, 1)
    total += sum(5 * parabola(knee, sign * math.radians(60), math.pi) for knee in knees.values())
    if sign * (knees["l"] + knees["r"]) / 2 >= math.radians(45):
        total += 3 * parabola(speeds["l"], -speeds["r"], math.pi)
    return total


@pytest.mark.parametrize(("preset", "sign"), [("coach-2018", 1), ("coach", -1)])
def test_the_coach_equals_a_plain_recomputation(preset: str, sign: int) -> None:
    task = rewarded(preset)
    names = [column.name for column in task.description.state_layout.columns]
    state = np.random.default_rng(1).normal(size=(201, len(names))).astype(np.float32)
    step = Trajectory(state, np.zeros((200, 19), np.float32), np.zeros(200, np.float32), np.ones(200, np.uint8))
    expected = [plain_coach(dict(zip(names, row.tolist(), strict=True)), sign) for row in state[1:]]
    np.testing.assert_allclose(task.reward(step), expected, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize(("preset", "bent", "opposite"), [("coach", 5.0, 3.0), ("coach-2018", 5 * 5 / 9, 0.0)])
def test_only_the_mended_coach_wants_knees_that_can_be_had(preset: str, bent: float, opposite: float) -> None:
    """Both knees flexed by 60 degrees, one opening as fast as the other closes."""
    task = rewarded(preset)
    after = {f"joint_pos/knee_{side}/knee_angle_{side}": -math.pi / 3 for side in "lr"}
    after |= {"joint_vel/knee_l/knee_angle_l": 2.0, "joint_vel/knee_r/knee_angle_r": -2.0}
    terms = terms_of(task, one_step(task, after))
    assert terms["knee_bent_l"] == terms["knee_bent_r"] == pytest.approx(bent, rel=1e-6)
    assert terms["knees_opposite_joint_vel"] == pytest.approx(opposite, rel=1e-6)


@pytest.mark.parametrize(("preset", "follows"), [("coach", True), ("coach-2018", False)])
def test_only_the_mended_coach_follows_the_target(preset: str, follows: bool) -> None:
    task = rewarded(preset, round=2)
    step = one_step(task, {"misc/mass_center_vel/x": 1.25}, target=(1.25, 0.0, 0.0))
    assert terms_of(task, step)["target_velocity_x"] == pytest.approx(3.0 if follows else 3 * (1 - 0.35**2), rel=1e-6)
