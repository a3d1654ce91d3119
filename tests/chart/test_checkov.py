"""checkov over everything that the chart renders and every Dockerfile: no finding without a reason to leave it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.conftest import REPOSITORY, SCENARIOS, Manifest, Render, values

pytestmark = pytest.mark.chart

SKIPS: dict[str, dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("checkov-skips.yaml").read_text())


def placed(item: Manifest, namespace: str) -> Manifest:
    """As helm sends it: in the namespace of the release, which templates do not name."""
    return item | {"metadata": {"namespace": namespace} | item["metadata"]}


def component(finding: dict[str, Any], rendered: dict[str, list[Manifest]]) -> str:
    """Which component's object it is about; empty for a Dockerfile."""
    if finding["file_path"].endswith(".Dockerfile"):
        return ""
    kind, _, name = finding["resource"].split(".", 2)
    (labels,) = [
        item["metadata"]["labels"]
        for item in rendered[Path(finding["file_path"]).stem]
        if item["kind"] == kind and item["metadata"]["name"] == name
    ]
    return str(labels["app.kubernetes.io/component"])


def test_checkov_finds_nothing_but_what_has_a_reason(render: Render, tmp_path: Path) -> None:
    """All at once: checkov takes seconds to start. It finds each skip, too, so that none outlives its reason."""
    program = os.environ.get("CHECKOV") or shutil.which("checkov")
    if program is None:
        pytest.fail("no checkov: run `make chart`, which installs requirements-checkov.txt, or put it on the PATH")
    rendered = {scenario: render(*values(scenario)).objects for scenario in SCENARIOS}
    for scenario, objects in rendered.items():
        text = yaml.safe_dump_all(placed(item, f"of-{scenario}") for item in objects)
        (tmp_path / f"{scenario}.yaml").write_text(text)
    for path in (REPOSITORY / "docker").glob("*.Dockerfile"):
        shutil.copy(path, tmp_path)
    options = ["--skip-download", "--quiet", "--compact", "--soft-fail", "--output", "json"]
    command = [program, *options, "--framework", "kubernetes", "dockerfile", "--directory", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    reports = json.loads(done.stdout)
    assert {report["check_type"] for report in reports} == {"kubernetes", "dockerfile"}
    assert not any(report["summary"]["parsing_errors"] for report in reports)
    found, unexcused = set(), []
    for finding in (finding for report in reports for finding in report["results"]["failed_checks"]):
        skip, where = SKIPS.get(finding["check_id"]), component(finding, rendered)
        found.add((finding["check_id"], where))
        if skip is None or where not in skip.get("in", [where]):
            unexcused.append(
                f"{finding['check_id']} {finding['check_name']}: {finding['file_path']} {finding['resource']}"
            )
    assert not unexcused, "\n".join(unexcused)
    needed = {(check, where) for check, skip in SKIPS.items() for where in skip.get("in", [])}
    assert needed <= found, f"skips that nothing needs: {sorted(needed - found)}"
    assert SKIPS.keys() <= {check for check, _ in found}
