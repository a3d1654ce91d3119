"""Strides in OpenSim: on the ground and not in it, they hold for a while, and an episode can be played again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scenario import Scenario
from test_worker import new_recording

from gaitfleet.episode import Episode
from gaitfleet.experiment import Experiment, ProstheticsTask, parse_experiment
from gaitfleet.pose import Pose
from gaitfleet.task import make_task
from gaitfleet.trajectory import Float32
from rollout.environments.factory import make_environment
from rollout.environments.prosthetics import ProstheticsEnvironment
from rollout.exploration import UNIFORM, make_actor
from rollout.schedule import EvaluationSchedule, Policy, TrainingSchedule
from rollout.worker import run_episode

FAST = {"integrator": "SemiExplicitEuler2", "accuracy": 1e-3}


def strides(model: str = "2D", prosthetic: bool = True, **more: Any) -> Experiment:
    """Every training episode begins in mid-stride."""
    initial_state = {"kind": "stride", "official_share": 0.0}
    task = {"model": model, "prosthetic": prosthetic, "initial_state": initial_state, "simulator": FAST}
    return parse_experiment({"task": task | more})


def walker(experiment: Experiment) -> ProstheticsEnvironment:
    environment = make_environment(experiment.task, "train")
    assert isinstance(environment, ProstheticsEnvironment)
    return environment


@pytest.mark.parametrize(
    ("model", "prosthetic", "poses"), [("2D", True, 20), ("3D", True, 20), ("2D", False, 2), ("3D", False, 2)]
)
def test_strides_touch_the_ground_and_do_not_fall_apart(model: str, prosthetic: bool, poses: int) -> None:
    """Each: no force on the feet at first, a few newtons of weight soon, upright and fast after 0.1 s."""
    experiment = strides(model, prosthetic)
    task, environment = make_task(experiment.task), walker(experiment)
    layout = environment.layout
    feet = layout.indices(c.name for c in layout.columns if c.name.endswith("/ground.force.Y"))
    height, speed = layout.index("body_pos/pelvis/y"), layout.index("body_vel/pelvis/x")
    weak = np.full(environment.action_size, 0.05, np.float32)
    for seed in range(poses):
        pose = task.initial_pose(seed, 0)
        assert pose is not None
        rows = np.empty((11, environment.state_size), np.float32)
        environment.reset(seed, rows[0], None, pose)
        for step in range(10):
            environment.step(weak, rows[step + 1])
        assert np.abs(rows[0, feet]).max() < 1, f"seed {seed} begins inside the ground"
        assert (-rows[:, feet]).sum(axis=1).max() > 50, f"seed {seed} does not reach the ground"
        assert not task.fallen(rows).any(), f"seed {seed} begins below the fall height"
        assert rows[:, height].min() > 0.85
        assert rows[0, speed] == np.float32(pose.speed["pelvis_tx"])
        assert rows[10, speed] > 0


def test_the_stance_foot_begins_at_rest() -> None:
    experiment = strides("3D")
    environment = walker(experiment)
    row = np.empty(environment.state_size, np.float32)
    sole = {"l": "calcn_l", "r": "pros_foot_r"}
    for seed in range(10):
        pose = make_task(experiment.task).initial_pose(seed, 0)
        assert pose is not None
        environment.reset(seed, row, None, pose)
        stance = "l" if pose.value["knee_angle_l"] > -0.5 else "r"
        velocity = row[environment.layout.indices(f"body_vel/{sole[stance]}/{axis}" for axis in "xyz")]
        assert np.abs(velocity).max() < 0.15 * max(1.0, pose.speed["pelvis_tx"])


def test_a_pose_leaves_nothing_behind() -> None:
    """The official pose after a stride is the official pose, also in what osim-rl keeps for its dictionary."""
    experiment = strides()
    environment = walker(experiment)
    fresh, after = (np.empty(environment.state_size, np.float32) for _ in range(2))
    environment.reset(0, fresh)
    official = environment.simulator.get_state_desc()["joint_pos"]["knee_l"]
    environment.reset(1, after, None, make_task(experiment.task).initial_pose(1, 0))
    assert environment.simulator.get_state_desc()["joint_pos"]["knee_l"] != official
    environment.reset(0, after)
    assert after.tobytes() == fresh.tobytes()


@pytest.mark.parametrize(
    ("value", "speed", "named"),
    [
        ({"pelvis_ty": 1.0}, {}, "pelvis_ty"),
        ({"hip_adduction_l": 0.1}, {}, "hip_adduction_l"),
        ({}, {"elbow": 0.1}, "elbow"),
    ],
)
def test_a_pose_that_cannot_be_taken_up_is_named(value: Any, speed: Any, named: str) -> None:
    environment = walker(strides("2D"))
    with pytest.raises(ValueError, match=f"the pose sets '{named}'"):
        environment.reset(0, np.empty(environment.state_size, np.float32), None, Pose(value=value, speed=speed))


def played_again(episode: Episode, experiment: Experiment) -> Float32:
    """The rows of an episode by what its metadata says and nothing else."""
    metadata, task = episode.metadata, make_task(experiment.task)
    recording = new_recording(task)
    act = make_actor(UNIFORM, None, task.description.action_size, metadata.seed, decisions=episode.trajectory.steps)
    environment = walker(experiment)
    run_episode(
        environment, task, act, recording, seed=metadata.seed, pose=metadata.initial_pose, stopping=lambda: False
    )
    return recording.state[: recording.steps + 1]


def test_an_episode_of_a_worker_is_played_again_from_its_metadata() -> None:
    """Through a simulator process and the wire; the checks of the API hold its pose against its first row."""
    experiment = strides(time_limit_steps=12)
    schedule = TrainingSchedule(experiment, "worker", None, training_episodes=lambda: 700)
    scenario = Scenario(experiment, make_environment, schedule=schedule)
    episodes = scenario.play_until(lambda: len(scenario.outbox.bodies) >= 4, seconds=60)
    poses = [episode.metadata.initial_pose for episode in episodes]
    assert {pose is None for pose in poses} == {True, False}  # 700 of 1500 episodes: some begin officially
    chosen = next(episode for episode in episodes if episode.metadata.initial_pose is not None)
    assert played_again(chosen, experiment).tobytes() == chosen.trajectory.state.tobytes()


def test_episodes_begin_officially_until_the_progress_of_the_run_is_known() -> None:
    known: list[int | None] = [None]
    schedule = TrainingSchedule(strides(), "worker", None, training_episodes=lambda: known[0])
    assert [schedule.next(0).pose for _ in range(5)] == [None] * 5
    known[0] = 0
    assert all(schedule.next(0).pose is not None for _ in range(5))
    known[0] = 1500
    assert [schedule.next(0).pose for _ in range(5)] == [None] * 5


def test_evaluation_always_begins_officially() -> None:
    experiment = strides()
    assert isinstance(experiment.task, ProstheticsTask)
    schedule = EvaluationSchedule(experiment, lambda: Policy(1, b""))
    plans = [schedule.next(0) for _ in range(experiment.evaluation.episodes)]
    assert [plan.pose for plan in plans if plan is not None] == [None] * experiment.evaluation.episodes
