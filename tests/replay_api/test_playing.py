"""`gaitfleet play ID` against a served application: the episode and the reward terms come from the API."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import numpy as np
from PIL import Image
from typer.testing import CliRunner, Result

from gaitfleet.command import app
from tests.replay_api.fleet import Fleet, experiment_of


def play(fleet: Fleet, *arguments: object) -> Result:
    options = ["--url", fleet.url, "--run", fleet.run, "--width", "320"]
    return CliRunner().invoke(app, ["play", *map(str, arguments), *options])


def test_an_episode_of_a_run_is_drawn_by_its_id(api: str, tmp_path: Path) -> None:
    """The rows are noise around the origin: a heap of bones, but bones and bars."""
    walk = experiment_of(task={"environment": "prosthetics", "reward": {"preset": "walk"}})
    picture = tmp_path / "last.png"
    with Fleet(api, walk) as fleet:
        episode = fleet.play(steps=6)
        assert fleet.post(episode).status_code == 201
        answer = play(fleet, episode.metadata.episode_id, "--png", picture)
    assert answer.exit_code == 0, answer.output
    with Image.open(picture) as image:
        assert len(np.unique(np.asarray(image).reshape(-1, 3), axis=0)) > 500


def test_an_unknown_id_and_another_task_end_with_one_line(fleet: Fleet, tmp_path: Path) -> None:
    gif = tmp_path / "a.gif"
    unknown = play(fleet, uuid4(), "--gif", gif)
    episode = fleet.play(steps=6)
    fleet.post(episode)
    pendulum = play(fleet, episode.metadata.episode_id, "--gif", gif)
    for answer in (unknown, pendulum):
        assert answer.exit_code == 1
        assert answer.output.startswith("gaitfleet: ")
        assert answer.output.count("\n") == 1
    assert "only episodes of `prosthetics` can be played" in pendulum.output
    assert not gif.exists()
