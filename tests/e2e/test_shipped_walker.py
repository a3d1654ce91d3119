"""The policy that ships with the project walks, at osim-rl's own settings, by the one command of the README."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image


@pytest.mark.e2e
@pytest.mark.parametrize("policy", ["walk-2d", "walk-3d"])
def test_the_shipped_policy_walks_for_the_whole_three_seconds(tmp_path: Path, policy: str) -> None:
    gif = tmp_path / "walk.gif"
    command = [sys.executable, "-m", "gaitfleet", "play", "--policy", policy, "--gif", str(gif), "--width", "320"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    said = re.match(r"(\d+) steps, official score ([\d.-]+), ([\d.-]+) m, ended by time limit", answer.stdout)
    assert said is not None, answer.stdout
    assert int(said[1]) == 300
    assert float(said[2]) > 1000, "standing still scores 0, a dive 400"
    with Image.open(gif) as image:
        assert getattr(image, "n_frames", 1) > 70
