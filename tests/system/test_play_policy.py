"""`gaitfleet play --policy`: a policy of a run plays in a real simulator, and is drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner, Result

from gaitfleet.command import app
from gaitfleet.command.policy_episode import choose, shipped
from gaitfleet.policy import NumpyPolicy
from gaitfleet.task import make_task
from tests.replay_api.fleet import Fleet, experiment_of

TASK = {"environment": "prosthetics", "model": "2D", "time_limit_steps": 6, "reward": {"preset": "walk"}}


def play(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["play", *map(str, arguments), "--width", "320"])


def test_a_policy_of_a_run_or_of_a_file_plays_one_episode_that_is_drawn(api: str, tmp_path: Path) -> None:
    """A linear policy of noise for six steps. The same from its file, with the task beside it."""
    picture, again, file = tmp_path / "last.png", tmp_path / "again.png", tmp_path / "policy.safetensors"
    with Fleet(api, experiment_of(task=TASK)) as fleet:
        at = ("--url", fleet.url, "--run", fleet.run)
        early = play("--policy", "best", "--png", picture, *at)
        assert fleet.publish(3, fleet.lease().json()["epoch"]).status_code == 201
        answer = play("--policy", "newest", "--png", picture, "--accuracy", 5e-3, "--seed", 7, *at)
        file.write_bytes(fleet.get("/policy").content)
    assert early.exit_code == 1
    assert f"run {fleet.run} has no best policy yet" in early.output
    assert answer.exit_code == 0, answer.output
    assert answer.output.startswith("6 steps, official score ")
    assert "ended by time limit, RungeKuttaMerson at 0.005" in answer.output
    with Image.open(picture) as image:
        assert len(np.unique(np.asarray(image).reshape(-1, 3), axis=0)) > 500

    assert NumpyPolicy.from_bytes(file.read_bytes()).description.version == 3
    experiment = tmp_path / "experiment.yaml"
    experiment.write_text(yaml.safe_dump({"task": TASK}))
    options = ("--experiment", experiment, "--accuracy", 5e-3, "--seed", 7)
    same = play("--policy", file, "--png", again, *options)
    assert same.exit_code == 0, same.output
    assert same.output.splitlines()[0] == answer.output.splitlines()[0]
    assert again.read_bytes() == picture.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--policy", "nowhere"], "--policy nowhere needs --experiment FILE"),
        (["--policy", "nowhere", "--experiment", "prosthetics"], "--policy nowhere: No such file"),
        (["--policy", "walk-2d", "--experiment", "pendulum"], "this is gymnasium:Pendulum-v1"),
        (["--policy", "walk-2d", "--file", "a"], "give neither an id nor --file"),
        (["--policy", "walk-2d", "--accuracy", "0.5"], "--accuracy 0.5: Input should be less than 0.01"),
        (["--policy", "walk-2d", "--integrator", "Euler"], "--integrator Euler: Input should be"),
    ],
)
def test_a_policy_that_cannot_be_played_ends_it_with_a_word(arguments: list[str], words: str, tmp_path: Path) -> None:
    answer = play(*arguments, "--png", tmp_path / "a.png")
    assert answer.exit_code == 1
    assert words in answer.output
    assert answer.output.count("\n") == 1


def test_a_policy_of_another_observation_is_refused_with_both_sizes(tmp_path: Path) -> None:
    experiment = tmp_path / "experiment.yaml"
    experiment.write_text(yaml.safe_dump({"task": {"observation": {"preset": "official-160"}}}))
    answer = play("--policy", "walk-2d", "--experiment", experiment, "--png", tmp_path / "a.png")
    assert answer.exit_code == 1
    assert "the policy takes 159 values" in answer.output
    assert "the task has 160" in answer.output


def test_every_shipped_policy_fits_the_experiment_beside_it() -> None:
    for name in shipped():
        chosen = choose(name, None, url="", run=None)
        policy = NumpyPolicy.from_bytes(chosen.body).description
        assert policy.observation_hash == make_task(chosen.task).description.observation_hash
    assert shipped() == ["walk-2d", "walk-3d"]
