"""`gaitfleet analyze` against a real API: what it prints, draws and writes."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tests.replay_api.fleet import Fleet
from typer.testing import CliRunner

from gaitfleet.analysis.collect import collect
from gaitfleet.analysis.columns import ColumnRanges
from gaitfleet.analysis.page import render
from gaitfleet.client import ReplayClient
from gaitfleet.command import app

EPISODES = 12


@pytest.fixture(scope="module")
def played(api: str) -> Iterator[Fleet]:
    """A Pendulum run; one of its episodes has a frozen policy."""
    with Fleet(api) as fleet:
        for seed in range(EPISODES):
            episode = fleet.play(seed=seed)
            if seed == 9:
                action = np.full_like(episode.trajectory.action, 0.5)
                episode = replace(episode, trajectory=replace(episode.trajectory, action=action))
            assert fleet.post(episode).status_code == 201
        yield fleet


class Page(HTMLParser):
    """What a page would fetch, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "link", "iframe")
        self.sources += [value or "" for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_stands_alone_and_the_pictures_lie_beside_it(played: Fleet, tmp_path: Path) -> None:
    arguments = ["analyze", played.run, "--url", played.url, "--output", str(tmp_path / "new" / "folder")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "frozen_actions  1 episode. " in result.output
    written = {path.name: path for path in (tmp_path / "new" / "folder").iterdir()}
    assert written.keys() == {"analysis.html", "returns.png", "terms.png", "endings.png"} | {
        f"{name}.png" for name in ("lengths", "findings", "actions")
    }
    page = Page(written.pop("analysis.html").read_text(encoding="utf-8"))
    assert len(page.sources) == len(written)
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert "frozen_actions in 1 episode" in page.text
    assert "url(" not in page.text
    for path in written.values():
        with Image.open(path) as picture:
            assert picture.width > 900


def test_only_so_many_episodes_are_read_and_the_numbers_are_theirs(played: Fleet) -> None:
    with ReplayClient(played.url, run=played.run) as client:
        analysis = collect(client, episodes=4, history=7)
    newest = [played.play(seed=seed).trajectory for seed in range(EPISODES - 4, EPISODES)]
    rows = np.concatenate([trajectory.state for trajectory in newest])
    assert (analysis.read, len(analysis.history), analysis.simulated_rows) == (4, 7, len(rows))
    assert [column.minimum for column in analysis.columns] == rows.min(axis=0).tolist()
    assert [column.quantiles[1] for column in analysis.columns] == pytest.approx(np.median(rows, axis=0))
    assert analysis.action_histogram.sum() == pytest.approx(1)
    assert analysis.findings["frozen_actions"].episodes == 1


def test_episodes_are_listed_by_id_and_by_finding(played: Fleet) -> None:
    arguments = ["episodes", "--run", played.run, "--url", played.url]
    everything = CliRunner().invoke(app, arguments).output.splitlines()
    assert len(everything) == 1 + EPISODES
    (line,) = CliRunner().invoke(app, [*arguments, "--finding", "frozen_actions"]).output.splitlines()[1:]
    UUID(line.split()[0])
    assert line.split()[-1] == "frozen_actions"
    assert line in everything


def test_a_run_without_episodes_has_a_page(api: str, tmp_path: Path) -> None:
    with Fleet(api) as fleet:
        result = CliRunner().invoke(app, ["analyze", fleet.run, "--url", api, "--output", str(tmp_path)])
        assert result.exit_code == 0, result.output
    assert "none yet" in (tmp_path / "analysis.html").read_text(encoding="utf-8")


def test_the_page_escapes_what_it_shows(played: Fleet) -> None:
    with ReplayClient(played.url, run=played.run) as client:
        analysis = collect(client, episodes=4, history=4)
    (name, found), *_ = analysis.findings.items()
    finding = found.finding.model_copy(update={"detail": "<script>alert(1)</script>"})
    html = render(replace(analysis, findings={name: replace(found, finding=finding)}), [])
    assert "<script" not in html
    assert "&lt;script&gt;" in html


def test_pictures_without_the_extra_name_it() -> None:
    code = """
import sys
sys.modules["matplotlib"] = None
from gaitfleet.command import app
app(["analyze", "any", "--url", "http://127.0.0.1:9", "--output", "nowhere"])
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert re.search(r"pictures need matplotlib\S*, of an extra: pip install 'gaitfleet\[analyze\]'", result.stderr)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(1, 12), st.integers(0, 99))
def test_ranges_over_parts_are_those_of_the_whole(parts: list[int], capacity: int, seed: int) -> None:
    rows = np.random.default_rng(seed).normal(size=(sum(parts), 2)).astype(np.float32)
    low, high = np.array([-1.0, -np.inf]), np.array([1.0, np.inf])
    ranges = ColumnRanges(["a", "b"], ["m", "m"], low, high, capacity)
    for part in np.split(rows, np.cumsum(parts)[:-1]):
        ranges.add(part)
    a, b = ranges.ranges()
    assert (a.minimum, a.maximum) == (rows[:, 0].min(), rows[:, 0].max())
    assert (a.beyond, b.beyond) == ((np.abs(rows[:, 0]) > 1).sum(), 0)
    assert a.minimum <= a.quantiles[0] <= a.quantiles[1] <= a.quantiles[2] <= a.maximum
    if len(rows) <= capacity:
        assert b.quantiles[1] == pytest.approx(float(np.median(rows[:, 1])), abs=1e-6)
