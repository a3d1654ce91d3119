"""`gaitfleet lr-find` on a run of a real API, in the process that a user starts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gaitfleet.command import app
from tests.replay_api.fleet import Fleet


def lr_find(fleet: Fleet, tmp_path: Path, *options: str) -> tuple[int, str, str]:
    arguments = ["lr-find", fleet.run, "--url", fleet.url, "--png", str(tmp_path / "lr.png"), "--device", "cpu"]
    answer = CliRunner().invoke(app, [*arguments, *options])
    return answer.exit_code, answer.stdout, answer.stderr


def test_the_loss_falls_and_grows_again_and_the_suggestion_is_below_its_least(fleet: Fleet, tmp_path: Path) -> None:
    for seed in range(4):
        assert fleet.post(fleet.play(seed=seed, steps=60)).status_code == 201
    status, output, errors = lr_find(fleet, tmp_path, "--steps", "120", "--batches", "1", "--highest", "100", "--json")
    assert status == 0, errors
    found = json.loads(output)
    assert found["diverged"], "no network learns with a learning rate of 100"
    rates, smoothed = found["learning_rate"], found["smoothed"]
    assert rates[0] == pytest.approx(1e-6)
    assert min(smoothed) < smoothed[0]
    assert found["suggestion"] == pytest.approx(rates[smoothed.index(min(smoothed))] / 10)
    assert (tmp_path / "lr.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_that_does_not_exist_ends_it_with_a_word(fleet: Fleet, tmp_path: Path) -> None:
    fleet.run = "nobody"
    status, _, errors = lr_find(fleet, tmp_path)
    assert status == 1
    assert "nobody" in errors
