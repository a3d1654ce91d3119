"""Tasks: the same numbers whether asked a row at a time or an episode at a time, and the formulas as written."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gaitfleet.errors import ExperimentError
from gaitfleet.experiment import GymnasiumTask, ProstheticsTask
from gaitfleet.task import Task, make_task
from gaitfleet.task.compatibility import check_replayable
from gaitfleet.task.prosthetics import OBSERVATIONS, target_track
from gaitfleet.task.prosthetics_kinematics import BODY_WEIGHT_N, Heading
from gaitfleet.task.prosthetics_measures import touchdowns
from gaitfleet.task.prosthetics_reward import PRESETS, TERMS
from gaitfleet.trajectory import Trajectory

ABORT_RULES = {"head_behind_pelvis": 0.2, "head_sideways": 0.5, "coach_reward_below": -10}

MODELS: dict[str, dict[str, Any]] = {
    f"{model}{'' if prosthetic else ' intact'}": {"model": model, "prosthetic": prosthetic}
    for model in ("3D", "2D")
    for prosthetic in (True, False)
}

REWARDS: dict[str, dict[str, Any]] = {
    **{preset: {"preset": preset} for preset in PRESETS},
    "every term": {"weights": dict.fromkeys(TERMS, 1.0), "target_speed": 3, "effort_floor": 1.5},
}

OBSERVED: dict[str, dict[str, Any]] = {
    **{preset: {"preset": preset} for preset in OBSERVATIONS},
    "compact, history": {"preset": "compact", "history": 3},
    "official-160, history": {"preset": "official-160", "history": 1},
}

EPISODES = {"steps": st.integers(1, 16), "seed": st.integers(0, 1000), "round_": st.sampled_from([1, 2])}


def random_trajectory(task: Task, steps: int, seed: int) -> Trajectory:
    generator = np.random.default_rng(seed)
    description = task.description
    velocities = task.target_velocities(seed)
    return Trajectory(
        state=generator.normal(size=(steps + 1, len(description.state_layout))).astype(np.float32),
        action=generator.uniform(
            description.action_low, description.action_high, (steps, description.action_size)
        ).astype(np.float32),
        reward=generator.normal(size=steps).astype(np.float32),
        decision=(np.arange(steps) % description.action_repeat == 0).astype(np.uint8),
        target_velocity=None if velocities is None else velocities[: steps + 1],
    )


def bits(array: np.ndarray) -> bytes:
    return np.ascontiguousarray(array).tobytes()


def steps_of(trajectory: Trajectory) -> list[Trajectory]:
    """Each step as an episode of one step."""
    targets = trajectory.target_velocity
    return [
        Trajectory(
            trajectory.state[t : t + 2],
            trajectory.action[t : t + 1],
            trajectory.reward[t : t + 1],
            trajectory.decision[t : t + 1],
            None if targets is None else targets[t : t + 2],
        )
        for t in range(trajectory.steps)
    ]


@pytest.mark.parametrize("observation", OBSERVED)
@pytest.mark.parametrize("model", MODELS)
@given(repeat=st.integers(1, 6), **EPISODES)
@settings(max_examples=8, deadline=None)
def test_what_a_worker_sees_step_by_step_is_what_the_whole_episode_says(
    model: str, observation: str, steps: int, seed: int, round_: int, repeat: int
) -> None:
    """Bit for bit, whatever lies after the row, and for any choice of rows."""
    action = {"repeat": repeat}
    task = make_task(ProstheticsTask(**MODELS[model], round=round_, action=action, observation=OBSERVED[observation]))
    episode = random_trajectory(task, steps, seed)
    state, targets = episode.state, episode.target_velocity
    whole = task.observe(state, targets)
    assert whole.dtype == np.float32
    assert whole.shape == (steps + 1, task.description.observation_size)
    for t in range(steps + 1):
        seen = task.observe(state[: t + 1], None if targets is None else targets[: t + 1], np.array([t]))
        assert bits(seen) == bits(whole[t])
        assert task.fallen(state[t : t + 1])[0] == task.fallen(state)[t]
    rows = np.append(episode.decision_steps, steps)
    assert bits(task.observe(state, targets, rows)) == bits(whole[rows])


@pytest.mark.parametrize("reward", REWARDS)
@pytest.mark.parametrize("model", MODELS)
@given(**EPISODES)
@settings(max_examples=5, deadline=None)
def test_every_reward_term_and_abort_is_the_same_step_by_step_and_for_the_whole_episode(
    model: str, reward: str, steps: int, seed: int, round_: int
) -> None:
    task = make_task(ProstheticsTask(**MODELS[model], round=round_, reward=REWARDS[reward], ending=ABORT_RULES))
    episode = random_trajectory(task, steps, seed)
    terms, learned, aborted = task.reward_terms(episode), task.reward(episode), task.aborted(episode)
    assert learned.dtype == np.float32
    for t, step in enumerate(steps_of(episode)):
        assert {name: bits(term) for name, term in task.reward_terms(step).items()} == {
            name: bits(term[t]) for name, term in terms.items()
        }
        assert bits(task.reward(step)) == bits(learned[t])
        assert task.aborted(step)[0] == aborted[t]


def test_a_gymnasium_task_observes_its_rows_in_new_memory() -> None:
    task = make_task(GymnasiumTask(environment="gymnasium:Pendulum-v1", reward_scale=0.1))
    episode = random_trajectory(task, 9, 0)
    observation = task.observe(episode.state, None)
    assert bits(observation) == bits(episode.state)
    assert not np.shares_memory(observation, episode.state)
    assert bits(task.observe(episode.state[:5], None, np.array([4]))) == bits(episode.state[4])
    assert bits(task.reward(episode)) == b"".join(bits(task.reward(step)) for step in steps_of(episode))


def test_observing_does_not_change_what_was_recorded() -> None:
    task = make_task(ProstheticsTask(reward={"preset": "walk"}))
    trajectory = random_trajectory(task, 20, 0)
    before = trajectory.state.tobytes()
    trajectory.state.flags.writeable = False
    task.observe(trajectory.state, None)
    task.reward(trajectory)
    task.measures(trajectory)
    assert trajectory.state.tobytes() == before


def test_round_1_is_nine_minus_the_squared_speed_error() -> None:
    task = make_task(ProstheticsTask(reward={"preset": "round1", "scale": 1.0}))
    trajectory = random_trajectory(task, 5, 0)
    speed = trajectory.state[1:, task.description.state_layout.index("body_vel/pelvis/x")].astype(np.float64)
    np.testing.assert_allclose(task.reward(trajectory), 9 - (speed - 3) ** 2, rtol=1e-6)


def test_an_unknown_reward_term_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ExperimentError, match="unknown term 'efort'; did you mean 'effort'"):
        make_task(ProstheticsTask(reward={"weights": {"efort": 1.0}}))


def test_an_unknown_gymnasium_environment_asks_for_its_spaces() -> None:
    with pytest.raises(ExperimentError, match=r"'Mine-v0' are not known; state them under task\.spaces"):
        make_task(GymnasiumTask(environment="gymnasium:Mine-v0"))


def test_episodes_of_another_environment_cannot_be_replayed_though_their_sizes_are_equal() -> None:
    walker, newer, cheetah = (
        make_task(GymnasiumTask(environment=f"gymnasium:{name}"))
        for name in ("Walker2d-v4", "Walker2d-v5", "HalfCheetah-v4")
    )
    assert walker.description.state_layout == cheetah.description.state_layout
    check_replayable(walker, newer)
    with pytest.raises(ExperimentError, match="it was gymnasium:Walker2d-v4, here it is gymnasium:HalfCheetah-v4"):
        check_replayable(walker, cheetah)


def row(task: Task, **columns: float) -> np.ndarray:
    state = np.zeros((1, len(task.description.state_layout)), np.float32)
    for name, value in columns.items():
        state[0, task.description.state_layout.index(name.replace("__", "/"))] = value
    return state


def test_the_walker_has_fallen_below_the_height_asked_for_and_evaluation_uses_the_official_one() -> None:
    task = make_task(ProstheticsTask(ending={"fall_height": 0.7}))
    low, lower = row(task, body_pos__pelvis__y=0.65), row(task, body_pos__pelvis__y=0.59)
    assert task.fallen(low)[0]
    assert not task.for_evaluation().fallen(low)[0]
    assert task.for_evaluation().fallen(lower)[0]


@given(st.floats(-3.1, 3.1))
def test_what_lies_ahead_does_not_depend_on_the_compass(yaw: float) -> None:
    """A walker that is turned, with everything it sees turned with it, observes the same except for its yaw."""
    task = make_task(ProstheticsTask())
    cosine, sine = np.cos(yaw), np.sin(yaw)
    straight = row(task, body_vel__pelvis__x=1.0, body_pos__head__x=0.3, body_pos__head__z=0.1)
    turned = row(
        task,
        body_pos_rot__pelvis__y=yaw,
        body_vel__pelvis__x=cosine,
        body_vel__pelvis__z=-sine,
        body_pos__head__x=0.3 * cosine + 0.1 * sine,
        body_pos__head__z=-0.3 * sine + 0.1 * cosine,
    )
    names = task.description.observation_names
    compared = [i for i, name in enumerate(names) if not name.startswith(("target", "velocity_error", "pelvis/yaw"))]
    np.testing.assert_allclose(
        task.observe(turned, None)[0, compared], task.observe(straight, None)[0, compared], atol=1e-6
    )
    assert task.observe(turned, None)[0, names.index("pelvis/yaw")] == pytest.approx(yaw, abs=1e-6)


def test_heading_follows_the_projected_forward_axis() -> None:
    """Against the rotation matrix multiplied out: Rx(a) Ry(b) Rz(c), Simbody's body-fixed x-y-z sequence."""
    task = make_task(ProstheticsTask())
    a, b, c = 0.3, -0.7, 0.4
    rx = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    ry = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    rz = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    forward = (rx @ ry @ rz)[:, 0]
    state = row(task, body_pos_rot__pelvis__x=a, body_pos_rot__pelvis__y=b, body_pos_rot__pelvis__z=c)
    cosine, sine = Heading(task.description.state_layout)(state)
    length = np.hypot(forward[0], forward[2])
    assert cosine[0] == pytest.approx(forward[0] / length, abs=1e-6)
    assert sine[0] == pytest.approx(-forward[2] / length, abs=1e-6)


def test_contacts_count_only_when_the_foot_changes() -> None:
    task = make_task(ProstheticsTask())
    layout = task.description.state_layout
    state = np.zeros((101, len(layout)), np.float32)
    right, left = (layout.index(f"forces/{foot}/ground.force.Y") for foot in ("pros_foot_r", "foot_l"))
    for foot, steps in ((right, (0, 20)), (left, (20, 40)), (right, (40, 60)), (right, (61, 62)), (left, (70, 80))):
        state[slice(*steps), foot] = -BODY_WEIGHT_N
    trajectory = Trajectory(state, np.zeros((100, 19), np.float32), np.zeros(100, np.float32), np.ones(100, np.uint8))
    # right stands at the start and bounces at 61: left at 20, right at 40, left at 70 touch down, two of them after
    # the other
    assert task.measures(trajectory)["foot_contacts"] == 2


def test_a_bouncing_heel_is_one_touchdown() -> None:
    loaded = np.array([0, 0, 0, 0, 0, 1, 0, 1, 1, 0, 0, 0, 0, 0, 0, 1], bool)
    assert touchdowns(loaded) == [5, 15]


def test_target_tracks_start_straight_at_1_25_and_change_as_often_as_osim_rl_says() -> None:
    track = target_track(7, 1001)
    assert track.dtype == np.float32
    assert track[0].tolist() == [1.25, 0.0, 0.0]
    np.testing.assert_array_equal(track, target_track(7, 1001))
    changes = [np.any(np.diff(target_track(seed, 1001), axis=0) != 0, axis=1).sum() for seed in range(200)]
    assert 2.7 < np.mean(changes) < 3.3


@given(st.integers(0, 2**31 - 1))
def test_policy_and_simulator_units_are_inverse_within_float32(seed: int) -> None:
    task = make_task(GymnasiumTask(environment="gymnasium:Pendulum-v1"))
    action = np.random.default_rng(seed).uniform(-1, 1, (10, 1)).astype(np.float32)
    np.testing.assert_allclose(task.to_policy(task.to_simulator(action)), action, atol=1e-6)
    assert task.to_simulator(np.array([5.0], np.float32))[0] == 2.0
