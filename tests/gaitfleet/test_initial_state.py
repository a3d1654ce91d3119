"""Initial states: how often strides are drawn, that the seed decides, and that an episode cannot lie about its pose."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from tests.replay_api.fleet import play

from gaitfleet import codec
from gaitfleet.episode import METADATA_KEY, Episode, check_episode, decode_episode, encode_episode
from gaitfleet.errors import CodecError
from gaitfleet.experiment import ProstheticsTask, parse_experiment
from gaitfleet.pose import Pose
from gaitfleet.task import Task, make_task
from gaitfleet.task.prosthetics_layout import LOCKED_COORDINATES


def walker(model: str = "3D", prosthetic: bool = True, **initial_state: Any) -> Task:
    block = {"kind": "stride", **initial_state}
    return make_task(ProstheticsTask.model_validate({"model": model, "prosthetic": prosthetic, "initial_state": block}))


def share_of_strides(task: Task, training_episodes: int) -> float:
    return float(np.mean([task.initial_pose(seed, training_episodes) is not None for seed in range(2000)]))


def test_strides_anneal_to_the_official_pose_by_the_episodes_of_the_run() -> None:
    task = walker(official_share=0.2, anneal_episodes=1000)
    for played, expected in ((0, 0.8), (500, 0.4), (900, 0.08), (1000, 0.0), (5000, 0.0)):
        assert share_of_strides(task, played) == pytest.approx(expected, abs=0.03)
    assert share_of_strides(walker(anneal_episodes=None), 10**6) == pytest.approx(0.8, abs=0.03)


def test_the_official_pose_is_the_default_and_always_that_of_evaluation() -> None:
    assert share_of_strides(make_task(ProstheticsTask()), 0) == 0
    evaluation = walker(official_share=0).for_evaluation()
    assert share_of_strides(evaluation, 0) == 0
    assert not evaluation.description.has_initial_pose


def test_the_seed_decides_the_pose() -> None:
    task = walker(official_share=0)
    poses = [task.initial_pose(seed, 0) for seed in (1, 2, 1)]
    assert poses[0] == poses[2] != poses[1]


@pytest.mark.parametrize("prosthetic", [True, False])
@pytest.mark.parametrize("model", ["2D", "3D"])
def test_a_stride_stands_on_one_leg_swings_the_other_and_moves_forward(model: Any, prosthetic: bool) -> None:
    poses = [walker(model, prosthetic, official_share=0).initial_pose(seed, 0) for seed in range(400)]
    strides = [pose for pose in poses if pose is not None]
    knees = np.array([sorted(pose.value[f"knee_angle_{side}"] for side in "rl") for pose in strides])
    assert (knees[:, 0] < -0.9).all()  # one is bent: flexion is negative
    assert ((knees[:, 1] < 0) & (knees[:, 1] > -0.2)).all()  # one is nearly straight
    left = np.mean([pose.value["knee_angle_l"] > -0.5 for pose in strides])
    assert 0.4 < left < 0.6
    forward = np.array([pose.speed["pelvis_tx"] for pose in strides])
    assert forward.min() >= 0
    assert forward.max() <= 3.5
    assert forward.mean() == pytest.approx(1.5 * np.sqrt(2 / np.pi), abs=0.15)  # |N(0, 1.5)|
    for pose in strides:
        stance = "l" if pose.value["knee_angle_l"] > -0.5 else "r"
        swing = "rl"[stance == "r"]
        assert pose.speed[f"hip_flexion_{stance}"] <= 0 <= pose.speed[f"hip_flexion_{swing}"]
        assert not (pose.value.keys() | pose.speed.keys()) & set(LOCKED_COORDINATES[model])
        assert ("ankle_angle_r" in pose.value) == (not prosthetic)


def stride_episode(pose: Pose) -> Episode:
    """Its first row shows the pose."""
    played = play(make_task(ProstheticsTask()), "walker", initial_pose=pose)
    layout = make_task(ProstheticsTask()).description.state_layout
    state = played.trajectory.state.copy()
    names = [(c.group, c.name.rpartition("/")[2]) for c in layout.columns]
    for group, told in (("joint_pos", pose.value), ("joint_vel", pose.speed)):
        for name, number in told.items():
            state[0, names.index((group, name))] = number
    return Episode(played.metadata, dataclasses.replace(played.trajectory, state=state))


def test_the_pose_travels_with_the_episode_to_the_last_bit() -> None:
    task = walker(official_share=0)
    pose = task.initial_pose(3, 0)
    assert pose is not None
    received = decode_episode(encode_episode(stride_episode(pose)))
    check_episode(received, "walker", task.description)
    assert received.metadata.initial_pose == pose


@pytest.mark.parametrize(
    ("told", "field", "words"),
    [
        ({"knee_angle_l": -0.5}, "initial_pose.value.knee_angle_l", "is -0.5, but the first row says -0.1"),
        ({"elbow_flexion": 0.1}, "initial_pose.value.elbow_flexion", "no such coordinate"),
    ],
)
def test_a_pose_that_is_not_in_the_first_row_is_refused(told: dict[str, float], field: str, words: str) -> None:
    shown = stride_episode(Pose(value={"knee_angle_l": -0.1}, speed={"pelvis_tx": 1.0}))
    lying = shown.metadata.model_copy(update={"initial_pose": Pose(value=told, speed={})})
    with pytest.raises(CodecError, match=words) as caught:
        check_episode(Episode(lying, shown.trajectory), "walker", walker().description)
    assert caught.value.field == field


def test_a_pose_where_all_begin_officially_is_refused() -> None:
    with pytest.raises(CodecError, match="begin in the simulator's own pose"):
        check_episode(stride_episode(Pose(value={}, speed={})), "walker", make_task(ProstheticsTask()).description)


@pytest.mark.parametrize("value", ["NaN", "Infinity", '"x"'])
def test_a_pose_is_of_finite_numbers(value: str) -> None:
    good = codec.read(encode_episode(stride_episode(Pose(value={"pelvis_tilt": 0.125}, speed={}))))
    metadata = {METADATA_KEY: good.metadata[METADATA_KEY].replace("0.125", value)}
    with pytest.raises(CodecError, match=r"initial_pose\.value\.pelvis_tilt"):
        decode_episode(codec.write(good.tensors, metadata))


def test_the_block_is_part_of_the_experiment_file() -> None:
    parsed = parse_experiment({"task": {"initial_state": {"kind": "stride", "anneal_episodes": 2000}}})
    assert isinstance(parsed.task, ProstheticsTask)
    assert parsed.task.initial_state.anneal_episodes == 2000
    assert parsed.task.initial_state.official_share == 0.2
