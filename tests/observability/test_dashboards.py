"""The dashboards of the chart."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from deploy.dashboards.__main__ import DIRECTORY, texts

from tests.observability.exported import all_metrics
from tests.observability.linter import findings, panels
from tests.observability.promql import metrics, substituted

DASHBOARDS = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(DIRECTORY.glob("*.json"))}
RULES = DIRECTORY.parent / "rules"


@pytest.mark.parametrize("name", DASHBOARDS)
def test_the_linter_finds_nothing(name: str) -> None:
    assert findings(DASHBOARDS[name], all_metrics()) == []


def test_the_files_are_what_the_code_makes() -> None:
    """`make dashboards` writes them."""
    assert {path.name: path.read_text(encoding="utf-8") for path in DIRECTORY.glob("*.json")} == texts()


def test_every_metric_is_on_a_panel_a_mark_or_in_a_rule() -> None:
    expressions = [
        target["expr"] for board in DASHBOARDS.values() for panel in panels(board) for target in panel["targets"]
    ]
    marks = (mark for board in DASHBOARDS.values() for mark in board["annotations"]["list"])
    expressions += [mark["expr"] for mark in marks if "expr" in mark]
    for path in RULES.glob("*.yaml"):
        groups = yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
        expressions += [rule["expr"] for group in groups for rule in group["rules"]]
    used = {name for expression in expressions for name in metrics(substituted(expression))}
    used |= {re.sub(r"_(bucket|sum|count)$", "", name) for name in used}
    assert sorted(set(all_metrics()) - used) == []


def _expression(change: Callable[[str], str]) -> Callable[[dict[str, Any]], None]:
    def spoil(board: dict[str, Any]) -> None:
        for panel in panels(board):
            for target in panel["targets"]:
                target["expr"] = change(target["expr"])

    return spoil


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda board: board.update(id=7), "has an id"),
        (lambda board: panels(board)[0].update(type="graph"), "not a current one"),
        (lambda board: panels(board)[0].update(description=""), "no description"),
        (lambda board: panels(board)[0]["fieldConfig"]["defaults"].update(unit=""), "no unit"),
        (lambda board: panels(board)[0]["gridPos"].update(x=2), "overlap"),
        (lambda board: board["templating"]["list"].pop(), "variable run does not exist"),
        (lambda board: panels(board)[0]["targets"][0]["datasource"].update(uid="mine"), "fixed data source"),
        (_expression(lambda text: text.replace("updates", "update")), "does not exist"),
        (_expression(lambda text: text.replace("$__rate_interval", "5m")), "fits neither"),
        (_expression(lambda text: text.replace("(le)", "(job)")), "quantile"),
        (_expression(lambda text: re.sub(r"rate\((.*?)\[\$__rate_interval\]\)", r"\1", text)), "shown raw"),
        (_expression(lambda text: text.replace(', run_id=~"$run"', "")), "not limited to the run"),
        (_expression(lambda text: text + ")"), "cannot be parsed"),
    ],
)
def test_the_linter_finds_faults(spoil: Callable[[dict[str, Any]], None], said: str) -> None:
    board = copy.deepcopy(DASHBOARDS["trainer"])
    spoil(board)
    assert any(said in finding for finding in findings(board, all_metrics()))


def test_a_dashboard_fits_a_config_map() -> None:
    assert all(len(path.read_bytes()) < 500_000 for path in Path(DIRECTORY).glob("*.json"))
