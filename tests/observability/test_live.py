"""A real Prometheus scrapes `gaitfleet up`: every panel and every rule has something to show."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from tests.observability.exported import all_metrics
from tests.observability.linter import panels
from tests.observability.prometheus import Prometheus, prometheus
from tests.observability.promql import metrics, substituted
from tests.observability.test_dashboards import DASHBOARDS, RULES
from tests.system.conftest import RunningFleet

pytestmark = pytest.mark.observability

RUN = "pendulum"
SHOWN_ON_ERROR_ONLY = {
    "storage / Commands that failed",
    "storage / Requests that failed",
    "storage / Objects deleted",
    "storage / Objects without a record",
}
"""Panels that stay empty while nothing goes wrong, or until the hourly look for orphans."""

RECORDED_ON_ERROR_ONLY = {"rl:api_error_ratio:rate5m", "rl:api_error_ratio:rate1h"}
PRICES = '{"replay-api": 0.05, "rollout": 0.04, "evaluation": 0.04, "trainer": 0.35}'


class Live:
    """The system, its Prometheus and its addresses."""

    def __init__(self, fleet: RunningFleet, server: Prometheus) -> None:
        self.fleet = fleet
        self.server = server
        groups = json.loads((fleet.directory / "data" / "prometheus-targets.json").read_text())
        self.targets = {group["labels"]["pod"]: group["targets"][0] for group in groups}


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """Pendulum, until a policy is published and evaluated, and two minutes of scrapes."""
    directory = tmp_path_factory.mktemp("live")
    rules = []
    for path in RULES.glob("*.yaml"):  # as the chart does, with the namespace that `gaitfleet up` names
        copy = directory / path.name
        copy.write_text(path.read_text().replace('namespace="gaitfleet"', 'namespace="local"'))
        rules.append(copy)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("GAITFLEET_REPLAY_API_DOLLARS_PER_HOUR", PRICES)
        environment.setenv("GAITFLEET_REPLAY_API_BUDGET_DOLLARS_PER_HOUR", "1")
        fleet = RunningFleet(directory, RUN, "--experiment", "pendulum", "--workers", "1", "--evaluators", "1")
    try:
        fleet.wait_for(lambda status: bool(status.workers) and status.trainer is not None, 240)
        with prometheus(directory, directory / "data" / "prometheus.yml", rules) as server:
            fleet.wait_for(lambda status: status.checkpoint is not None and "evaluate" in status.returns, 600)
            live = Live(fleet, server)
            _wait(live, "rl_eval_return_mean", 300)
            _wait(live, "increase(rl_replay_inserted_steps_total{role='train'}[2m]) > 0", 300)
            time.sleep(20)
            yield live
    finally:
        fleet.close()


def _wait(live: Live, expression: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not live.server.query(expression):
        assert time.monotonic() < deadline, f"{expression} has no value\n{live.fleet.logs()}"
        time.sleep(1)


def test_every_target_is_scraped(live: Live) -> None:
    assert set(live.targets) == {"replay-api", "trainer", "rollout", "evaluator"}
    up = {series["metric"]["pod"]: series["value"][1] for series in live.server.query("up")}
    assert up == dict.fromkeys(live.targets, "1")


def test_promtool_finds_nothing_in_what_is_exported(live: Live) -> None:
    program = shutil.which("promtool")
    assert program is not None
    for name, address in live.targets.items():
        page = httpx.get(f"http://{address}/metrics").text
        done = subprocess.run([program, "check", "metrics"], input=page, capture_output=True, text=True, check=False)
        # python_info and the like are of the library, not ours
        ours = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("rl_")]
        assert ours == [], name
        assert done.returncode in {0, 3}, done.stderr


def test_what_is_exported_is_what_is_documented(live: Live) -> None:
    names: set[str] = set()
    for address in live.targets.values():
        names |= set(re.findall(r"^# TYPE (rl_\w+) ", httpx.get(f"http://{address}/metrics").text, re.MULTILINE))
    assert names == set(all_metrics())


@pytest.mark.parametrize("name", DASHBOARDS)
def test_every_query_of_a_dashboard_has_data(live: Live, name: str) -> None:
    empty = []
    for panel in panels(DASHBOARDS[name]):
        for target in panel["targets"]:
            expression = substituted(target["expr"], namespace="local", run=RUN)
            if not live.server.query_range(expression, seconds=120, step=5):
                empty.append(f"{name} / {panel['title']}")
    assert set(empty) <= SHOWN_ON_ERROR_ONLY


def test_the_variables_have_values(live: Live) -> None:
    assert live.server.query('count by (namespace) (rl_build_info{namespace="local"})')
    assert live.server.query(f'rl_replay_ready{{run_id="{RUN}"}}')


def test_every_rule_is_evaluated_and_every_recording_has_data(live: Live) -> None:
    rules = live.server.rules()
    assert [f"{rule['name']}: {rule.get('lastError')}" for rule in rules if rule["health"] != "ok"] == []
    recorded = {rule["name"] for rule in rules if rule["type"] == "recording"}
    empty = {name for name in recorded if not live.server.query_range(name, seconds=120, step=5)}
    assert empty <= RECORDED_ON_ERROR_ONLY


def test_every_metric_of_a_rule_is_exported(live: Live) -> None:
    known = {re.sub(r"_(bucket|sum|count)$", "", name) for name in all_metrics()}
    rules = [
        rule
        for path in RULES.glob("*.yaml")
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
    ]
    known |= {rule["record"] for rule in rules if "record" in rule}
    used = {re.sub(r"_(bucket|sum|count)$", "", name) for rule in rules for name in metrics(rule["expr"])}
    assert used - known == set()


def test_cost_is_computed_from_the_prices(live: Live) -> None:
    (cost,) = live.server.query("sum(rl:cost_dollars_per_hour)")
    assert float(cost["value"][1]) == pytest.approx(0.48)
    assert Path(live.fleet.directory / "data" / "prometheus.yml").exists()
