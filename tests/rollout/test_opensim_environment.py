"""The OpenSim environment against osim-rl's own, on the same trajectories, to the last bit."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from gaitfleet.layout import StateLayout
from gaitfleet.task.prosthetics_layout import LOCKED_COORDINATES, Model, action_names, prosthetics_layout

pytest.importorskip("opensim", reason="OpenSim is not installed")

from rollout.environments.interface import SimulatorFailure, check_finite
from rollout.environments.opensim_compatibility import (
    FIRST_EXCITATION,
    BridgedModel,
    OfficialEnvironment,
    OpenSimModel,
)
from rollout.environments.prosthetics import ProstheticsEnvironment

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

MODELS: list[tuple[Model, bool]] = [("3D", True), ("2D", True), ("3D", False), ("2D", False)]


def excitations(steps: int, size: int = 19, seed: int = 0) -> Float32:
    """Random excitations, each held for five steps."""
    held = np.random.default_rng(seed).random((steps // 5 + 1, size), np.float32)
    return np.repeat(held, 5, axis=0)[:steps]


def targets(steps: int, seed: int = 0) -> Float32:
    return np.random.default_rng(seed).uniform(-1, 2, (steps + 1, 3)).astype(np.float32)


def flattened(description: dict[str, Any], layout: StateLayout) -> Float64:
    """osim-rl's dictionary in the order of the layout, by walking the dictionary, not the layout."""
    groups = list(dict.fromkeys(column.group for column in layout.columns))
    row: list[float] = []
    for group in groups:
        for values in description[group].values():
            row += values.values() if isinstance(values, dict) else values
    return np.array(row, np.float64)


def fast(model: Model = "3D", round_: int = 1) -> ProstheticsEnvironment:
    """An environment at settings that one would train with."""
    return ProstheticsEnvironment(model, round=round_, integrator="SemiExplicitEuler2", accuracy=1e-3)


def play(environment: ProstheticsEnvironment, actions: Float32, target_velocity: Float32 | None = None) -> Float32:
    rows = np.empty((len(actions) + 1, environment.state_size), np.float32)
    environment.reset(0, rows[0], target_velocity)
    for i, action in enumerate(actions):
        environment.step(action, rows[i + 1])
    return rows


@pytest.fixture(scope="module")
def environment() -> ProstheticsEnvironment:
    return fast()


@pytest.mark.parametrize(("model", "prosthetic"), MODELS)
def test_rows_equal_the_dictionary_of_the_official_environment(model: Model, prosthetic: bool) -> None:
    """Two simulators side by side at osim-rl's own settings; every column in float64, every step."""
    steps = 40 if prosthetic else 5
    official = OfficialEnvironment(model, prosthetic, round_=1)
    ours = OpenSimModel(model, prosthetic, "RungeKuttaMerson", 5e-5)
    row = np.empty(len(ours.layout))

    expected = official.reset(project=False)
    ours.reset()
    ours.extract64(row)
    np.testing.assert_array_equal(row, flattened(expected, ours.layout))

    for action in excitations(steps, ours.noutput):
        expected = official.step(action, project=False)[0]
        ours.set_excitations(action.tolist())
        ours.integrate()
        ours.extract64(row)
        np.testing.assert_array_equal(row, flattened(expected, ours.layout))


@pytest.mark.parametrize(("activation", "length"), [(0.005, 0.13), (-1.0, 0.13), (1.2, 0.13), (0.5, 0.02)])
def test_rows_equal_the_dictionary_where_a_muscle_leaves_its_limits(
    environment: ProstheticsEnvironment, activation: float, length: float
) -> None:
    simulator = environment.simulator
    simulator.reset()
    simulator.model.setStateVariableValue(simulator.state, "/forceset/bifemsh_r/activation", activation)
    simulator.model.setStateVariableValue(simulator.state, "/forceset/bifemsh_r/fiber_length", length)
    row = np.empty(len(simulator.layout))
    simulator.extract64(row)
    np.testing.assert_array_equal(row, flattened(simulator.compute_state_desc(), simulator.layout))


@pytest.mark.parametrize(("model", "prosthetic"), MODELS)
def test_layout_names_are_the_models_own(model: Model, prosthetic: bool) -> None:
    simulator = OpenSimModel(model, prosthetic, "RungeKuttaMerson", 5e-5)
    layout = prosthetics_layout(model, prosthetic)
    assert [column.name for column in layout.columns] == list(simulator.column_names())
    assert len(layout) == (412 if prosthetic else 468)

    muscles = [simulator.muscleSet.get(j).getName() for j in range(simulator.noutput)]
    assert tuple(muscles) == action_names(model, prosthetic)

    simulator.reset()
    coordinates = simulator.model.getCoordinateSet()
    locked = [c for c in map(coordinates.get, range(coordinates.getSize())) if c.getLocked(simulator.state)]
    assert {coordinate.getName() for coordinate in locked} == set(LOCKED_COORDINATES[model])


@pytest.mark.parametrize("round_", [1, 2])
def test_rewards_are_the_official_ones_step_by_step(round_: int) -> None:
    steps = 20
    target_velocity = targets(steps) if round_ == 2 else None
    official = OfficialEnvironment("2D", True, round_)
    official.reset()
    if target_velocity is not None:
        official.targets[: steps + 1] = target_velocity
    ours = ProstheticsEnvironment("2D", round=round_)
    row = np.empty(ours.state_size, np.float32)
    ours.reset(0, row, target_velocity)
    for action in excitations(steps):
        _, expected, _, _ = official.step(action)
        assert ours.step(action, row) == (expected, False, False)


def test_same_excitations_give_the_same_rows_whatever_was_played_before(environment: ProstheticsEnvironment) -> None:
    actions = excitations(30)
    first = play(environment, actions)
    for seed in (1, 2):
        play(environment, excitations(3, seed=seed))
    again = play(environment, actions)
    np.testing.assert_array_equal(first, again)
    fresh = play(fast(), actions)
    np.testing.assert_array_equal(first, fresh)


def test_official_environment_carries_the_last_action_into_the_next_episode() -> None:
    """The reason for `FIRST_EXCITATION`; should osim-rl or OpenSim change, this says so."""
    model = BridgedModel(OfficialEnvironment("2D", True, round_=1).model_path)
    after = {}
    for last in (FIRST_EXCITATION, 0.0):
        model.actuate(np.full(model.noutput, last))
        model.reset()
        model.actuate(np.full(model.noutput, 0.5))
        model.integrate()
        after[last] = model.state.getY().to_numpy().copy()
    assert np.abs(after[FIRST_EXCITATION] - after[0.0]).max() > 1e-6


def test_a_recorded_row_never_changes_later(environment: ProstheticsEnvironment) -> None:
    rows = np.empty((6, environment.state_size), np.float32)
    copies = np.empty_like(rows)
    environment.reset(0, rows[0])
    copies[0] = rows[0]
    for i, action in enumerate(excitations(5), start=1):
        environment.step(action, rows[i])
        copies[i] = rows[i]
    environment.reset(0, np.empty(environment.state_size, np.float32))
    np.testing.assert_array_equal(rows, copies)


def test_class_attributes_of_osim_rl_are_untouched() -> None:
    osim_model: Any = BridgedModel.__base__
    forces = (list(osim_model.maxforces), list(osim_model.curforces))
    environment = fast("2D", round_=2)
    play(environment, excitations(3), targets(3))
    environment.close()
    assert (osim_model.maxforces, osim_model.curforces) == forces


def test_global_random_state_is_untouched() -> None:
    # In a process of its own: the servers that other tests run in threads of this one draw from the same state.
    program = """
import random
import numpy as np
from rollout.environments.prosthetics import ProstheticsEnvironment
environment = ProstheticsEnvironment("2D", round=2, integrator="SemiExplicitEuler2", accuracy=1e-3)
before = random.getstate(), np.random.get_state(legacy=False)
row = np.empty(environment.state_size, np.float32)
environment.reset(0, row, np.ones((4, 3), np.float32))
for _ in range(3):
    environment.step(np.full(19, 0.5, np.float32), row)
environment.close()
assert random.getstate() == before[0], "the state of the random module changed"
np.testing.assert_equal(np.random.get_state(legacy=False), before[1])
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


@pytest.mark.parametrize("value", [-0.01, 1.01, float("nan"), float("inf")])
def test_excitations_outside_their_bounds_are_refused(environment: ProstheticsEnvironment, value: float) -> None:
    row = np.empty(environment.state_size, np.float32)
    environment.reset(0, row)
    before = row.copy()
    action = np.full(19, 0.5, np.float32)
    action[3] = value
    with pytest.raises(ValueError, match=r"bifemsh_r, action\[3\]"):
        environment.step(action, row)
    with pytest.raises(ValueError, match=r"shape \[19\]"):
        environment.step(np.zeros(22, np.float32), row)
    np.testing.assert_array_equal(row, before)


def test_each_excitation_drives_the_muscle_of_its_name(environment: ProstheticsEnvironment) -> None:
    layout, row = environment.layout, np.empty(environment.state_size, np.float32)
    columns = layout.indices(f"muscles/{name}/activation" for name in environment.action_names)
    for i in (0, 7, 18):
        environment.reset(0, row)
        action = np.zeros(19, np.float32)
        action[i] = 1
        for _ in range(3):
            environment.step(action, row)
        assert int(np.argmax(row[columns])) == i


def test_target_velocity_belongs_to_round_two(environment: ProstheticsEnvironment) -> None:
    row = np.empty(environment.state_size, np.float32)
    with pytest.raises(ValueError, match="round 1 has no target_velocity"):
        environment.reset(0, row, targets(3))
    second = fast("2D", round_=2)
    with pytest.raises(ValueError, match="round 2 needs a target_velocity"):
        second.reset(0, row, None)
    with pytest.raises(ValueError, match=r"shape \[T\+1, 3\], not \[4, 2\]"):
        second.reset(0, row, targets(3)[:, :2])


def test_integrator_method_and_accuracy_take_effect() -> None:
    """Coarser is different from finer, and both stay near the reference, so the settings reach the integrator."""
    actions = excitations(10)
    pelvis = prosthetics_layout("2D").indices(f"body_pos/pelvis/{axis}" for axis in "xyz")
    rows = {
        (method, accuracy): play(ProstheticsEnvironment("2D", round=1, integrator=method, accuracy=accuracy), actions)
        for method, accuracy in (("RungeKuttaMerson", 5e-5), ("RungeKuttaMerson", 5e-3), ("SemiExplicitEuler2", 5e-3))
    }
    reference, *others = rows.values()
    for other in others:
        assert 0 < np.abs(other - reference)[-1, pelvis].max() < 1e-3
    assert (others[0] != others[1]).any()


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="'Euler' is not one of CPodes, ExplicitEuler"):
        ProstheticsEnvironment(integrator="Euler")
    with pytest.raises(ValueError, match="accuracy must lie between 0 and 1, not 0"):
        ProstheticsEnvironment(accuracy=0)
    with pytest.raises(ValueError, match="round must be 1 or 2, not 3"):
        ProstheticsEnvironment(round=3)


def test_integrator_failures_name_their_kind(environment: ProstheticsEnvironment) -> None:
    """And the environment can be reset afterwards."""
    actions = excitations(3)
    expected = play(environment, actions)
    row = np.empty(environment.state_size, np.float32)
    environment.simulator.istep = -10  # asks OpenSim to integrate backwards
    with pytest.raises(SimulatorFailure, match="final time") as failure:
        environment.step(actions[0], row)
    assert failure.value.kind == "integrator"
    np.testing.assert_array_equal(play(environment, actions), expected)


@pytest.mark.parametrize("value", [np.nan, -np.inf, 1e39])
def test_a_number_that_is_not_finite_in_float32_is_a_failure_with_the_columns_name(
    environment: ProstheticsEnvironment, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    row = np.zeros(environment.state_size, np.float32)
    environment.reset(0, row)
    read = environment.simulator._reader.read

    def broken(state: Any, out: Float64) -> None:
        read(state, out)
        out[40] = value

    monkeypatch.setattr(environment.simulator._reader, "read", broken)
    reward, _, _ = environment.step(excitations(1)[0], row)
    with pytest.raises(SimulatorFailure, match=f"{environment.layout.columns[40].name} is -?(nan|inf)") as failure:
        check_finite(row, reward, environment.layout)
    assert failure.value.kind == "non_finite"


def test_large_numbers_whose_sum_overflows_are_no_failure(environment: ProstheticsEnvironment) -> None:
    check_finite(np.full(environment.state_size, 3e38, np.float32), 1.0, environment.layout)
