"""What the chart promises, one promise a test."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.conftest import CHART, REPOSITORY, SCENARIOS, Helm, Render, scenarios, values

pytestmark = pytest.mark.chart


# --- forms ------------------------------------------------------------------------------------------------------------


@scenarios
def test_helm_lint_finds_nothing(helm: Helm, scenario: str) -> None:
    done = helm.run("lint", "--strict", *values(scenario), str(CHART))
    assert done.returncode == 0, done.stdout + done.stderr


@scenarios
@pytest.mark.parametrize("version", ["1.29", "1.36", "1.37"])
def test_every_object_is_valid_in_kubernetes(render: Render, scenario: str, version: str, tmp_path: Path) -> None:
    """Strictly: a field that Kubernetes does not know is an error. test_monitoring.py checks custom resources."""
    custom = ("monitoring.coreos.com", "keda.sh")
    objects = [item for item in render(*values(scenario)).objects if not item["apiVersion"].startswith(custom)]
    path = tmp_path / "rendered.yaml"
    path.write_text(yaml.safe_dump_all(objects))
    command = [str(Path(sys.executable).with_name("kubernetes-validate")), "--strict", "-k", version, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    errors = [line for line in (done.stdout + done.stderr).splitlines() if "passed" not in line]
    assert done.returncode == 0, "\n".join(errors)


@scenarios
def test_no_name_is_used_twice(render: Render, scenario: str) -> None:
    names = [(item["kind"], item["metadata"]["name"]) for item in render(*values(scenario)).objects]
    assert len(names) == len(set(names))


def test_every_value_is_described_in_the_schema() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())

    def undescribed(block: dict[str, Any], described: dict[str, Any], path: str) -> Iterator[str]:
        for key, value in block.items():
            known = described.get("properties", {}).get(key)
            if known is None or not known.get("description"):
                yield path + key
            elif isinstance(value, dict) and value and known.get("additionalProperties") is False:
                yield from undescribed(value, known, f"{path}{key}.")

    assert list(undescribed(defaults, schema, "")) == []


def test_the_table_of_values_is_current() -> None:
    spec = importlib.util.spec_from_file_location("values_table", CHART.parent / "values_table.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    readme = (CHART / "README.md").read_text()
    assert script.with_table(readme) == readme, "run `python deploy/helm/values_table.py`"


def test_dockerfiles_are_clean() -> None:
    files = sorted(str(path) for path in (REPOSITORY / "docker").glob("*.Dockerfile"))
    command = [str(Path(sys.executable).with_name("hadolint")), *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--set", "rollout.replica=3"], "replica"),
        (["--set", "rollout.replicas=-1"], "minimum"),
        (["--set", "rollout.spoolMaxBytes=0"], "spoolMaxBytes"),
        (["--set", "trainer.replicas=2"], "maximum"),
        (["--set", "evaluation.replicas=2"], "maximum"),
        (["--set", "run.name=Not_A_Label"], "run/name"),
        (["--set", "checkpoints.store=gs://bucket"], "checkpoints/store"),
        (["--set", "rollout.terminationGracePeriodSeconds=10"], "minimum"),
        (["--set", "database.enabled=false"], "set mongodb.existingSecret"),
        (["--set", "mongodb.existingSecret=x"], "leave database.enabled off"),
        (["--set", "bucket.enabled=false"], "set checkpoints.store"),
        (["--set", "checkpoints.store=s3://bucket/x"], "leave bucket.enabled off"),
        (["--set", "trainer.device=cuda"], "trainer.gpus=1"),
        (["--set", "trainer.gpus=1,trainer.device=cpu"], "trainer.device=auto"),
        (["--set", "trainer.cudaGraphs=true"], "trainer.gpus=1"),
        (["--set", "rollout.stopSeconds=40"], "terminationGracePeriodSeconds"),
        (["--set", "run.experiment=nonsense"], "run.experiment"),
        (["--kube-version", "1.28.0"], "kubeVersion"),
    ],
)
def test_a_wrong_value_is_refused_with_its_name(helm: Helm, arguments: list[str], said: str) -> None:
    assert said in helm.refusal(*arguments)


def test_an_install_that_does_not_say_where_to_store_is_refused_with_both_ways(helm: Helm) -> None:
    done = helm.run("template", "gaitfleet", str(CHART))
    assert done.returncode != 0
    assert "set mongodb.existingSecret and checkpoints.store" in done.stderr
    assert "--set database.enabled=true,bucket.enabled=true" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "times"),
    [
        ([*values("external-mongo-s3"), "--set-string", "mongodb.database=1234,checkpoints.region=1234"], 2),
        (["--set-string", "tokens.existingSecret=1234"], 6),
        (["--set-json", 'database.persistence={"enabled": true, "storageClassName": "1234"}'], 1),
        (["--set-string", "trainer.runtimeClassName=1234,trainer.priorityClassName=1234"], 2),
        ([*values("monitoring"), "--set-string", "rollout.autoscaling.authenticationRef=1234"], 1),
    ],
)
def test_a_string_of_digits_stays_a_string(render: Render, arguments: list[str], times: int) -> None:
    text = json.dumps(render(*arguments).objects)
    assert text.count(': "1234"') == times
    assert ": 1234" not in text


# --- the services -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "name", "service", "prefix"),
    [
        ("Deployment", "replay-api", "replay-api/src/replay_api", "GAITFLEET_REPLAY_API_"),
        ("Deployment", "rollout", "rollout/src/rollout", "GAITFLEET_ROLLOUT_"),
        ("Deployment", "evaluation", "rollout/src/rollout", "GAITFLEET_ROLLOUT_"),
        ("StatefulSet", "trainer", "trainer/src/trainer", "GAITFLEET_TRAINER_"),
    ],
)
def test_every_variable_is_a_setting_of_the_service(
    render: Render, kind: str, name: str, service: str, prefix: str
) -> None:
    source = (REPOSITORY / "services" / service / "settings.py").read_text()
    fields = {match.upper() for match in re.findall(r"^    (\w+): ", source, re.MULTILINE)}
    for scenario in SCENARIOS:
        variables = render(*values(scenario)).environment(kind, name)
        unknown = {key for key in variables if key.startswith("GAITFLEET_") and key.removeprefix(prefix) not in fields}
        assert unknown == set()


def test_variables_come_from_secrets_and_objects_are_added_when_asked_for(render: Render) -> None:
    rendered = render(
        "--set",
        "rollout.extraEnvFrom[0].secretRef.name=more,extraObjects[0].kind=ConfigMap,extraObjects[0].apiVersion=v1,"
        "extraObjects[0].metadata.name=\\{\\{ .Release.Name \\}\\}-mine",
    )
    container = rendered.one("Deployment", "rollout")["spec"]["template"]["spec"]["containers"][0]
    assert container["envFrom"] == [{"secretRef": {"name": "more"}}]
    assert rendered.one("ConfigMap", "mine")


def test_all_services_work_on_one_run_through_one_api(render: Render) -> None:
    rendered = render("--set", "run.name=other,replayApi.service.port=80")
    for kind, name, prefix in (
        ("Deployment", "rollout", "GAITFLEET_ROLLOUT_"),
        ("Deployment", "evaluation", "GAITFLEET_ROLLOUT_"),
        ("StatefulSet", "trainer", "GAITFLEET_TRAINER_"),
    ):
        variables = rendered.environment(kind, name)
        assert variables[f"{prefix}RUN"] == "other"
        assert variables[f"{prefix}REPLAY_API_URL"] == "http://gaitfleet-replay-api:80"


def test_a_trainer_sends_priorities_to_the_replica_that_it_samples_from(render: Render) -> None:
    """Over other connections; indices of transitions are a replica's own."""
    assert render().one("Service", "replay-api")["spec"]["sessionAffinity"] == "ClientIP"


def test_rollouts_train_and_one_evaluates(render: Render) -> None:
    rendered = render()
    assert rendered.environment("Deployment", "rollout")["GAITFLEET_ROLLOUT_ROLE"] == "train"
    assert rendered.environment("Deployment", "evaluation")["GAITFLEET_ROLLOUT_ROLE"] == "evaluate"
    assert rendered.one("Deployment", "evaluation")["spec"]["replicas"] == 1


def test_rollouts_have_time_to_stop_and_a_place_to_spool(render: Render) -> None:
    spec = render().one("Deployment", "rollout")["spec"]["template"]["spec"]
    stop = int(render().environment("Deployment", "rollout")["GAITFLEET_ROLLOUT_STOP_TIMEOUT_SECONDS"])
    assert spec["terminationGracePeriodSeconds"] > max(10, stop)
    places = {mount["mountPath"]: mount["name"] for mount in spec["containers"][0]["volumeMounts"]}
    spool = next(volume for volume in spec["volumes"] if volume["name"] == places["/var/spool/gaitfleet"])
    assert spool["emptyDir"] == {"sizeLimit": "512Mi"}


def test_a_larger_spool_gets_a_larger_volume(render: Render) -> None:
    spec = render("--set", "rollout.spoolMaxBytes=2147483648").one("Deployment", "rollout")["spec"]["template"]["spec"]
    (spool,) = [volume for volume in spec["volumes"] if volume["name"] == "spool"]
    assert spool["emptyDir"] == {"sizeLimit": "2304Mi"}


def test_larger_rollouts_leave_the_evaluation_as_it_is(render: Render) -> None:
    more = "rollout.spoolMaxBytes=2147483648,rollout.resources.limits.cpu=4,rollout.resources.requests.storage=1Gi"
    evaluation = render("--set", more).one("Deployment", "evaluation")
    assert evaluation == render().one("Deployment", "evaluation")


def test_a_database_that_is_away_makes_the_api_unready_and_not_dead(render: Render) -> None:
    container = render().one("Deployment", "replay-api")["spec"]["template"]["spec"]["containers"][0]
    assert container["livenessProbe"]["httpGet"]["path"] == "/health/live"
    assert container["startupProbe"]["httpGet"]["path"] == "/health/live"
    assert container["readinessProbe"]["httpGet"]["path"] == "/health/ready"


@pytest.mark.parametrize(("kind", "name"), [("Deployment", "rollout"), ("StatefulSet", "trainer")])
def test_alive_is_who_works_or_has_not_begun(render: Render, kind: str, name: str, tmp_path: Path) -> None:
    """The probe's own command, run here on a file that is missing, young and old."""
    rendered = render()
    container = rendered.one(kind, name)["spec"]["template"]["spec"]["containers"][0]
    said = rendered.environment(kind, name)[f"GAITFLEET_{name.upper()}_PROGRESS_FILE"]
    path = tmp_path / "progress"
    command = [part.replace(said, str(path)) for part in container["livenessProbe"]["exec"]["command"]]
    assert str(path) in command[-1]

    def alive() -> bool:
        return subprocess.run(command, check=False, timeout=10).returncode == 0

    assert alive(), "missing: the work has not begun"
    path.touch()
    assert alive()
    os.utime(path, (time.time() - 400, time.time() - 400))
    assert not alive()


def test_a_default_install_has_no_gpu(render: Render) -> None:
    assert "nvidia.com/gpu" not in render().text


def test_gpus_are_limited_and_their_taint_tolerated(render: Render) -> None:
    spec = render(*values("gpu-spot")).one("StatefulSet", "trainer")["spec"]["template"]["spec"]
    resources = spec["containers"][0]["resources"]
    assert resources["limits"]["nvidia.com/gpu"] == 1
    assert "nvidia.com/gpu" not in resources["requests"]
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in spec["tolerations"]
    assert spec["runtimeClassName"] == "nvidia"


def test_rollouts_can_be_sent_to_spot_nodes_without_the_evaluation(render: Render) -> None:
    rendered = render(*values("gpu-spot"))
    rollout = rendered.one("Deployment", "rollout")["spec"]["template"]["spec"]
    evaluation = rendered.one("Deployment", "evaluation")["spec"]["template"]["spec"]
    assert rollout["tolerations"][0]["key"] == "spot"
    assert "affinity" in rollout
    assert "tolerations" not in evaluation
    assert evaluation["nodeSelector"] == {"pool": "cpu"}


def test_external_database_and_bucket_come_from_secrets(render: Render) -> None:
    rendered = render(*values("external-mongo-s3"))
    variables = rendered.environment("Deployment", "replay-api")
    spec = rendered.one("Deployment", "replay-api")["spec"]["template"]["spec"]
    (sources,) = [volume["projected"]["sources"] for volume in spec["volumes"] if volume["name"] == "secrets"]
    assert sources[0] == {
        "secret": {
            "name": "mongodb",
            "items": [{"key": "connectionString", "path": "GAITFLEET_REPLAY_API_MONGODB_URI"}],
        }
    }
    assert sources[1]["secret"]["name"] == "bucket-credentials"
    settings = {item["path"].removeprefix("GAITFLEET_REPLAY_API_") for item in sources[1]["secret"]["items"]}
    assert settings == {"S3_ACCESS_KEY_ID", "S3_SECRET_ACCESS_KEY"}
    (mount,) = [item for item in spec["containers"][0]["volumeMounts"] if item["name"] == "secrets"]
    assert mount["mountPath"] == variables["GAITFLEET_REPLAY_API_SECRETS_DIRECTORY"]
    assert "GAITFLEET_REPLAY_API_MONGODB_URI" not in variables
    assert variables["GAITFLEET_REPLAY_API_CHECKPOINT_STORE"] == "s3://example-gaitfleet/production"
    assert not [item for item in rendered.objects if item["metadata"]["name"].endswith(("-database", "-bucket"))]


def test_an_image_may_be_named_by_digest(render: Render) -> None:
    rendered = render(*values("external-mongo-s3"))
    images = [pod["spec"]["containers"][0]["image"] for pod in rendered.pods.values()]
    assert "registry.example.org/team/gaitfleet-rollout:0.1.0" in images
    assert any(image.startswith("registry.example.org/team/gaitfleet-replay-api@sha256:") for image in images)


def test_every_image_has_a_dockerfile(render: Render) -> None:
    names = {pod["spec"]["containers"][0]["image"].split(":")[0] for pod in render().pods.values()}
    files = (REPOSITORY / "docker").glob("*.Dockerfile")
    built = {f"gaitfleet-{path.name.removesuffix('.Dockerfile')}" for path in files}
    assert names == built


# --- the run ----------------------------------------------------------------------------------------------------------


def test_the_default_experiment_is_the_shipped_one(render: Render) -> None:
    shipped = yaml.safe_load((REPOSITORY / "libs/gaitfleet/src/gaitfleet/experiments/prosthetics.yaml").read_text())
    assert yaml.safe_load(render().one("ConfigMap", "run")["data"]["experiment.yaml"]) == shipped


def test_the_default_run_takes_half_of_the_development_database_at_most(render: Render) -> None:
    """1.3 KB a simulator step (benchmarks/results/start.json), twice until compacted; the rest is for evaluations."""
    rendered = render()
    experiment = yaml.safe_load(rendered.one("ConfigMap", "run")["data"]["experiment.yaml"])
    steps = 4 * experiment["retention"]["max_transitions"]  # task.action.repeat, by default
    volumes = rendered.one("StatefulSet", "database")["spec"]["template"]["spec"]["volumes"]
    (limit,) = [volume["emptyDir"]["sizeLimit"] for volume in volumes if volume["name"] == "data"]
    assert 2 * 1311 * steps <= quantity(limit) / 2


def test_an_experiment_file_reaches_the_run_as_it_is(render: Render, tmp_path: Path) -> None:
    text = '  # indented, "quoted" <and> with: {{ braces }}\ntask: {environment: "gymnasium:Pendulum-v1"}\n'
    (tmp_path / "experiment.yaml").write_text(text)
    rendered = render("--set-file", f"run.experiment={tmp_path / 'experiment.yaml'}")
    assert rendered.one("ConfigMap", "run")["data"]["experiment.yaml"] == text


def test_the_test_is_a_hook(render: Render) -> None:
    annotations = render().one("Pod", "test")["metadata"]["annotations"]
    assert annotations["helm.sh/hook"] == "test"
    assert "hook-succeeded" in annotations["helm.sh/hook-delete-policy"], "uninstalling would leave it behind"
    assert not render(*values("minimal")).all("Pod")


# --- replicas, disruption, monitoring ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "name"), [("Deployment", "rollout"), ("Deployment", "replay-api"), ("StatefulSet", "trainer")]
)
def test_replicas_are_rendered_with_the_note_that_upgrades_read(render: Render, kind: str, name: str) -> None:
    item = render().one(kind, name)
    assert item["metadata"]["annotations"]["gaitfleet/initial-replicas"] == str(item["spec"]["replicas"])


def quantity(text: str) -> float:
    """Cores or bytes of a Kubernetes quantity, as far as this chart uses them."""
    units = {"m": 1e-3, "Mi": 2.0**20, "Gi": 2.0**30}
    number, unit = re.fullmatch(r"(\d+)(\D*)", str(text)).groups()  # type: ignore[union-attr]
    return float(number) * units.get(unit, 1.0)


def test_a_default_install_with_five_workers_fits_on_a_small_node(render: Render) -> None:
    """2 CPUs and 6 GiB, of which the control plane's pods ask for 0.95 CPU, and these and the kubelet take 1.5 GiB."""
    rendered = render("--set", "rollout.replicas=5")
    asked = {"cpu": 0.0, "memory": 0.0}
    for name, pod in rendered.pods.items():
        kind, _, item = name.partition("/")
        owner = rendered.one(kind, item.removeprefix("gaitfleet-"))
        for resource in asked:
            each = quantity(pod["spec"]["containers"][0]["resources"]["requests"][resource])
            asked[resource] += each * owner["spec"].get("replicas", 1)
    assert asked["cpu"] <= 1.05
    assert asked["memory"] <= 4.5 * 2**30


def test_null_replicas_are_never_rendered(render: Render) -> None:
    assert "replicas" not in render(*values("gpu-spot")).one("Deployment", "rollout")["spec"]


def test_drains_take_replay_apis_one_by_one_and_wait_for_nothing_else(render: Render) -> None:
    """However many `kubectl scale` has made; of a single one the budget lets go."""
    (budget,) = render().all("PodDisruptionBudget")
    assert budget["metadata"]["name"] == "gaitfleet-replay-api"
    assert (budget["spec"]["maxUnavailable"], budget["spec"]["unhealthyPodEvictionPolicy"]) == (1, "AlwaysAllow")
    assert not render("--set", "replayApi.pdb.enabled=false").all("PodDisruptionBudget")


def test_monitoring_is_off_by_default(render: Render) -> None:
    rendered = render()
    assert not rendered.all("ServiceMonitor")
    assert not rendered.all("PodMonitor")
    assert "prometheus.io" not in rendered.text


def test_annotations_name_the_metrics_port(render: Render) -> None:
    pods = render(*values("dev")).pods
    assert pods["Deployment/gaitfleet-rollout"]["metadata"]["annotations"]["prometheus.io/port"] == "9090"
    assert pods["Deployment/gaitfleet-replay-api"]["metadata"]["annotations"]["prometheus.io/port"] == "8080"


@pytest.mark.parametrize("name", ["gaitfleet", "team-a-gaitfleet", "x"])
def test_the_release_s_name_is_not_repeated(helm: Helm, name: str) -> None:
    only = ["--show-only", "templates/rollout/deployment.yaml"]
    done = helm.run("template", name, str(CHART), *values("default"), *only)
    expected = name if "gaitfleet" in name else f"{name}-gaitfleet"
    assert yaml.safe_load(done.stdout)["metadata"]["name"] == f"{expected}-rollout"
