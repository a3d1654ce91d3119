"""Real episodes pass every check, and each fault put into one is found under its name and no other."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaitfleet.checksum import first_checksum, next_checksum, trajectory_checksum
from gaitfleet.episode import Episode, EpisodeMetadata
from gaitfleet.experiment import parse_experiment
from gaitfleet.quality.checks import EpisodeChecks
from gaitfleet.quality.gait import walked
from gaitfleet.quality.repeats import Played, RepeatWatch
from gaitfleet.task import make_task
from gaitfleet.trajectory import Trajectory
from rollout.environments.opensim_compatibility import OpenSimModel

PROSTHETICS = {name: make_task(parse_experiment({"task": {"model": name}}).task) for name in ("2D", "3D")}
LAYOUT = PROSTHETICS["3D"].description.state_layout
CHECKS = EpisodeChecks(PROSTHETICS["3D"])
STEPS = 60


def simulated(model: str, excitations: np.ndarray) -> Trajectory:
    """An episode of OpenSim under these excitations, to the fall."""
    simulator = OpenSimModel(model, True, "SemiExplicitEuler2", 5e-3)
    state = np.empty((len(excitations) + 1, len(LAYOUT)), np.float32)
    simulator.reset()
    simulator.extract(state[0])
    for step, action in enumerate(excitations, start=1):
        simulator.set_excitations(action.tolist())
        simulator.integrate()
        simulator.extract(state[step])
        if PROSTHETICS[model].fallen(state[step : step + 1]):
            break
    return Trajectory(state[: step + 1], excitations[:step], np.zeros(step, np.float32), np.ones(step, np.uint8))


def episode_of(trajectory: Trajectory, **metadata: Any) -> Episode:
    known: dict[str, Any] = {
        "episode_id": UUID(int=1),
        "run": "walk",
        "worker": "here",
        "role": "random",
        "policy_version": 0,
        "seed": 0,
        "layout_hash": LAYOUT.hash,
        "ending": "truncated",
        "ending_reason": "preempted",
        "exploration": "uniform",
        "started_at": datetime.now(UTC),
        "wall_seconds": 1.0,
    }
    return Episode(EpisodeMetadata(**known | metadata), trajectory)


@pytest.fixture(scope="module")
def real() -> Trajectory:
    return simulated("3D", np.random.default_rng(0).random((STEPS, 19), dtype=np.float32))


def found(trajectory: Trajectory, **metadata: Any) -> dict[str, str]:
    """Findings by name, with their detail."""
    return {finding.name: finding.detail for finding in CHECKS(episode_of(trajectory, **metadata)).findings}


def changed(trajectory: Trajectory, rows: Any, names: str | list[str], change: Any) -> Trajectory:
    """The trajectory with columns changed in some rows."""
    state = trajectory.state.copy()
    columns = LAYOUT.indices([names] if isinstance(names, str) else names)
    cells = np.ix_(np.arange(len(state))[rows], columns)
    state[cells] = change(state[cells])
    return replace(trajectory, state=state)


@pytest.mark.parametrize(("model", "level"), [("2D", 0.6), ("3D", 0.0)])
def test_real_falls_without_noise_have_no_finding(model: str, level: float) -> None:
    trajectory = simulated(model, np.full((150, 19), level, np.float32))
    assert PROSTHETICS[model].fallen(trajectory.state[-1:])
    checks = EpisodeChecks(PROSTHETICS[model])
    verdict = checks(episode_of(trajectory, exploration="none", ending="terminated", ending_reason="fall"))
    assert (verdict.findings, verdict.walked) == ([], False)


def test_a_real_random_episode_has_no_finding(real: Trajectory) -> None:
    assert found(real) == {}


def test_the_corruption_of_2018_is_found_in_one_episode(real: Trajectory) -> None:
    """Its encoder subtracted the mass centre from the bodies in place: ten times from the first row, four times from
    the others, less from the last three. The height of the pelvis became -3."""
    state = real.state.copy()
    times = np.full(len(state), 4)
    times[0], times[-3:] = 10, (3, 2, 1)
    for quantity in ("pos", "vel", "acc"):
        for axis in "xyz":
            centre = real.state[:, LAYOUT.index(f"misc/mass_center_{quantity}/{axis}")]
            bodies = [
                i for i, c in enumerate(LAYOUT.columns) if c.group == f"body_{quantity}" and c.name.endswith(axis)
            ]
            state[:, bodies] -= (times * centre)[:, None]
    assert -3.2 < state[1, LAYOUT.index("body_pos/pelvis/y")] < -2.9
    findings = found(replace(real, state=state))
    assert set(findings) == {"impossible_height", "position_jump", "pelvis_disagrees"}
    assert findings["impossible_height"].startswith("body_pos/")


def test_a_foot_below_the_ground_is_found(real: Trajectory) -> None:
    low = changed(real, slice(None), [f"body_pos/{body}/y" for body in ("toes_l", "calcn_l")], lambda y: y - 0.4)
    assert set(found(low)) == {"impossible_height"}


def test_a_head_that_jumps_is_found_with_its_step(real: Trajectory) -> None:
    findings = found(changed(real, slice(20, None), "body_pos/head/x", lambda x: x + 0.05))
    assert set(findings) == {"position_jump"}
    assert findings["position_jump"].startswith("body_pos/head/x goes from ")
    assert " in step 19, " in findings["position_jump"]


def test_a_knee_that_jumps_is_found(real: Trajectory) -> None:
    findings = found(changed(real, slice(20, 21), "joint_pos/knee_l/knee_angle_l", lambda x: x - 0.5))
    assert set(findings) == {"angle_jump"}


def test_a_pelvis_that_is_not_where_its_joint_is_is_found(real: Trajectory) -> None:
    assert set(found(changed(real, slice(None), "body_pos/pelvis/x", lambda x: x + 0.01))) == {"pelvis_disagrees"}


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("muscles/vasti_l/activation", -1.0),
        ("muscles/vasti_l/fiber_length", -0.1),
        ("forces/foot_l/ground.force.Y", 500.0),
        ("joint_vel/knee_l/knee_angle_l", 900.0),
    ],
)
def test_a_value_beyond_its_limits_is_found(real: Trajectory, column: str, value: float) -> None:
    findings = found(changed(real, slice(5, 6), column, lambda x: np.full_like(x, value)))
    assert findings.pop("beyond_limits").startswith(f"{column} is {value:g}")
    assert set(findings) == ({"angle_jump"} if column.startswith("joint_vel") else set())


def test_time_that_stands_still_is_found(real: Trajectory) -> None:
    state = real.state.copy()
    state[30:34] = state[30]
    state[34:] = real.state[31:-3]
    assert set(found(replace(real, state=state))) == {"time_stands_still"}


def test_duplicated_rows_are_found(real: Trajectory) -> None:
    state = real.state.copy()
    state[40:43] = state[10:13]
    assert set(found(replace(real, state=state))) == {"duplicated_rows"}


def test_a_column_that_keeps_its_first_value_is_found(real: Trajectory) -> None:
    constant = changed(real, slice(None), "muscles/soleus_l/fiber_length", lambda x: np.full_like(x, x[0]))
    findings = found(constant)
    assert set(findings) == {"constant_columns"}
    assert findings["constant_columns"].endswith(f" m in all {STEPS + 1} rows")


def test_actions_that_do_not_change_are_found_under_noise_only(real: Trajectory) -> None:
    frozen = replace(real, action=np.ones_like(real.action))
    assert set(found(frozen)) == {"frozen_actions"}
    assert found(frozen, exploration="none") == {}


def test_gymnasium_episodes_are_checked_for_standstill_and_frozen_actions() -> None:
    task = make_task(parse_experiment({"task": {"environment": "gymnasium:Pendulum-v1"}}).task)
    state = np.broadcast_to(np.array([1, 0, 0], np.float32), (31, 3)).copy()
    trajectory = Trajectory(state, np.zeros((30, 1), np.float32), np.zeros(30, np.float32), np.ones(30, np.uint8))
    verdict = EpisodeChecks(task)(episode_of(trajectory))
    assert [finding.name for finding in verdict.findings] == ["time_stands_still", "frozen_actions"]
    assert verdict.walked is None


def test_a_statue_and_a_dive_are_found_and_are_not_walking(real: Trajectory) -> None:
    """The first row with a little noise, for long, is a statue; a fall pushed along at 1 m/s is a dive."""
    state = np.repeat(real.state[:1], 251, axis=0)
    state += np.random.default_rng(0).normal(0, 1e-6 * (1 + np.abs(state))).astype(np.float32)
    action = np.random.default_rng(1).random((250, 19), dtype=np.float32)
    statue = Trajectory(state, action, np.zeros(250, np.float32), np.ones(250, np.uint8))
    verdict = CHECKS(episode_of(statue, ending_reason="time_limit"))
    assert [finding.name for finding in verdict.findings] == ["statue"]
    assert verdict.walked is False

    forward = [c.name for c in LAYOUT.columns if c.group == "body_pos" and c.name.endswith("/x")]
    forward += ["joint_pos/ground_pelvis/pelvis_tx"]
    speeds = [name.replace("_pos/", "_vel/") for name in forward]
    state = changed(real, slice(None), speeds, lambda v: v + 1).state
    state[:, LAYOUT.indices(forward)] += (np.arange(len(state)) * 0.01)[:, None].astype(np.float32)
    dive = replace(real, state=state)
    assert set(found(dive, ending="terminated", ending_reason="fall")) == {"dive"}
    assert found(dive) == {}


@pytest.mark.parametrize(
    ("speed", "contacts", "reason", "walks"),
    [
        (1.2, 5, "time_limit", True),
        (1.2, 5, "fall", False),
        (0.1, 5, "time_limit", False),
        (-1.2, 5, "time_limit", False),
        (1.2, 3, "time_limit", False),
        (3.0, 5, "time_limit", False),
    ],
)
def test_walking_is_speed_on_alternating_feet_to_the_end(speed: float, contacts: int, reason: str, walks: bool) -> None:
    measures = {"mean_speed_m_per_s": speed, "distance_m": 3 * speed, "foot_contacts": contacts}
    assert walked(measures, reason) is walks


def test_repeated_episodes_are_those_of_other_noise_or_another_policy(real: Trajectory) -> None:
    def seen(number: int, trajectory: Trajectory = real, **metadata: Any) -> bool:
        return watch(Played.of(episode_of(trajectory, episode_id=UUID(int=number), **metadata))) is not None

    watch = RepeatWatch(capacity=2)
    assert not seen(1, seed=1)
    assert not seen(1, seed=1)
    assert seen(2, seed=2)
    evaluation: dict[str, Any] = {"role": "evaluate", "exploration": "none"}
    watch = RepeatWatch(capacity=2)
    assert not seen(3, seed=3, policy_version=1, **evaluation)
    assert not seen(4, seed=4, policy_version=1, **evaluation)
    assert seen(5, seed=3, policy_version=2, **evaluation)
    for number in (6, 7):
        assert not seen(number, replace(real, action=real.action * np.float32(1 / number)))
    assert not seen(8, seed=2)  # forgotten


@given(st.integers(1, 20), st.integers(0, 2**31 - 1))
def test_the_checksum_of_an_episode_is_that_of_its_steps_one_by_one(steps: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    state, action = random.random((steps + 1, 3), np.float32), random.random((steps, 2), np.float32)
    reward, decision = random.random(steps, np.float32), random.integers(0, 2, steps, np.uint8)
    checksum = first_checksum(state[0])
    for step in range(steps):
        checksum = next_checksum(checksum, action[step], reward[step], decision[step], state[step + 1])
    assert checksum == trajectory_checksum(Trajectory(state, action, reward, decision))
    state[steps, 2] = np.nextafter(state[steps, 2], np.float32(2))
    assert checksum != trajectory_checksum(Trajectory(state, action, reward, decision))
