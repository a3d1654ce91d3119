"""What an upgrade keeps. `lookup` needs a server: a stand-in answers it, which is no Kubernetes and proves no more than
what the templates do with an answer."""

from __future__ import annotations

import json
import subprocess
import threading
from base64 import b64encode
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.conftest import CHART, Helm, Manifest, Render, Rendered, with_storage

pytestmark = pytest.mark.chart

APPS = "/apis/apps/v1/namespaces/default"
CORE = "/api/v1/namespaces/default"


KINDS = {
    "v1": ["Secret", "ConfigMap", "Service", "ServiceAccount", "Pod"],
    "apps/v1": ["Deployment", "StatefulSet"],
    "batch/v1": ["Job"],
    "networking.k8s.io/v1": ["NetworkPolicy"],
    "policy/v1": ["PodDisruptionBudget"],
}
"""What the chart makes by default; helm asks for the path of each."""


def plural(kind: str) -> str:
    return "networkpolicies" if kind == "NetworkPolicy" else f"{kind.lower()}s"


def discovery() -> dict[str, Any]:
    answers: dict[str, Any] = {
        "/version": {"major": "1", "minor": "36", "gitVersion": "v1.36.0"},
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
    }
    groups = []
    for version, kinds in KINDS.items():
        resources = [{"name": plural(kind), "kind": kind, "namespaced": True, "verbs": ["get"]} for kind in kinds]
        path = "/api/v1" if version == "v1" else f"/apis/{version}"
        answers[path] = {"kind": "APIResourceList", "groupVersion": version, "resources": resources}
        if version != "v1":
            served = {"groupVersion": version, "version": "v1"}
            groups.append({"name": version.partition("/")[0], "versions": [served], "preferredVersion": served})
    return answers | {"/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}}


DISCOVERY = discovery()


def owned(name: str, annotations: dict[str, str]) -> dict[str, Any]:
    """Metadata of an object that this release has made."""
    release = {"meta.helm.sh/release-name": "gaitfleet", "meta.helm.sh/release-namespace": "default"}
    return {"name": name, "labels": {"app.kubernetes.io/managed-by": "Helm"}, "annotations": annotations | release}


class Cluster:
    """Answers GET with the objects it was given, by path."""

    def __init__(self, helm: Helm, kubeconfig: Path) -> None:
        self.objects: dict[str, Any] = {}
        self._helm, self._kubeconfig = helm, kubeconfig

    def deployment(self, *, live: int, rendered_with: str) -> None:
        self.objects[f"{APPS}/deployments/gaitfleet-rollout"] = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": owned("gaitfleet-rollout", {"gaitfleet/initial-replicas": rendered_with}),
            "spec": {"replicas": live},
        }

    def stateful_set(self, made: Manifest) -> None:
        annotations = made["metadata"].get("annotations", {})
        self.objects[f"{APPS}/statefulsets/{made['metadata']['name']}"] = made | {
            "metadata": owned(made["metadata"]["name"], annotations)
        }

    def render(self, *arguments: str) -> Rendered:
        done = self._template(*arguments)
        assert done.returncode == 0, done.stderr
        return Rendered(done.stdout)

    def refusal(self, *arguments: str) -> str:
        """Why the chart does not render."""
        done = self._template(*arguments)
        assert done.returncode != 0, "rendered, but should have been refused"
        return done.stderr

    def _template(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        connection = [
            "--dry-run=server",
            "--disable-openapi-validation",
            "--kubeconfig",
            str(self._kubeconfig),
            "--namespace",
            "default",
        ]
        return self._helm.run("template", "gaitfleet", str(CHART), *connection, *with_storage(arguments))


@pytest.fixture
def cluster(helm: Helm, tmp_path: Path) -> Iterator[Cluster]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            answer = DISCOVERY.get(path) or made.objects.get(path)
            missing = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
            body = json.dumps(answer or missing).encode()
            self.send_response(200 if answer else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        kubeconfig = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
            "users": [{"name": "c", "user": {}}],
        }
        (tmp_path / "kubeconfig").write_text(yaml.safe_dump(kubeconfig))
        made = Cluster(helm, tmp_path / "kubeconfig")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield made
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("live", "rendered_with", "value", "expected"),
    [
        (9, "2", "2", 9),  # scaled up by somebody: kept
        (0, "2", "2", 0),  # scaled to nothing: kept
        (2, "2", "8", 8),  # the value was changed on purpose: it holds
        (9, "2", "8", 8),
    ],
)
def test_the_number_of_workers_is_kept_until_the_value_changes(
    cluster: Cluster, live: int, rendered_with: str, value: str, expected: int
) -> None:
    cluster.deployment(live=live, rendered_with=rendered_with)
    rendered = cluster.render("--set", f"rollout.replicas={value}").one("Deployment", "rollout")
    assert rendered["spec"]["replicas"] == expected
    assert rendered["metadata"]["annotations"]["gaitfleet/initial-replicas"] == value


def test_tokens_are_kept(cluster: Cluster) -> None:
    data = {role: b64encode(f"old-token-of-{role}".encode()).decode() for role in ("rollout", "trainer", "admin")}
    cluster.objects[f"{CORE}/secrets/gaitfleet-tokens"] = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": owned("gaitfleet-tokens", {}),
        "data": data,
    }
    rendered = cluster.render().one("Secret", "tokens")["data"]
    assert data.items() <= rendered.items()
    assert rendered["reader"], "a role that the old Secret lacks gets a token"


CLAIM = ("--set", "database.persistence.enabled=true")


@pytest.mark.parametrize(
    ("made_with", "asked_for"),
    [((), CLAIM), (CLAIM, ()), (CLAIM, (*CLAIM, "--set", "database.persistence.size=20Gi"))],
)
def test_other_claims_than_those_there_are_refused_with_what_to_do(
    cluster: Cluster, made_with: tuple[str, ...], asked_for: tuple[str, ...]
) -> None:
    """Kubernetes would refuse them, too, with a list of the fields that may change."""
    cluster.stateful_set(cluster.render(*made_with).one("StatefulSet", "database"))
    assert cluster.render(*made_with).one("StatefulSet", "database")
    said = cluster.refusal(*asked_for)
    assert "database.persistence cannot change" in said
    assert "delete statefulset gaitfleet-database" in said


def test_the_limit_of_an_empty_directory_may_change(cluster: Cluster) -> None:
    cluster.stateful_set(cluster.render().one("StatefulSet", "database"))
    assert cluster.render("--set", "database.persistence.size=20Gi").one("StatefulSet", "database")


def test_another_experiment_makes_another_job_and_restarts_nobody(render: Render) -> None:
    before, after = render(), render("--set-string", "run.experiment=seed: 1")
    assert before.all("Job")[0]["metadata"]["name"] != after.all("Job")[0]["metadata"]["name"]
    for name, pod in before.pods.items():
        if not name.startswith("Job/"):
            assert pod == after.pods[name], name


def test_a_new_version_of_the_chart_alone_restarts_nobody(render: Render) -> None:
    text = json.dumps([pod["metadata"] for name, pod in render().pods.items() if not name.startswith("Pod/")])
    assert "helm.sh/chart" not in text
    assert "app.kubernetes.io/version" not in text
