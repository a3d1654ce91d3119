"""Rules, dashboards and autoscaling, as the chart makes them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.chart.alert_cases import CASES
from tests.chart.conftest import CHART, REPOSITORY, Helm, Render, values
from tests.chart.prometheus_rules import RULES, namespaced, promtool, run_tests, series

pytestmark = pytest.mark.chart

CRDS = Path(__file__).parent / "crds"
GROUPS = [group for path in RULES for group in yaml.safe_load(path.read_text())["groups"]]
ALERTS = {rule["alert"]: rule for group in GROUPS for rule in group["rules"] if "alert" in rule}
RUNBOOKS = REPOSITORY / "docs" / "operations.md"


@pytest.mark.parametrize(
    ("kind", "file"),
    [
        ("ServiceMonitor", "monitoring.coreos.com_servicemonitors"),
        ("PodMonitor", "monitoring.coreos.com_podmonitors"),
        ("PrometheusRule", "monitoring.coreos.com_prometheusrules"),
        ("ScaledObject", "keda.sh_scaledobjects"),
    ],
)
def test_custom_resources_are_valid(render: Render, kind: str, file: str) -> None:
    """Strictly: a field that the resource's definition does not know is an error."""
    (item,) = render(*values("monitoring")).all(kind)
    definition = yaml.safe_load((CRDS / f"{file}.yaml").read_text())
    schema = closed(definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"])
    jsonschema.Draft202012Validator(schema).validate(item["spec"])


def closed(schema: Any) -> Any:
    """The schema with unknown fields refused, as the API server prunes them silently."""
    if isinstance(schema, dict):
        schema = {key: closed(value) for key, value in schema.items()}
        if schema.get("type") == "object" and isinstance(schema.get("properties"), dict):
            schema.setdefault("additionalProperties", False)
    elif isinstance(schema, list):
        schema = [closed(item) for item in schema]
    return schema


def test_nothing_of_it_is_made_by_default(render: Render) -> None:
    rendered = render()
    assert not rendered.all("PrometheusRule") + rendered.all("ScaledObject")
    assert "grafana_dashboard" not in rendered.text
    assert "DOLLARS" not in rendered.text


# --- rules ------------------------------------------------------------------------------------------------------------


def test_promtool_accepts_the_rules_as_they_are_and_as_they_are_rendered(render: Render, tmp_path: Path) -> None:
    (rule,) = render(*values("monitoring"), "--namespace", "elsewhere").all("PrometheusRule")
    path = tmp_path / "rendered.yaml"
    path.write_text(yaml.safe_dump(rule["spec"]))
    promtool("check", "rules", "--lint-fatal", str(path), *map(str, RULES))


def test_the_rules_look_at_their_own_namespace_only(render: Render) -> None:
    (rule,) = render(*values("monitoring"), "--namespace", "elsewhere").all("PrometheusRule")
    for group in rule["spec"]["groups"]:
        for entry in group["rules"]:
            selectors = re.findall(r"\brl[_:]\w[\w:]*(?=\{)", entry["expr"])
            assert entry["expr"].count('namespace="elsewhere"') == len(selectors) > 0, entry
            assert not re.search(r"\brl[_:]\w[\w:]*(?![\w:{])", entry["expr"]), entry


def test_alerts_can_be_left_out_labelled_and_lead_to_their_runbook(render: Render) -> None:
    (rule,) = render(*values("monitoring")).all("PrometheusRule")
    alerts = {entry["alert"]: entry for group in rule["spec"]["groups"] for entry in group["rules"] if "alert" in entry}
    assert set(alerts) == set(ALERTS) - {"GaitfleetTrainerStarved"}
    for name, alert in alerts.items():
        assert alert["labels"]["team"] == "locomotion"
        assert alert["annotations"]["runbook_url"] == f"https://example.org/gaitfleet/operations#{name.lower()}"


def test_every_alert_has_a_runbook() -> None:
    """Each says what it means, what it harms, how to look and how to mend it."""
    sections = re.split(r"^### ", RUNBOOKS.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    runbooks = {section.partition("\n")[0]: section for section in sections if section.startswith("Gaitfleet")}
    assert set(runbooks) == set(ALERTS)
    for name, text in runbooks.items():
        assert all(f"**{part}.**" in text for part in ("Meaning", "Impact", "Look", "Mend")), name
    for name, alert in ALERTS.items():
        assert alert["annotations"]["runbook_url"] == f"docs/operations.md#{name.lower()}"
        assert alert["labels"]["severity"] in {"critical", "warning", "info"}


def test_every_alert_fires_when_it_should_and_only_then(tmp_path: Path) -> None:
    assert set(CASES) == set(ALERTS)
    tests = []
    for name, (fires, silent) in CASES.items():
        for kind, given in (("fires", fires), ("is silent", silent)):
            query = {
                "expr": f'count(ALERTS{{alertname="{name}", alertstate="firing"}})',
                "eval_time": "55m",
                "exp_samples": [{"labels": "{}", "value": 1}] if kind == "fires" else [],
            }
            tests.append(
                {"name": f"{name} {kind}", "interval": "1m", "input_series": given, "promql_expr_test": [query]}
            )
    run_tests(tmp_path, tests, evaluation="2m")  # half the work of a minute, and short enough for every `for`


def test_cost_is_processes_times_their_price(tmp_path: Path) -> None:
    pods = [namespaced("rl_build_info", "1x9", component="rollout", version="1", pod=str(pod)) for pod in range(3)]
    price = namespaced("rl_cost_price_dollars_per_hour", "0.04x9", component="rollout")
    expected = [
        {"labels": 'rl:cost_dollars_per_hour{namespace="gaitfleet", component="rollout"}', "value": 0.12},
    ]
    query = {"expr": "rl:cost_dollars_per_hour", "eval_time": "5m", "exp_samples": expected}
    run_tests(tmp_path, [{"interval": "1m", "input_series": [*pods, price], "promql_expr_test": [query]}])


# --- dashboards -------------------------------------------------------------------------------------------------------


def test_dashboards_reach_grafana_as_they_are(render: Render) -> None:
    maps = [item for item in render(*values("monitoring")).all("ConfigMap") if "dashboard" in item["metadata"]["name"]]
    shipped = {}
    for item in maps:
        assert item["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert item["metadata"]["annotations"]["grafana_folder"] == "gaitfleet"
        shipped |= {name: json.loads(text) for name, text in item["data"].items()}
    files = {f"gaitfleet-{path.name}": json.loads(path.read_text()) for path in (CHART / "dashboards").glob("*.json")}
    assert shipped == files
    assert len(files) == 6


def test_the_label_of_dashboards_can_be_another(render: Render) -> None:
    arguments = ("--set", "monitoring.dashboards.labels.grafana_dashboard=null,monitoring.dashboards.labels.mine=yes")
    maps = render("--set", "monitoring.dashboards.enabled=true", *arguments).all("ConfigMap")
    labelled = [item for item in maps if item["metadata"]["labels"].get("mine") == "yes"]
    assert len(labelled) == 6
    assert not any("grafana_dashboard" in item["metadata"]["labels"] for item in maps)


def test_a_new_version_is_marked_and_one_more_pod_of_the_old_one_is_not(tmp_path: Path) -> None:
    board = json.loads((CHART / "dashboards" / "overview.json").read_text(encoding="utf-8"))
    (mark,) = [mark for mark in board["annotations"]["list"] if mark["name"] == "New version"]
    pods = [
        namespaced("rl_build_info", "1x30", component="rollout", version="1", pod="old"),
        namespaced("rl_build_info", "_x10 1x20", component="rollout", version="1", pod="more"),
        namespaced("rl_build_info", "_x20 1x10", component="rollout", version="2", pod="new"),
    ]
    marked: dict[str, list[dict[str, Any]]] = {"11m": [], "21m": [{"labels": '{version="2"}', "value": 1}]}
    expression = mark["expr"].replace("$namespace", "gaitfleet")
    queries = [{"expr": expression, "eval_time": at, "exp_samples": said} for at, said in marked.items()]
    run_tests(tmp_path, [{"interval": "1m", "input_series": pods, "promql_expr_test": queries}])


# --- cost and autoscaling ---------------------------------------------------------------------------------------------


def test_prices_reach_the_replay_api(render: Render) -> None:
    variables = render(*values("monitoring")).environment("Deployment", "replay-api")
    prices = json.loads(variables["GAITFLEET_REPLAY_API_DOLLARS_PER_HOUR"])
    assert prices == {"rollout": 0.04, "evaluation": 0.04, "trainer": 1.2, "replay-api": 0.1}
    assert float(variables["GAITFLEET_REPLAY_API_BUDGET_DOLLARS_PER_HOUR"]) == 3


@pytest.mark.parametrize(("budget", "most"), [("0", 50), ("1.5", 37), ("0.12", 3), ("100", 50), ("0.01", 1)])
def test_the_budget_caps_the_number_of_workers(render: Render, budget: str, most: int) -> None:
    arguments = ("--set-json", f"rollout.autoscaling.budgetDollarsPerHour={budget}")
    (scaled,) = render(*values("monitoring"), *arguments).all("ScaledObject")
    assert scaled["spec"]["maxReplicaCount"] == most


def test_an_autoscaled_number_of_workers_is_never_rendered(render: Render) -> None:
    rendered = render(*values("monitoring"))
    assert "replicas" not in rendered.one("Deployment", "rollout")["spec"]
    (scaled,) = rendered.all("ScaledObject")
    assert scaled["spec"]["scaleTargetRef"]["name"] == "gaitfleet-rollout"
    records = {rule["record"] for group in GROUPS for rule in group["rules"] if "record" in rule}
    (trigger,) = scaled["spec"]["triggers"]
    assert re.findall(r"rl:\w+", trigger["metadata"]["query"])[0] in records


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("rollout.replicas=3", "rollout.replicas=null"),
        ("rollout.autoscaling.prometheusAddress=", "prometheusAddress"),
        ("monitoring.rules.enabled=false", "monitoring.rules.enabled=true"),
        ("rollout.autoscaling.minReplicas=60", "minReplicas is 60"),
        ("rollout.autoscaling.minReplicas=0", "minimum"),
        ("monitoring.cost.dollarsPerHour.rollout=0", "set monitoring.cost.dollarsPerHour.rollout"),
        ("monitoring.cost.dollarsPerHour.rollouts=1", "rollouts"),
    ],
)
def test_autoscaling_without_what_it_needs_is_refused(helm: Helm, change: str, said: str) -> None:
    assert said in helm.refusal(*values("monitoring"), "--set", change)


def _desired(tmp_path: Path, given: list[dict[str, str]], expected: float) -> None:
    labels = 'rl:rollout_desired_replicas{namespace="gaitfleet", run_id="walk"}'
    query: dict[str, Any] = {
        "expr": "rl:rollout_desired_replicas",
        "eval_time": "30m",
        "exp_samples": [{"labels": labels, "value": expected}],
    }
    run_tests(tmp_path, [{"interval": "1m", "input_series": given, "promql_expr_test": [query]}])


TARGET = series("rl_replay_spi_target_ratio", "100x60")
HELD = series("rl_trainer_lease_held", "1x60")
WORKERS = [series("rl_rollout_simulators", "4x60", role="train", pod=f"rollout-{n}") for n in range(2)]
SLOW = [
    # two workers insert 1/s each, the trainer samples 200/s and waits three quarters of its time: it could take 800/s
    series("rl_replay_inserted_items_total", "0+120x60"),
    series("rl_replay_sampled_items_total", "0+12000x60"),
    series("rl_trainer_phase_seconds_total", "0+45x60", phase="wait_batch"),
    series("rl_rollout_phase_seconds_total", "0+120x60", role="train", phase="simulate"),
]


def test_as_many_workers_are_wanted_as_the_trainer_can_use(tmp_path: Path) -> None:
    _desired(tmp_path, [TARGET, HELD, *WORKERS, *SLOW], 8)


def test_whichever_replica_of_the_api_hears_of_a_worker_it_is_counted_once(tmp_path: Path) -> None:
    heard = [series("rl_replay_workers", "1x60", role="train", pod=f"replay-api-{n}") for n in range(2)]
    _desired(tmp_path, [TARGET, HELD, *WORKERS, *heard, *SLOW], 8)


def test_while_the_replay_fills_the_number_of_workers_stays(tmp_path: Path) -> None:
    _desired(tmp_path, [TARGET, HELD, *WORKERS, series("rl_replay_sampled_items_total", "0x60")], 2)


def test_without_a_trainer_no_worker_is_wanted(tmp_path: Path) -> None:
    _desired(tmp_path, [TARGET, *WORKERS, series("rl_replay_sampled_items_total", "0x60")], 0)
