"""The sign of life that liveness probes look at."""

from __future__ import annotations

import os
from pathlib import Path

from gaitfleet import progress
from gaitfleet.progress import ProgressFile


def test_it_says_nothing_until_the_loop_turns(tmp_path: Path) -> None:
    path = tmp_path / "progress"
    path.touch()
    sign = ProgressFile(path)
    assert not path.exists(), "what an earlier process left there"
    sign.beat()
    assert path.exists()


def test_every_beat_is_a_new_time_but_at_most_once_a_second(tmp_path: Path) -> None:
    path = tmp_path / "progress"
    sign = ProgressFile(path)
    sign.beat()
    os.utime(path, (0, 0))
    sign.beat()
    assert path.stat().st_mtime == 0
    sign._beaten_at -= progress.BEAT_SECONDS
    sign.beat()
    assert path.stat().st_mtime > 0


def test_no_path_is_no_file_and_a_path_that_cannot_be_written_ends_nothing(tmp_path: Path) -> None:
    ProgressFile(None).beat()
    sign = ProgressFile(tmp_path / "missing" / "progress")
    sign.beat()
    assert not list(tmp_path.iterdir())
