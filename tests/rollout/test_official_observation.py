"""The preset `official-160` against osim-rl's own `get_observation()`, step by step on a real trajectory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gaitfleet.experiment import ProstheticsTask
from gaitfleet.task import make_task

pytest.importorskip("opensim", reason="OpenSim is not installed")

from rollout.environments.opensim_compatibility import OfficialEnvironment


def rounded(value: Any) -> Any:
    """osim-rl's dictionary with every number as a recorded row holds it."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list) else float(np.float32(value))


def state_row(description: dict[str, Any], names: list[str]) -> np.ndarray:
    """One row, column by column out of the dictionary, whose lists are in the order of the layout."""
    groups = list(dict.fromkeys(name.split("/")[0] for name in names))
    row: list[float] = []
    for group in groups:
        for values in description[group].values():
            row += values.values() if isinstance(values, dict) else values
    return np.array([row], np.float32)


@pytest.mark.parametrize(("prosthetic", "size"), [(True, 160), (False, 169)])
def test_the_observation_is_osim_rls_own_at_every_step(prosthetic: bool, size: int) -> None:
    """To the last bit on the recorded row; and within its rounding of what osim-rl says before it is recorded."""
    task = make_task(ProstheticsTask(prosthetic=prosthetic, observation={"preset": "official-160"}))
    description = task.description
    names = [column.name for column in description.state_layout.columns]
    copied = np.array([not name.endswith("/relative") for name in description.observation_names])
    official = OfficialEnvironment("3D", prosthetic, round_=1)
    generator = np.random.default_rng(0)
    official.reset(project=False)
    assert description.observation_size == size == official.get_observation_space_size()
    for step in range(12):
        if step > 0:
            official.step(generator.random(description.action_size), project=False)
        state = official.get_state_desc()
        observed = task.observe(state_row(state, names), None)[0]
        exact = np.array(official.get_observation(), np.float32)
        np.testing.assert_array_equal(observed[copied], exact[copied])
        np.testing.assert_allclose(
            observed, exact, rtol=0, atol=3e-7 + 2e-7 * np.abs(exact).max(where=~copied, initial=0)
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(official, "get_state_desc", lambda state=state: rounded(state))
            assert observed.tobytes() == np.array(official.get_observation(), np.float32).tobytes()
