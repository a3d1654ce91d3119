"""`gaitfleet compare` on runs of a real API."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from typer.testing import CliRunner

from gaitfleet.command import app
from gaitfleet.command.learning_curve import LearningCurve, band_of, curves_of
from gaitfleet.command.plotting import plot_curves
from gaitfleet.episode import Episode, encode_episode, encode_for_run
from gaitfleet.wire import EpisodeSummary
from tests.faults.observed import until
from tests.replay_api.fleet import Fleet, experiment_of
from tests.replay_api.test_curriculum import Walk


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


def compared(fleet: Fleet, directory: Path) -> tuple[list[dict[str, Any]], str]:
    """Rows of the table, and what is said besides."""
    png = str(directory / "compare.png")
    answer = CliRunner().invoke(app, ["compare", fleet.run, "--url", fleet.url, "--png", png, "--json"])
    assert answer.exit_code == 0, answer.output
    return json.loads(answer.stdout), answer.stderr


def test_steps_that_retention_has_deleted_count(api: str, tmp_path: Path) -> None:
    """An evaluation before and after each of three times 500 steps; the first 500 are deleted."""
    with Fleet(api, experiment_of(task={"time_limit_steps": 500}, retention={"max_transitions": 1100})) as fleet:
        epoch = fleet.lease().json()["epoch"]
        for version in range(4):
            if version:
                post(fleet, role="random", steps=500, version=0, reward=0.0, seed=version)
            assert fleet.publish(version + 1, epoch).status_code == 201
            post(fleet, role="evaluate", steps=10, version=version + 1, reward=version, seed=1)
        until(lambda: len(fleet.get("/episodes").json()["episodes"]) == 6, "retention does not delete")
        (row,), said = compared(fleet, tmp_path)
    assert (row["environment_steps"], row["final"]) == (1500.0, pytest.approx(30.0))
    assert row["mean_over_steps"] == pytest.approx(25.0)  # from 1000 steps on
    assert f"{fleet.run}: 2 policies were evaluated before the oldest training episode that is left" in said


def test_a_policy_has_one_score_for_each_seed_and_none_from_another_run(fleet: Fleet, tmp_path: Path) -> None:
    assert fleet.publish(1, fleet.lease().json()["epoch"]).status_code == 201
    for seed, reward in ((1, 0.0), (1, 0.0), (2, 30.0)):
        post(fleet, role="evaluate", steps=10, version=1, reward=reward, seed=seed)
    played = fleet.play(role="evaluate", exploration="none")
    elsewhere = Episode(played.metadata.model_copy(update={"run": "elsewhere"}), played.trajectory)
    assert fleet.post(encode_for_run(encode_episode(elsewhere), fleet.run)).status_code == 201
    (row,), _ = compared(fleet, tmp_path)
    assert row["best"] == row["mean_over_steps"] == pytest.approx(150.0)


def test_a_curriculum_has_a_curve_for_each_stage(api: str, tmp_path: Path) -> None:
    """The last policy of a stage is evaluated once more in the next one."""
    with Walk(api) as walk:
        walk.publish_step(1)
        scores = {}
        for stage in ("planar", "spatial"):
            for seed in range(2):
                episode = walk.episode(
                    stage, distance_m=0.6, seed=seed, role="evaluate", exploration="none", policy_version=1
                )
                assert walk.post(episode).status_code == 201
                scores[stage, seed] = episode.trajectory.reward.sum(dtype=float)
            assert walk.stage() == "spatial"
        rows, _ = compared(walk, tmp_path)
    means = {f"{walk.run}, {stage}": (scores[stage, 0] + scores[stage, 1]) / 2 for stage in ("planar", "spatial")}
    assert {row["group"]: row["final"] for row in rows} == pytest.approx(means)


@pytest.mark.parametrize("name", ["plot", "plot.csv"])
def test_the_plot_is_a_png_under_the_name_that_was_given(name: str, tmp_path: Path) -> None:
    curve = LearningCurve("a", np.array([0.0, 100.0]), np.array([0.0, 10.0]), (1, 1), (1, 2))
    plot_curves({"a": [curve]}, tmp_path / name)
    (written,) = tmp_path.iterdir()
    assert written.name == name
    assert written.read_bytes().startswith(b"\x89PNG")


def test_a_run_without_evaluations_is_named(fleet: Fleet, tmp_path: Path) -> None:
    png = str(tmp_path / "compare.png")
    answer = CliRunner().invoke(app, ["compare", fleet.run, "--url", fleet.url, "--png", png])
    assert answer.exit_code == 1
    assert fleet.run in answer.stderr
    assert "no evaluation episodes" in answer.stderr


def test_points_stand_in_the_order_in_which_policies_were_evaluated() -> None:
    """The best policy may be looked at again after a newer one."""
    stored = [("random", 0), ("evaluate", 2), ("random", 0), ("evaluate", 1)]
    episodes = [
        EpisodeSummary.model_construct(
            episode_id=UUID(int=at),
            stored_at=datetime(2026, 1, 1, 0, at, tzinfo=UTC),
            steps=10,
            role=role,
            policy_version=version,
            seed=1,
            simulator_return=float(version),
        )
        for at, (role, version) in enumerate(stored)
    ]
    (curve,) = curves_of("walker", episodes)
    assert curve.environment_steps.tolist() == [10.0, 20.0]
    assert curve.policy_version == (2, 1)
    assert curve.score.tolist() == [2.0, 1.0]


def test_a_band_is_where_all_runs_of_a_group_have_scores() -> None:
    curves = [
        LearningCurve("a-seed0", np.array([0.0, 100.0]), np.array([0.0, 10.0]), (1, 1), (1, 2)),
        LearningCurve("a-seed1", np.array([50.0, 150.0]), np.array([7.0, 17.0]), (1, 1), (1, 2)),
    ]
    band = band_of(curves)
    assert (band.environment_steps[0], band.environment_steps[-1]) == (50.0, 100.0)
    np.testing.assert_allclose(band.mean[[0, -1]], [6.0, 11.0])
    np.testing.assert_allclose(band.deviation, 1.0)
