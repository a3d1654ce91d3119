"""`gaitfleet task`: every preset can be listed and shown, and a file is checked as the services would check it."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from gaitfleet.command import app
from gaitfleet.task.prosthetics import OBSERVATIONS
from gaitfleet.task.prosthetics_reward import PRESETS, TERMS
from replay_api.services.cache import Row, TransitionCache

WIDE = {"COLUMNS": "250"}


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["task", *arguments], env=WIDE)
    return result.exit_code, result.output


def test_every_preset_is_listed() -> None:
    status, text = run("list")
    assert status == 0
    listed = {line.split()[0] for line in text.splitlines() if line and not line.startswith(" ")}
    assert listed == {"preset", *PRESETS, *OBSERVATIONS}


@pytest.mark.parametrize("preset", PRESETS)
def test_a_reward_preset_shows_weight_unit_and_formula_of_every_term(preset: str) -> None:
    status, text = run("show", preset)
    assert status == 0
    lines = text.splitlines()
    for round_ in (1, 2):
        for name, weight in PRESETS[preset].weights_in(round_).items():
            term = PRESETS[preset].term(name)
            parts = (f"{name} ", f" {weight:g} ", f" {term.unit} ", term.formula)
            assert any(all(part in line for part in parts) for line in lines)


@pytest.mark.parametrize(
    ("arguments", "size", "last"),
    [
        (["compact"], 159, "velocity_error/right m/s"),
        (["official-160"], 160, "misc/mass_center_acc/z m/s^2"),
        (["official-160", "--intact"], 169, "misc/mass_center_acc/z m/s^2"),
        (["seed-1260"], 1260, "t-3/velocity_error/z m/s"),
        (["seed-1260", "--intact"], 1284, "t-3/velocity_error/z m/s"),
    ],
)
def test_an_observation_preset_shows_its_notes_and_every_value_with_its_unit(
    arguments: list[str], size: int, last: str
) -> None:
    status, text = run("show", *arguments)
    assert status == 0
    assert f"{size} values" in text
    assert " ".join(text.splitlines()[-1].split()) == f"{size - 1} {last}"
    unwrapped = " ".join(text.split())
    for note in OBSERVATIONS[arguments[0]].notes:
        assert note in unwrapped


def test_a_single_term_can_be_shown_and_a_mistake_names_the_nearest() -> None:
    status, text = run("show", "crossing_volume")
    assert status == 0
    assert TERMS["crossing_volume"].formula in text
    status, text = run("show", "round3")
    assert status == 1
    assert "no preset or term 'round3'; did you mean 'round" in text


def test_a_file_is_checked_with_its_shapes_and_its_own_weights(tmp_path: Path) -> None:
    file = tmp_path / "experiment.yaml"
    file.write_text(
        "task:\n"
        "  observation: {preset: official-160}\n"
        "  action: {repeat: 1, random_repeat: 5, bins: 2}\n"
        "  reward: {preset: coach, weights: {survival: 1}}\n"
    )
    status, text = run("check", str(file))
    assert status == 0
    for part in ("412 columns", "160 values", "19 values within [0, 1], 2 levels", "1-6 steps", "300 steps"):
        assert part in text
    survival = next(line for line in text.splitlines() if line.startswith("survival"))
    assert survival.split()[1] == "1"


@pytest.mark.parametrize(
    ("task", "parts"),
    [
        ("{}", ("159 values", "none, the present step alone", "726 bytes a decision, 0.77 GB when full")),
        ("{observation: {history: 2}, round: 2}", ("477 values", "the present step, then t-4, t-8", "1998 bytes")),
        (
            "{observation: {preset: seed-1260}}",
            ("1260 values", "then t-1, t-2, t-3", "5130 bytes a decision, 5.45 GB"),
        ),
        ("{environment: 'gymnasium:Pendulum-v1'}", ("3 values", "none, the present step alone")),
    ],
)
def test_a_file_is_checked_with_its_history_and_what_it_costs(
    tmp_path: Path, task: str, parts: tuple[str, ...]
) -> None:
    file = tmp_path / "experiment.yaml"
    file.write_text(f"task: {task}")
    status, text = run("check", str(file))
    assert status == 0
    for part in parts:
        assert part in text


def test_the_memory_that_is_printed_is_what_the_replay_api_allocates(tmp_path: Path) -> None:
    file = tmp_path / "experiment.yaml"
    file.write_text(
        """
        replay: {capacity: 3_000_000, sampling: prioritized}
        demonstrations: other
        curriculum:
          stages:
            - {name: a, gate: {mean_return: 1}}
            - name: b
              task: {reward: {preset: mattias}}
              replay: restart
              former: {share: 0.25, environment_steps: 1000}
              blend_environment_steps: 1000
        """
    )
    status, text = run("check", str(file))
    assert status == 0
    first, second = (line for line in text.splitlines() if line.startswith("replay memory"))
    assert first.endswith("GB when full, as much again for the demonstrations")
    assert second.endswith("GB when full, as much again for the demonstrations, as much again for the stage before")
    for line, blended in ((first, False), (second, True)):
        cache = TransitionCache(3_000_000, Row(159, 19), priority_exponent=0.6, blended=blended)
        cache.tail = cache.head - cache.rows  # as if all of them were in use
        assert f" {cache.nbytes / 1e9:.2f} GB when full" in line


def test_a_file_with_a_mistake_ends_with_its_name_and_status_1(tmp_path: Path) -> None:
    file = tmp_path / "experiment.yaml"
    file.write_text("task: {action: {limits: {vasti: [0, 0.5]}}}")
    status, text = run("check", str(file))
    assert status == 1
    assert "unknown muscle 'vasti'" in text
