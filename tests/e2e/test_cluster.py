"""The chart on a real cluster: everything that only kubelet, scheduler and API server can say.

`make test-cluster` with KUBECONFIG set; the images must be where the cluster finds them, see `cluster.py`. One release
lives through all tests, in their order. It takes the chart's defaults: development database and bucket, the walker.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator

import pytest
from tests.e2e.cluster import WAIT_SECONDS, Cluster

pytestmark = pytest.mark.cluster

COMPONENTS = {"database": 1, "bucket": 1, "replay-api": 1, "trainer": 1, "rollout": 2, "evaluation": 1}
RUN = "walker"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """The release, in a namespace that admits pods of the restricted standard only."""
    given = os.environ.get("CLUSTER_NAMESPACE")
    namespace = given or f"gaitfleet-test-{uuid.uuid4().hex[:6]}"
    cluster = Cluster(namespace, "gaitfleet")
    if not given:
        cluster.create_namespace({"pod-security.kubernetes.io/enforce": "restricted"})
    cluster.before = cluster.everything()
    try:
        cluster.upgrade()
        yield cluster
    finally:
        cluster.run("helm", "uninstall", cluster.release, "--ignore-not-found", check=False)
        if not given:
            cluster.kubectl("delete", "namespace", namespace, "--wait=false", check=False)


def test_the_namespace_admits_restricted_pods_only(cluster: Cluster) -> None:
    """Or that all pods are admitted would say nothing. A namespace of your own needs the label, too."""
    assert re.search("violates PodSecurity|PodSecurityPolicy", cluster.refusal_of_a_privileged_pod())


def test_every_pod_becomes_ready(cluster: Cluster) -> None:
    cluster.wait_for(
        lambda: all(len(cluster.ready(component)) == count for component, count in COMPONENTS.items()),
        f"ready pods: {COMPONENTS}",
    )


def test_nothing_was_restarted_to_get_there(cluster: Cluster) -> None:
    """A service that ends because another one is not there yet works in the end, too, but minutes later."""
    counts = {
        item["metadata"]["name"]: sum(status["restartCount"] for status in item["status"]["containerStatuses"])
        for component in COMPONENTS
        for item in cluster.pods(component)
    }
    assert not any(counts.values()), f"{counts}\n{cluster.state()}"


def test_the_run_was_created(cluster: Cluster) -> None:
    cluster.wait_for(
        lambda: [item.get("status", {}).get("succeeded") for item in cluster.objects("jobs")] == [1], "one finished Job"
    )
    assert cluster.ask(f"/v1/runs/{RUN}")["run"] == RUN


def test_helm_s_test_passes(cluster: Cluster) -> None:
    """It posts an episode and samples it."""
    cluster.run("helm", "test", cluster.release, "--timeout", f"{WAIT_SECONDS:.0f}s")


def test_a_checkpoint_travels_round(cluster: Cluster) -> None:
    def played_by_a_policy() -> bool:
        page = cluster.ask(f"/v1/runs/{RUN}/episodes?role=train&limit=1")
        return bool(page and page["episodes"] and page["episodes"][0]["policy_version"] > 0)

    cluster.wait_for(played_by_a_policy, "a training episode of a published policy")


@pytest.mark.parametrize("replicas", [5, 0])
def test_kubectl_scales_the_workers_and_an_upgrade_keeps_their_number(cluster: Cluster, replicas: int) -> None:
    cluster.scale("rollout", replicas)
    cluster.wait_for(lambda: len(cluster.pods("rollout")) == replicas, f"{replicas} workers")
    cluster.wait_for(lambda: len(cluster.ready("rollout")) == replicas, f"{replicas} ready workers")
    cluster.upgrade()
    assert cluster.replicas("rollout") == replicas
    assert len(cluster.pods("rollout")) == replicas


def test_an_upgrade_that_changes_nothing_restarts_nobody(cluster: Cluster) -> None:
    before = {item["metadata"]["uid"] for component in COMPONENTS for item in cluster.pods(component)}
    cluster.upgrade()
    assert before <= {item["metadata"]["uid"] for component in COMPONENTS for item in cluster.pods(component)}


def test_a_changed_value_changes_the_number(cluster: Cluster) -> None:
    """Scaled back by kubectl first, as the README asks for: helm 4 refuses to take over a number that kubectl set."""
    cluster.scale("rollout", 1)
    cluster.upgrade("--set", "rollout.replicas=1")
    cluster.wait_for(lambda: len(cluster.ready("rollout")) == 1, "one worker")


def test_a_changed_value_does_not_silently_replace_a_number_that_somebody_else_set(cluster: Cluster) -> None:
    """`kubectl patch`, which Kubernetes before 1.23 notes, too, as `kubectl scale` is noted since."""
    cluster.kubectl("patch", f"deployment/{cluster.release}-rollout", "--patch", '{"spec": {"replicas": 3}}')
    with pytest.raises(AssertionError, match=r"conflict(?s:.)*\.spec\.replicas"):
        cluster.upgrade("--set", "rollout.replicas=2")
    assert cluster.replicas("rollout") == 3
    cluster.upgrade("--set", "rollout.replicas=2", "--force-conflicts")
    assert cluster.replicas("rollout") == 2
    cluster.wait_for(lambda: len(cluster.pods("rollout")) == 2 == len(cluster.ready("rollout")), "two workers")


@pytest.mark.parametrize("component", ["rollout", "trainer", "replay-api"])
def test_the_run_goes_on_when_a_pod_is_killed(cluster: Cluster, component: str) -> None:
    """As a preempted node does it: no time to say goodbye."""
    before = cluster.ask(f"/v1/runs/{RUN}/status")
    victim, *others = cluster.pods(component)
    cluster.kubectl("delete", "pod", victim["metadata"]["name"], "--grace-period=0", "--force")

    def replaced_and_working() -> bool:
        uids = [item["metadata"]["uid"] for item in cluster.pods(component)]
        status = cluster.ask(f"/v1/runs/{RUN}/status")
        return (
            victim["metadata"]["uid"] not in uids
            and len(cluster.ready(component)) == 1 + len(others)
            and status is not None
            and status["environment_steps"] > before["environment_steps"]
            and status["checkpoint"]["step"] > before["checkpoint"]["step"]
        )

    cluster.wait_for(replaced_and_working, f"more steps and a newer checkpoint after {victim['metadata']['name']}")


def test_nothing_is_left_after_uninstalling(cluster: Cluster) -> None:
    cluster.run("helm", "uninstall", cluster.release, "--wait")
    cluster.wait_for(lambda: cluster.everything() <= cluster.before, "no object but those from before")
