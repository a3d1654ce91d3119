"""`gaitfleet events` against a served application: like `tail`, and on from a sequence."""

from __future__ import annotations

import json
from fnmatch import _compile_pattern  # type: ignore[attr-defined]

import pytest
from typer.testing import CliRunner

from gaitfleet.command import app
from tests.replay_api.fleet import Fleet


def events(fleet: Fleet, *arguments: str) -> str:
    result = CliRunner().invoke(app, ["events", "--url", fleet.url, "--run", fleet.run, *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_the_newest_events_are_shown_and_after_goes_on_from_one(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """All pages are read, the last one too when it is full."""
    monkeypatch.setattr("gaitfleet.client.replay_client.PAGE", 2)
    for i in range(5):
        fleet.http.patch(f"{fleet.path}/limits", json={"samples_per_insert": 10.0 + i})
    known = fleet.events()
    assert [event["kind"] for event in known] == ["run_started", *["limits_changed"] * 5]
    assert json.loads(events(fleet, "--limit", "3", "--json"))["events"] == known[-3:]
    assert json.loads(events(fleet, "--json"))["events"] == known
    assert json.loads(events(fleet, "--kind", "run_started", "--json"))["events"] == known[:1]

    lines = events(fleet, "--limit", "4").splitlines()
    assert [line.split()[0] for line in lines] == [event["sequence"] for event in known[-4:]]
    after = lines[0].split()[0]
    assert json.loads(events(fleet, "--after", after, "--limit", "2", "--json"))["events"] == known[3:5]


def test_patterns_of_columns_are_not_kept(fleet: Fleet) -> None:
    """Python's own matcher keeps 32,768 of them, each with up to half a megabyte of what is made of it."""
    before = _compile_pattern.cache_info().currsize  # type: ignore[attr-defined]
    episode = fleet.play()
    fleet.post(episode)
    path = f"/episodes/{episode.metadata.episode_id}/timesteps"
    assert fleet.get(path, params={"columns": "rew*,*/0"}).is_success
    assert fleet.get(path, params={"columns": "*a" * 101}).json()["detail"].startswith("a pattern has 202 characters")
    assert _compile_pattern.cache_info().currsize == before  # type: ignore[attr-defined]
