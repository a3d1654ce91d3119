"""A release of the chart on the cluster of KUBECONFIG, driven by helm and kubectl as a user would.

Options are environment variables. `REGISTRY` and `IMAGE_TAG` say which images, as they do to make; side-loaded ones
under their own names need neither. `IMAGE_DATABASE`, `IMAGE_BUCKET`, `IMAGE_REPLAY_API`, `IMAGE_TRAINER` and
`IMAGE_ROLLOUT` name single ones in full (`host/name:tag` or `host/name@sha256:…`), where REGISTRY is not set.
`CLUSTER_NAMESPACE` names an existing namespace; unset, one is made and deleted. `CLUSTER_VALUES` is a file with more
values, `CLUSTER_WAIT_SECONDS` how long anything may take (600).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHART = Path(__file__).resolve().parents[2] / "deploy" / "helm" / "gaitfleet"
WAIT_SECONDS = float(os.environ.get("CLUSTER_WAIT_SECONDS") or 600)
API_PROBE = """
import json, sys, urllib.request
token = open("/etc/gaitfleet/tokens/reader").read().strip()
request = urllib.request.Request("http://127.0.0.1:8080" + sys.argv[1], headers={"Authorization": "Bearer " + token})
print(json.dumps(json.load(urllib.request.urlopen(request, timeout=20))))
"""
"""Asks the API from within its own pod, so that neither a port nor a network policy stands between."""

EVERYTHING = (
    "deployments,statefulsets,jobs,pods,persistentvolumeclaims,services,configmaps,secrets,serviceaccounts,"
    "networkpolicies,poddisruptionbudgets"
)
"""Kinds of objects that a release may consist of."""

OF_THE_NAMESPACE = ("kube-root-ca.crt", "default", "default-token-")
"""What Kubernetes itself puts into a namespace, by the beginning of its name."""


class Cluster:
    """One namespace of a cluster.

    Parameters
    ----------
    namespace
        Where everything is installed.
    release
        Name of the release.
    """

    def __init__(self, namespace: str, release: str) -> None:
        self.namespace, self.release = namespace, release
        self.before: set[str] = set()
        missing = [name for name in ("helm", "kubectl") if shutil.which(name) is None]
        assert not missing, f"not on the PATH: {', '.join(missing)}"

    def run(self, program: str, *arguments: str, check: bool = True, stdin: str | None = None) -> str:
        """What a command printed; when it fails, the error tells what the cluster looks like."""
        command = [program, "--namespace", self.namespace, *arguments]
        limit = WAIT_SECONDS + 60
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=limit, input=stdin)
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr}\n{self.state()}")
        return done.stdout

    def kubectl(self, *arguments: str, check: bool = True) -> str:
        return self.run("kubectl", *arguments, check=check)

    def create_namespace(self, labels: dict[str, str]) -> None:
        """Make the namespace, which must not exist."""
        metadata = {"name": self.namespace, "labels": labels}
        manifest = json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        self.run("kubectl", "create", "--filename", "-", stdin=manifest)

    def upgrade(self, *arguments: str) -> None:
        """`helm upgrade --install` with the images and values that this test was told."""
        more = os.environ.get("CLUSTER_VALUES")
        options = ["--set", "database.enabled=true,bucket.enabled=true"]
        options += [option for key, value in _images().items() for option in ("--set-string", f"{key}={value}")]
        options += ["--values", more] if more else []
        self.run("helm", "upgrade", "--install", self.release, str(CHART), *options, *arguments)

    def objects(self, kinds: str) -> list[dict[str, Any]]:
        """Objects of this release."""
        selector = f"app.kubernetes.io/instance={self.release}"
        found: list[dict[str, Any]] = json.loads(self.kubectl("get", kinds, "-l", selector, "-o", "json"))["items"]
        return found

    def everything(self) -> set[str]:
        """Kinds and names of all objects in the namespace, but what Kubernetes puts there."""
        items = json.loads(self.kubectl("get", EVERYTHING, "-o", "json"))["items"]
        names = [(item["kind"], item["metadata"]["name"]) for item in items]
        return {f"{kind}/{name}" for kind, name in names if not name.startswith(OF_THE_NAMESPACE)}

    def refusal_of_a_privileged_pod(self) -> str:
        """What the cluster says to a pod that breaks the restricted standard; nothing is made."""
        context = {"privileged": True}
        container = {"name": "probe", "image": "probe", "securityContext": context}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "probe"}, "spec": {"containers": [container]}}
        command = ["kubectl", "--namespace", self.namespace, "create", "--dry-run=server", "--filename", "-"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, input=json.dumps(pod))
        return done.stderr if done.returncode else ""

    def pods(self, component: str) -> list[dict[str, Any]]:
        """Pods of a component that are not on their way out, by name."""
        selector = f"app.kubernetes.io/instance={self.release},app.kubernetes.io/component={component}"
        items = json.loads(self.kubectl("get", "pods", "-l", selector, "-o", "json"))["items"]
        found = [item for item in items if "deletionTimestamp" not in item["metadata"]]
        return sorted(found, key=lambda item: str(item["metadata"]["name"]))

    def ready(self, component: str) -> list[str]:
        """Names of the pods of a component that are ready."""
        return [item["metadata"]["name"] for item in self.pods(component) if _is_ready(item)]

    def replicas(self, component: str) -> int:
        """The number that a component's Deployment asks for."""
        (name,) = [
            item["metadata"]["name"]
            for item in self.objects("deployments")
            if item["metadata"]["labels"]["app.kubernetes.io/component"] == component
        ]
        return int(self.kubectl("get", "deployment", name, "-o", "jsonpath={.spec.replicas}"))

    def scale(self, component: str, replicas: int) -> None:
        """`kubectl scale`, as a user would."""
        self.kubectl("scale", f"deployment/{self.release}-{component}", f"--replicas={replicas}")

    def ask(self, path: str) -> Any:
        """The replay API's answer to a reader's GET; None while it cannot answer."""
        pods = self.ready("replay-api")
        if not pods:
            return None
        said = self.kubectl("exec", pods[0], "--", "python", "-c", API_PROBE, path, check=False)
        return json.loads(said) if said.strip() else None

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for a condition; when it does not come, the error tells what the cluster looks like."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {WAIT_SECONDS:.0f} s: {what}\n{self.state()}")
            time.sleep(3)

    def state(self) -> str:
        """Objects, events and logs, for people."""
        parts = [self._said("get", "pods,jobs,services,endpointslices", "-o", "wide")]
        parts.append(self._said("get", "events", "--sort-by=.lastTimestamp"))
        names = self._said("get", "pods", "-o", "name").split()
        for name in names:
            parts.append(f"--- {name}\n{self._said('describe', name)[-3000:]}")
            parts.append(self._said("logs", name, "--tail=40", "--all-containers"))
            parts.append(self._said("logs", name, "--tail=20", "--all-containers", "--previous"))
        return "\n".join(part for part in parts if part)

    def _said(self, *arguments: str) -> str:
        command = ["kubectl", "--namespace", self.namespace, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        return done.stdout


def _images() -> dict[str, str]:
    """Values of the chart that say which images."""
    found = {"image.registry": os.environ.get("REGISTRY", ""), "image.tag": os.environ.get("IMAGE_TAG", "")}
    for component in ("database", "bucket", "replayApi", "trainer", "rollout"):
        variable = "IMAGE_REPLAY_API" if component == "replayApi" else f"IMAGE_{component.upper()}"
        repository, tag, digest = _parts(os.environ.get(variable, ""))
        found[f"{component}.image.repository"] = repository
        found[f"{component}.image.tag"] = tag
        found[f"{component}.image.digest"] = digest
    return {key: value for key, value in found.items() if value}


def _parts(image: str) -> tuple[str, str, str]:
    """Repository, tag and digest of an image's full name."""
    name, _, digest = image.partition("@")
    repository, colon, tag = name.rpartition(":")
    # a colon before a slash belongs to the registry's port
    return (repository, tag, digest) if colon and "/" not in tag else (name, "", digest)


def _is_ready(pod: dict[str, Any]) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)
