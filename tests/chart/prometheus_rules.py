"""Series for `promtool test rules`, and the tool itself."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.conftest import CHART

RULES = sorted((CHART / "rules").glob("*.yaml"))


def promtool(*arguments: str) -> str:
    """What promtool says; fails where it is not satisfied."""
    program = shutil.which("promtool")
    if program is None:
        pytest.fail("no promtool: install Prometheus, on Debian and Ubuntu with `apt-get install prometheus`")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def series(name: str, values: str, **labels: str) -> dict[str, str]:
    """A series of the run `walk` in the namespace gaitfleet, in promtool's notation, a value a minute."""
    every = {"namespace": "gaitfleet", "run_id": "walk"} | labels
    return {"series": f"{name}{_braces(every)}", "values": values}


def namespaced(name: str, values: str, **labels: str) -> dict[str, str]:
    """A series without a run."""
    return {"series": f"{name}{_braces({'namespace': 'gaitfleet'} | labels)}", "values": values}


def run_tests(directory: Path, tests: list[dict[str, Any]], evaluation: str = "1m") -> None:
    """Let promtool run tests of the chart's rules, evaluated so often."""
    path = directory / "tests.yaml"
    document = {"rule_files": [str(rules) for rules in RULES], "evaluation_interval": evaluation, "tests": tests}
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    promtool("test", "rules", str(path))


def _braces(labels: dict[str, str]) -> str:
    return "{" + ", ".join(f'{key}="{value}"' for key, value in labels.items()) + "}"
