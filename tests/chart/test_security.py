"""What the chart promises about security: restricted pods, who holds which secret, who may speak to whom."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tests.chart.conftest import Render, Rendered, scenarios, values

pytestmark = pytest.mark.chart


POD_CONTEXT = {"runAsNonRoot", "runAsUser", "runAsGroup", "fsGroup", "fsGroupChangePolicy", "seccompProfile"}
CONTAINER_CONTEXT = {
    "allowPrivilegeEscalation",
    "privileged",
    "readOnlyRootFilesystem",
    "runAsNonRoot",
    "capabilities",
}
"""Nothing else is set: no SELinux or Windows options, sysctls, /proc mounts, profiles, of which the standard speaks."""

# --- security ---------------------------------------------------------------------------------------------------------


@scenarios
def test_every_pod_keeps_the_restricted_standard(render: Render, scenario: str) -> None:
    """Every control of the standard as of 1.36, and a read-only root, a high user and limits besides."""
    for name, pod in render(*values(scenario)).pods.items():
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["runAsUser"] > 10000, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC", "ephemeralContainers"} & spec.keys(), name
        assert spec["securityContext"].keys() <= POD_CONTEXT, name
        assert not any("apparmor" in key for key in pod["metadata"].get("annotations", {})), name
        assert set().union(*spec["volumes"]) <= {"name", "emptyDir", "secret", "configMap", "projected"}, name
        for container in [*spec["containers"], *spec.get("initContainers", [])]:
            context = container["securityContext"]
            assert context.keys() <= CONTAINER_CONTEXT, name
            assert context["privileged"] is False, name
            assert not any("hostPort" in port for port in container.get("ports", [])), name
            handlers = [container[key] for key in container if key.endswith("Probe")]
            handlers += container.get("lifecycle", {}).values()
            assert '"host"' not in json.dumps(handlers), name
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["readOnlyRootFilesystem"] is True, name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert any(mount["mountPath"] == "/tmp" for mount in container["volumeMounts"]), name
            assert container["resources"]["limits"]["memory"], name


@scenarios
def test_no_pod_holds_a_token_of_the_kubernetes_api(render: Render, scenario: str) -> None:
    rendered = render(*values(scenario))
    accounts = {item["metadata"]["name"] for item in rendered.all("ServiceAccount")}
    assert all(item["automountServiceAccountToken"] is False for item in rendered.all("ServiceAccount"))
    for pod in rendered.pods.values():
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert pod["spec"]["serviceAccountName"] in accounts


@scenarios
def test_only_the_replay_api_has_secrets_of_database_and_bucket(render: Render, scenario: str) -> None:
    for name, pod in render(*values(scenario)).pods.items():
        text = json.dumps(pod)
        if name.endswith("-bucket"):
            continue
        assert "secretKeyRef" not in text, f"{name} has a secret in a variable"
        if name.endswith("-replay-api"):
            continue
        assert "MONGODB" not in text, name
        assert "S3_" not in text, name
        secrets = [volume["secret"] for volume in pod["spec"]["volumes"] if "secret" in volume]
        assert all(len(secret["items"]) == 1 for secret in secrets), f"{name} gets more than one role's token"


@pytest.mark.parametrize(
    ("kind", "name", "role"),
    [
        ("Deployment", "rollout", "rollout"),
        ("Deployment", "evaluation", "rollout"),
        ("StatefulSet", "trainer", "trainer"),
    ],
)
def test_a_service_gets_the_token_of_its_role_as_a_file(render: Render, kind: str, name: str, role: str) -> None:
    rendered = render()
    spec = rendered.one(kind, name)["spec"]["template"]["spec"]
    (secret,) = [volume["secret"] for volume in spec["volumes"] if "secret" in volume]
    assert secret["items"] == [{"key": role, "path": "token"}]
    files = {key: value for key, value in rendered.environment(kind, name).items() if key.endswith("_TOKEN_FILE")}
    assert list(files.values()) == ["/etc/gaitfleet/token/token"]


def test_generated_tokens_are_long_and_differ(render: Render) -> None:
    tokens = render().one("Secret", "tokens")["data"]
    assert set(tokens) == {"rollout", "trainer", "reader", "admin"}
    assert len(set(tokens.values())) == 4
    assert all(len(base64.b64decode(token)) == 40 for token in tokens.values())


def test_an_existing_secret_of_tokens_is_used_and_none_is_made(render: Render) -> None:
    rendered = render("--set", "tokens.existingSecret=mine")
    assert "gaitfleet-tokens" not in rendered.text
    assert '"secretName": "mine"' in json.dumps(rendered.pods["Deployment/gaitfleet-rollout"])


# --- network ----------------------------------------------------------------------------------------------------------


def selects(policy: dict[str, Any], labels: dict[str, str]) -> bool:
    return selector_matches(policy["spec"]["podSelector"], labels)


def selector_matches(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    for rule in selector.get("matchExpressions", []):
        assert rule["operator"] == "In"
        if labels.get(rule["key"]) not in rule["values"]:
            return False
    return selector.get("matchLabels", {}).items() <= labels.items()


def may_speak(rendered: Rendered, sender: dict[str, str], receiver: dict[str, str], port: int) -> bool:
    """By the rules of NetworkPolicy: both ends must allow it, and each is closed as soon as one policy selects it."""

    def open_to(labels: dict[str, str], direction: str, peers: str, other: dict[str, str]) -> bool:
        kind = direction.capitalize()
        chosen = [item for item in rendered.all("NetworkPolicy") if selects(item, labels)]
        chosen = [item for item in chosen if kind in item["spec"]["policyTypes"]]
        assert chosen, f"no policy closes {labels}"
        for rule in (rule for item in chosen for rule in item["spec"].get(direction) or []):
            if port not in [entry["port"] for entry in rule["ports"]]:
                continue
            pods = [peer["podSelector"] for peer in rule.get(peers, []) if "podSelector" in peer]
            if peers not in rule or any(selector_matches(pod, other) for pod in pods):
                return True
        return False

    return open_to(sender, "egress", "to", receiver) and open_to(receiver, "ingress", "from", sender)


def test_pods_may_speak_to_whom_they_need_and_to_nobody_else(render: Render) -> None:
    rendered = render()
    labels = {}
    for pod in rendered.pods.values():
        labels[pod["metadata"]["labels"]["app.kubernetes.io/component"]] = pod["metadata"]["labels"]
    servers = {"replay-api": 8080, "database": 27017, "bucket": 8333, "rollout": 9090, "trainer": 9090}
    allowed = {
        (sender, receiver)
        for sender in labels
        for receiver, port in servers.items()
        if may_speak(rendered, labels[sender], labels[receiver], port)
    }
    clients = {(client, "replay-api") for client in ("rollout", "evaluation", "trainer", "run", "test")}
    assert allowed == clients | {("replay-api", "database"), ("replay-api", "bucket")}


@pytest.mark.parametrize(
    ("values_set", "port"),
    [
        ("", 443),
        ("checkpoints.endpointUrl=https://s3.example.org", 443),
        ("checkpoints.endpointUrl=http://s3.example.org", 80),
        ("checkpoints.endpointUrl=http://minio.storage:9000", 9000),
        ("checkpoints.endpointUrl=http://minio.storage:9000,checkpoints.port=9443", 9443),
    ],
)
def test_the_replay_api_reaches_the_bucket_where_it_is(render: Render, values_set: str, port: int) -> None:
    policy = render(*values("external-mongo-s3"), "--set", values_set).one("NetworkPolicy", "replay-api")
    assert {"ports": [{"port": port, "protocol": "TCP"}]} in policy["spec"]["egress"]


def test_a_pod_that_is_its_own_identity_may_ask_for_it(render: Render) -> None:
    def token_service(*arguments: str) -> tuple[bool, list[str]]:
        """Whether HTTPS is open to everywhere, as AWS's token service needs it, and which metadata servers are."""
        where = *values("external-mongo-s3"), "--set", "checkpoints.endpointUrl=http://minio.storage:9000"
        rules = render(*where, *arguments).one("NetworkPolicy", "replay-api")["spec"]["egress"]
        blocks = [peer["ipBlock"]["cidr"] for rule in rules for peer in rule.get("to", []) if "ipBlock" in peer]
        return {"ports": [{"port": 443, "protocol": "TCP"}]} in rules, blocks

    assert token_service() == (False, [])
    assert token_service("--set", "checkpoints.existingSecret=") == (True, ["169.254.169.254/32", "169.254.170.23/32"])


def test_more_peers_of_the_replay_api_are_reached_on_any_port(render: Render) -> None:
    peer = "networkPolicy.apiTo[0].ipBlock.cidr=10.0.0.7/32"
    policy = render("--set", peer).one("NetworkPolicy", "replay-api")
    assert {"to": [{"ipBlock": {"cidr": "10.0.0.7/32"}}]} in policy["spec"]["egress"]


def test_everybody_finds_the_name_server_who_needs_it(render: Render) -> None:
    for name in ("api-client", "replay-api"):
        ports = [rule["ports"] for rule in render().one("NetworkPolicy", name)["spec"]["egress"] if "to" not in rule]
        assert [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}] in ports
