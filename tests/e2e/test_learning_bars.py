"""Two of the bars of `make learning-bars`, those that take minutes: the algorithms learn what their papers say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "learning_bars.py"


@pytest.mark.e2e
@pytest.mark.parametrize("algorithm", ["td3", "sac"])
def test_pendulum_is_learned_within_twenty_thousand_steps_by_two_workers(algorithm: str, tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARK), "--tasks", "pendulum", "--algorithms", algorithm, "--seeds", "0"]
    learned = subprocess.run(
        [*command, "--data-dir", str(tmp_path / "data"), "--results", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert learned.returncode == 0, f"{learned.stdout}\n{learned.stderr}"
    record = json.loads((tmp_path / f"pendulum-{algorithm}-seed0.json").read_text())
    assert record["score"] >= -200
    assert record["samples_per_insert"] == pytest.approx(256, rel=0.1)
