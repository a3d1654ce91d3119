"""`gaitfleet compare` on runs of a real API."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from gaitfleet.command import app
from gaitfleet.command.learning_curve import LearningCurve, band_of
from tests.replay_api.fleet import Fleet


def post(fleet: Fleet, *, role: str, steps: int, version: int, reward: float, seed: int) -> None:
    episode = fleet.play(seed=seed, steps=steps, role=role, policy_version=version, exploration="none")
    episode.trajectory.reward[:] = np.float32(reward)
    answer = fleet.post(episode)
    assert answer.status_code == 201, answer.text


def test_scores_are_held_against_the_steps_collected_before_them(api: str, tmp_path: Path) -> None:
    """Run b scores 10 more than run a at every point; two evaluations of a policy are one point, their mean."""
    runs = []
    for offset in (0.0, 1.0):
        with Fleet(api) as fleet:
            runs.append(fleet.run)
            epoch = fleet.lease().json()["epoch"]
            for version in (1, 2):
                post(fleet, role="random", steps=20, version=0, reward=0.0, seed=version)
                assert fleet.publish(version, epoch).status_code == 201
                for seed, better in ((10, -0.5), (11, 0.5)):
                    reward = version + offset + better
                    post(fleet, role="evaluate", steps=10, version=version, reward=reward, seed=seed)
    png = tmp_path / "compare.png"
    answer = CliRunner().invoke(app, ["compare", *runs, "--url", api, "--png", str(png), "--json"])
    assert answer.exit_code == 0, answer.output
    first, second = json.loads(answer.stdout)
    assert (first["group"], first["runs"], first["environment_steps"]) == (runs[0], 1, 40.0)
    assert (first["final"], second["final"]) == pytest.approx((20.0, 30.0))
    assert second["best"] == pytest.approx(30.0)
    assert png.read_bytes().startswith(b"\x89PNG")


def test_a_run_without_evaluations_is_named(fleet: Fleet, tmp_path: Path) -> None:
    png = str(tmp_path / "compare.png")
    answer = CliRunner().invoke(app, ["compare", fleet.run, "--url", fleet.url, "--png", png])
    assert answer.exit_code == 1
    assert fleet.run in answer.stderr
    assert "no evaluation episodes" in answer.stderr


def test_a_band_is_where_all_runs_of_a_group_have_scores() -> None:
    curves = [
        LearningCurve("a-seed0", np.array([0.0, 100.0]), np.array([0.0, 10.0]), (1, 1), (1, 2)),
        LearningCurve("a-seed1", np.array([50.0, 150.0]), np.array([7.0, 17.0]), (1, 1), (1, 2)),
    ]
    band = band_of(curves)
    assert (band.environment_steps[0], band.environment_steps[-1]) == (50.0, 100.0)
    np.testing.assert_allclose(band.mean[[0, -1]], [6.0, 11.0])
    np.testing.assert_allclose(band.deviation, 1.0)
