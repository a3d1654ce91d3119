"""Leases, publication, heads: one publisher, nothing torn, nothing lost."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from gaitfleet.checkpoint import decode_checkpoint, encode_checkpoint
from gaitfleet.policy import NumpyPolicy
from gaitfleet.wire import CheckpointInfo
from replay_api.services.thinning import superfluous, under_evaluation
from replay_api.settings import Settings
from tests.conftest import serve
from tests.faults.observed import until
from tests.replay_api.fleet import Fleet, experiment_of

LEASE_LOST = "urn:gaitfleet:problem:lease-lost"
STEP = "urn:gaitfleet:problem:step-not-above-head"


def test_one_trainer_holds_the_lease_until_it_ends_or_is_given_back(fleet: Fleet) -> None:
    first = fleet.lease("trainer-a", ttl_seconds=1)
    assert (first.status_code, first.json()["epoch"]) == (200, 1)
    assert fleet.lease("trainer-a", ttl_seconds=1).json()["epoch"] == 1
    refused = fleet.lease("trainer-b")
    assert (refused.status_code, refused.json()["type"]) == (409, LEASE_LOST)
    assert "trainer-a holds the lease until " in refused.json()["detail"]
    time.sleep(1.1)
    assert fleet.lease("trainer-b").json()["epoch"] == 2
    assert fleet.lease("trainer-a").status_code == 409
    stale = fleet.http.delete(f"{fleet.path}/lease", params={"epoch": 1})
    assert (stale.status_code, stale.json()["type"]) == (409, LEASE_LOST)
    assert fleet.http.delete(f"{fleet.path}/lease", params={"epoch": 2}).status_code == 204
    assert fleet.lease("trainer-b").json()["epoch"] == 3  # given back, so taken anew
    kinds = [(event["kind"], event["data"]["epoch"]) for event in fleet.events() if "lease" in event["kind"]]
    assert kinds == [("lease_acquired", 1), ("lease_acquired", 2), ("lease_released", 2), ("lease_acquired", 3)]


def test_a_checkpoint_is_published_read_and_served_as_policy(fleet: Fleet) -> None:
    assert fleet.get("/policy").json()["type"] == "urn:gaitfleet:problem:policy-not-published"
    newest = fleet.get("/checkpoints/newest")
    assert newest.json()["type"] == "urn:gaitfleet:problem:checkpoint-not-published"
    epoch = fleet.lease().json()["epoch"]
    body = fleet.checkpoint(10)
    answer = fleet.publish(10, epoch, body)
    info = CheckpointInfo.model_validate(answer.json())
    assert (answer.status_code, info.step, info.epoch, info.size_bytes) == (201, 10, epoch, len(body))
    for which in ("newest", "10"):
        read = fleet.get(f"/checkpoints/{which}")
        assert read.content == body
        again = fleet.get(f"/checkpoints/{which}", headers={"If-None-Match": read.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    policy = fleet.get("/policy")
    assert policy.headers["x-policy-version"] == "10"
    expected = NumpyPolicy(decode_checkpoint(body).policy, decode_checkpoint(body).policy_tensors)
    observation = np.ones((1, 3), np.float32)
    np.testing.assert_array_equal(NumpyPolicy.from_bytes(policy.content).act(observation), expected.act(observation))
    assert fleet.get("/checkpoints/11").json()["type"] == "urn:gaitfleet:problem:checkpoint-not-found"
    (event,) = fleet.events("checkpoint_published")
    assert event["data"] == {"step": 10, "epoch": 1, "digest": info.digest, "size_bytes": len(body)}


def test_the_same_bytes_again_are_the_same_checkpoint(fleet: Fleet) -> None:
    epoch = fleet.lease().json()["epoch"]
    first, again = fleet.publish(10, epoch), fleet.publish(10, epoch)
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()
    other = fleet.publish(10, epoch, fleet.checkpoint(10, seed=1))
    assert (other.status_code, other.json()["type"]) == (409, STEP)
    lower = fleet.publish(9, epoch)
    assert lower.json()["detail"] == "step 9 is not above the head, which is at 10"
    assert fleet.publish(20, epoch).status_code == 201
    assert fleet.publish(10, epoch).status_code == 200  # still kept, though no longer the head


def test_a_trainer_without_the_lease_cannot_publish(fleet: Fleet) -> None:
    refused = fleet.publish(10, 1)
    assert (refused.status_code, refused.json()["type"]) == (409, LEASE_LOST)
    assert fleet.get("/checkpoints").json() == {"checkpoints": [], "newest": None, "best": None}


@pytest.mark.parametrize("store", ["directory", "seaweedfs"])
def test_a_paused_trainer_that_comes_back_is_fenced(
    store: str, settings: Settings, request: pytest.FixtureRequest
) -> None:
    """Two trainers: the first one's lease ends while it is paused, the second publishes, the first wakes up and
    tries."""
    if store == "seaweedfs":
        settings = settings.model_copy(update=request.getfixturevalue("seaweedfs"))
    with serve(settings) as url, Fleet(url) as fleet:
        old = fleet.lease("trainer-a", ttl_seconds=1).json()["epoch"]
        assert fleet.publish(10, old).status_code == 201
        time.sleep(1.1)
        new = fleet.lease("trainer-b").json()["epoch"]
        fenced = fleet.publish(30, old)
        assert (fenced.status_code, fenced.json()["type"]) == (409, LEASE_LOST)
        assert fleet.publish(20, new).status_code == 201
        assert fleet.publish(40, old).status_code == 409
        assert [info["step"] for info in fleet.get("/checkpoints").json()["checkpoints"]] == [20, 10]
        assert fleet.get("/checkpoints/newest").content == fleet.checkpoint(20)
        metrics = fleet.http.get("/metrics").text
        assert f'rl_checkpoint_publish_total{{result="fenced",run_id="{fleet.run}"}} 2.0' in metrics


@pytest.mark.parametrize("store", ["directory", "seaweedfs"])
def test_of_many_that_publish_at_once_one_wins(store: str, settings: Settings, request: pytest.FixtureRequest) -> None:
    """Eight bodies for the same step under the same epoch; the head, the record and both bodies are the winner's."""
    if store == "seaweedfs":
        settings = settings.model_copy(update=request.getfixturevalue("seaweedfs"))
    with serve(settings) as url, Fleet(url) as fleet:
        epoch = fleet.lease().json()["epoch"]
        bodies = [fleet.checkpoint(10, seed=seed) for seed in range(8)]

        def publish(body: bytes) -> httpx.Response:
            target = f"{url}{fleet.path}/checkpoints/10?epoch={epoch}"
            return httpx.put(target, content=body, timeout=60)

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(publish, bodies))
        statuses = [answer.status_code for answer in answers]
        assert sorted(statuses) == [201] + [409] * 7
        winner = bodies[statuses.index(201)]
        assert fleet.get("/checkpoints/newest").content == winner
        assert fleet.get("/checkpoints/10").content == winner
        assert {answer.json()["type"] for answer in answers if answer.status_code == 409} == {STEP}


def broken(fleet: Fleet, **changes: Any) -> bytes:
    """A checkpoint for step 10 with fields of its policy, or tensors, replaced."""
    checkpoint = decode_checkpoint(fleet.checkpoint(10))
    trainer = dict(checkpoint.trainer_tensors) | changes.pop("trainer", {})
    policy = checkpoint.policy.model_copy(update=changes)
    made = type(checkpoint)(policy, checkpoint.policy_tensors, trainer, checkpoint.counters)
    return encode_checkpoint(made)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"run": "other"}, "policy.run"),
        ({"version": 11}, "policy.version"),
        ({"observation_hash": "0" * 16}, "policy.observation_hash"),
        ({"trainer": {"critic": np.array([np.nan], np.float32)}}, "trainer/critic"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(fleet: Fleet, changes: dict[str, Any], field: str) -> None:
    epoch = fleet.lease().json()["epoch"]
    answer = fleet.publish(10, epoch, broken(fleet, **changes))
    assert (answer.status_code, answer.json()["field"]) == (422, field)
    assert fleet.get("/checkpoints").json()["newest"] is None


def test_a_checkpoint_with_a_policy_that_is_not_finite_is_refused(fleet: Fleet) -> None:
    epoch = fleet.lease().json()["epoch"]
    body = fleet.checkpoint(10)
    weight = decode_checkpoint(body).policy_tensors["out.weight"].tobytes()
    infinite = np.full(len(weight) // 4, np.inf, np.float32).tobytes()
    assert body.count(weight) == 1
    answer = fleet.publish(10, epoch, body.replace(weight, infinite))
    assert answer.status_code == 422
    assert answer.json()["detail"] == "tensor 'out.weight' holds a value that is not finite"
    torn = fleet.publish(10, epoch, body[:-7])
    assert (torn.status_code, torn.json()["reason"]) == (422, "truncated")


@contextmanager
def later(seconds: float, work: Callable[[], object]) -> Iterator[None]:
    """Do `work` in a thread after some seconds; ends when it is done."""
    timer = threading.Timer(seconds, work)
    timer.start()
    yield
    timer.join()


def test_a_long_poll_ends_when_the_head_moves(fleet: Fleet) -> None:
    epoch = fleet.lease().json()["epoch"]
    fleet.publish(10, epoch)
    etag = fleet.get("/policy").headers["etag"]
    assert fleet.get("/policy", headers={"If-None-Match": etag}).status_code == 304
    began = time.monotonic()
    url = f"{fleet.url}{fleet.path}/policy"
    with later(0.5, lambda: fleet.publish(20, epoch)):
        answer = httpx.get(url, headers={"If-None-Match": etag}, params={"wait": 20}, timeout=30)
    assert (answer.status_code, answer.headers["x-policy-version"]) == (200, "20")
    assert 0.3 < time.monotonic() - began < 10
    over = fleet.get("/policy", params={"wait": 61})
    assert (over.status_code, over.json()["field"]) == (422, "wait")


def test_a_long_poll_for_the_first_policy_ends_with_it_or_with_404(fleet: Fleet) -> None:
    assert fleet.get("/policy", params={"wait": 0.1}).status_code == 404
    epoch = fleet.lease().json()["epoch"]
    with later(0.3, lambda: fleet.publish(10, epoch)):
        assert httpx.get(f"{fleet.url}{fleet.path}/policy", params={"wait": 20}, timeout=30).status_code == 200


def test_all_who_wait_get_the_new_policy_though_some_have_left_and_another_follows_at_once(fleet: Fleet) -> None:
    epoch = fleet.lease().json()["epoch"]
    fleet.publish(10, epoch)
    url, held = f"{fleet.url}{fleet.path}/policy", {"If-None-Match": fleet.get("/policy").headers["etag"]}

    def wait(number: int) -> str | None:
        try:
            answer = client.get(url, headers=held, params={"wait": 30}, timeout=0.3 if number % 4 == 0 else 60)
        except httpx.TimeoutException:
            return None
        return answer.headers["x-policy-version"]

    def publish_twice() -> None:
        fleet.publish(20, epoch)
        fleet.publish(30, epoch)

    with httpx.Client() as client, ThreadPoolExecutor(40) as threads, later(2, publish_twice):
        versions = list(threads.map(wait, range(40)))
    assert versions[::4] == [None] * 10
    assert {version for i, version in enumerate(versions) if i % 4} <= {"20", "30"}
    assert fleet.get("/policy").headers["x-policy-version"] == "30"


def info(step: int) -> CheckpointInfo:
    known = {"digest": "d", "size_bytes": 1, "policy_digest": "p", "policy_size_bytes": 1}
    return CheckpointInfo(run="r", step=step, epoch=1, published_at="2026-01-01T00:00:00Z", **known)


def test_history_keeps_the_newest_the_first_of_every_stretch_and_the_heads() -> None:
    rule = experiment_of(checkpoints={"keep_last": 2, "keep_every_steps": 100}).checkpoints
    checkpoints = [info(step) for step in range(400, 0, -25)]
    doomed = {found.step for found in superfluous(checkpoints, rule, [400, 150])}
    assert doomed == {50, 75, 125, 175, 225, 250, 275, 325, 350}


def test_thinned_checkpoints_and_their_objects_are_gone(settings: Settings, tmp_path: Path) -> None:
    with serve(settings) as url, Fleet(url) as fleet:
        epoch = fleet.lease().json()["epoch"]
        for step in (10, 20, 30, 40):
            assert fleet.publish(step, epoch).status_code == 201
        kept: list[int] = []
        objects: list[Path] = []
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and (kept != [40, 30, 10] or len(objects) != 6):
            kept = [found["step"] for found in fleet.get("/checkpoints").json()["checkpoints"]]
            objects = list((tmp_path / "checkpoints").rglob("*.safetensors"))
            time.sleep(0.1)
        assert kept == [40, 30, 10]  # the last two, and the first in every 1000 steps
        assert len(objects) == 6
        assert fleet.get("/checkpoints/20").status_code == 404


def test_only_objects_that_can_never_be_published_are_deleted(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No clock has a say in it: what lies above the head may be of a publication under way, however old it seems."""
    monkeypatch.setattr("replay_api.services.thinning.ORPHAN_SECONDS", 0.0)
    with serve(settings) as url, Fleet(url) as fleet:
        epoch = fleet.lease().json()["epoch"]
        assert fleet.publish(10, epoch).status_code == 201
        directory = tmp_path / "checkpoints" / "runs" / fleet.run
        digest, orphans = "0" * 64, {}
        for name in (f"1-5-{digest}.safetensors", f"1-5-{digest}.policy.safetensors", f"1-30-{digest}.safetensors"):
            orphans[name] = directory / name
            orphans[name].write_bytes(b"left by a crash")
            os.utime(orphans[name], (0, 0))
        assert fleet.publish(20, epoch).status_code == 201
        deadline = time.monotonic() + 60
        while any(path.exists() for name, path in orphans.items() if name.startswith("1-5-")):
            assert time.monotonic() < deadline, "what can never be published is not deleted"
            time.sleep(0.05)
        assert orphans[f"1-30-{digest}.safetensors"].exists()


def test_a_checkpoint_of_many_megabytes_comes_back_as_it_was(fleet: Fleet) -> None:
    epoch = fleet.lease().json()["epoch"]
    weights = np.random.default_rng(0).normal(size=6_000_000).astype(np.float32)
    body = broken(fleet, trainer={"large": weights})
    assert fleet.publish(10, epoch, body).status_code == 201
    assert fleet.get("/checkpoints/newest").content == body


def evaluated(step: int, episodes: int, stage: str = "") -> CheckpointInfo:
    return info(step).model_copy(update={"evaluation_episodes": episodes, "evaluation_stage": stage})


def test_checkpoints_whose_evaluation_has_begun_are_needed_down_to_the_newest_that_is_finished() -> None:
    known = [info(90), evaluated(80, 1), info(70), evaluated(60, 2), evaluated(50, 5), evaluated(40, 3), info(30)]
    assert under_evaluation(known, "", 5) == [80, 60, 50]
    assert under_evaluation(known, "another", 5) == []
    abandoned = [evaluated(step, 1) for step in range(100, 0, -1)]
    assert under_evaluation(abandoned, "", 5) == list(range(100, 92, -1))


def test_a_checkpoint_is_kept_until_whoever_evaluates_it_is_done(fleet: Fleet) -> None:
    """First because an evaluator says that it plays it, then because an episode of it is there."""

    def kept() -> set[int]:
        return {found["step"] for found in fleet.get("/checkpoints").json()["checkpoints"]}

    epoch = fleet.lease().json()["epoch"]
    fleet.publish(10, epoch)
    fleet.publish(20, epoch)
    report = {"role": "evaluate", "simulators": 1, "policy_version": 20, "environment_steps": 0, "episodes": 0}
    assert fleet.http.put(f"{fleet.path}/workers/judge", json=report | {"spooled": 0}).is_success
    for step in (30, 40, 50):
        fleet.publish(step, epoch)
    until(lambda: 30 not in kept(), "none is deleted")
    assert kept() == {10, 20, 40, 50}
    assert fleet.post(fleet.play(seed=1, role="evaluate", policy_version=20, exploration="none")).status_code == 201
    assert fleet.http.delete(f"{fleet.path}/workers/judge").is_success
    fleet.publish(60, epoch)
    until(lambda: 40 not in kept(), "none is deleted")
    assert kept() == {10, 20, 50, 60}
    assert fleet.post(fleet.play(seed=2, role="evaluate", policy_version=20, exploration="none")).status_code == 201
    assert fleet.get("/checkpoints").json()["best"] == 20
