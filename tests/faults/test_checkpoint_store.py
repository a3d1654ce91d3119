"""An S3 server that answers errors or not at all, and a checkpoint directory on a full disk."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.faults.observed import Observed, until
from tests.faults.s3_proxy import Answer, Behaviour, in_front_of
from tests.faults.test_replicas import through
from tests.replay_api.fleet import Fleet
from tests.replay_api.test_checkpoints import broken
from tests.servers import ApiServer

pytestmark = pytest.mark.faults

SLOW_DOWN = Answer(503, "SlowDown")


@pytest.fixture(scope="module")
def behind_proxy(
    mongodb_uri: str, seaweedfs: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[ApiServer, Behaviour]]:
    """One process whose S3 server is behind a proxy."""
    with in_front_of(seaweedfs["s3_endpoint_url"]) as (address, behaviour):
        settings = seaweedfs | {"s3_endpoint_url": address, "mongodb_uri": mongodb_uri}
        directory = tmp_path_factory.mktemp("api")
        api = ApiServer(directory, settings | {"mongodb_database": f"test-{directory.name}"})
        yield api, behaviour
        api.kill()


@pytest.fixture
def behaviour(behind_proxy: tuple[ApiServer, Behaviour]) -> Iterator[Behaviour]:
    behind_proxy[1].silence_ends.clear()
    behind_proxy[1].asked = 0
    yield behind_proxy[1]
    behind_proxy[1].heal()


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (Answer(500, "InternalError"), "InternalError"),
        (SLOW_DOWN, "SlowDown"),
        (Answer(500, "InternalError", carried_out=True), "InternalError"),
    ],
    ids=["500", "503", "500 after the object was kept"],
)
def test_a_publication_that_fails_leaves_the_head_and_succeeds_when_it_is_sent_again(
    behind_proxy: tuple[ApiServer, Behaviour], behaviour: Behaviour, answer: Answer, code: str
) -> None:
    api = behind_proxy[0]
    with Fleet(api.url) as fleet:
        epoch = fleet.lease().json()["epoch"]
        assert fleet.publish(10, epoch).status_code == 201
        seen = Observed(api)
        body = broken(fleet, version=20, trainer={"large": np.zeros(1_000_000, np.float32)})
        behaviour.answers = {"PUT": answer}
        for _ in range(5):
            refused = fleet.publish(20, epoch, body)
            assert (refused.status_code, refused.json()["reason"]) == (503, "checkpoint_store")
            assert refused.headers["retry-after"] == "2"
        assert behaviour.asked >= 10  # each of them was tried more than once
        assert fleet.get("/checkpoints").json()["newest"] == 10
        assert fleet.get("/policy").headers["x-policy-version"] == "10"
        assert seen.counted("rl_s3_errors_total", op="put", code=code) == 5
        assert seen.logged("the checkpoint store did not answer", operation="put", error=code)
        behaviour.heal()
        assert fleet.publish(20, epoch, body).status_code == 201
        assert fleet.get("/checkpoints/newest").content == body
        assert seen.growth_mib < 100
        assert not seen.restarted


def test_while_the_store_is_away_replicas_are_ready_episodes_are_stored_and_batches_sampled(
    behind_proxy: tuple[ApiServer, Behaviour], behaviour: Behaviour
) -> None:
    api = behind_proxy[0]
    with Fleet(api.url) as fleet:
        epoch = fleet.lease().json()["epoch"]
        assert fleet.publish(10, epoch).status_code == 201
        behaviour.answers = dict.fromkeys(("GET", "PUT", "DELETE"), Answer(0))
        time.sleep(1.1)  # for a second its last answer holds
        began = time.monotonic()
        ready = fleet.http.get("/health/ready")
        assert ready.status_code == 200
        assert ready.json()["parts"]["checkpoint_store"] == "no answer within 4 s"
        assert time.monotonic() - began < 5  # when the chart's probe gives up
        assert fleet.post(fleet.play()).status_code == 201
        assert fleet.sample().status_code == 200
        assert fleet.get("/policy").status_code == 200


def test_while_the_store_is_silent_policies_are_judged_and_replicas_follow_each_other(
    behind_proxy: tuple[ApiServer, Behaviour], behaviour: Behaviour, tmp_path: Path
) -> None:
    first = behind_proxy[0]
    with Fleet(first.url) as fleet:
        second = ApiServer(tmp_path, first.settings)
        try:
            epoch = fleet.lease().json()["epoch"]
            assert fleet.publish(10, epoch).status_code == fleet.publish(20, epoch).status_code == 201
            assert fleet.post(fleet.play()).status_code == 201
            behaviour.answers = {"GET": Answer(0)}
            fleet.http.timeout = httpx.Timeout(9.0)
            for seed in range(2):  # nobody serves 10 any more, and it becomes the best
                judged = fleet.play(seed=seed, role="evaluate", policy_version=10, exploration="none")
                assert fleet.post(judged).status_code == 201
            assert fleet.get("/checkpoints").json()["best"] == 10
            other = through(fleet, second.url)
            other.http.timeout = httpx.Timeout(9.0)
            assert other.status()["episodes"] == {"random": 1, "evaluate": 2}  # it opens the run now
            refused = other.get("/policy")
            assert (refused.status_code, refused.json()["reason"]) == (503, "checkpoint_store")
            counted = f'rl_checkpoint_polls_total{{code="503",run_id="{fleet.run}"}} 1.0'
            assert counted in httpx.get(f"{second.url}/metrics").text
            for seed in range(5, 8):
                acted = fleet.play(seed=seed, role="train", policy_version=20, exploration="none")
                assert fleet.post(acted).status_code == 201
                stored = seed - 4
                until(lambda: other.status()["episodes"].get("train") == stored, "it is not followed", seconds=9.0)  # noqa: B023
            behaviour.heal()
            until(lambda: other.get("/policy").headers.get("x-policy-version") == "20", "it is never served")
            best = {"head": "best"}
            until(lambda: fleet.get("/policy", params=best).headers.get("x-policy-version") == "10", "10 is not served")
            other.http.close()
        finally:
            second.kill()


def test_a_publication_that_waits_for_a_silent_store_goes_on_when_it_answers(
    behind_proxy: tuple[ApiServer, Behaviour], behaviour: Behaviour
) -> None:
    api = behind_proxy[0]
    with Fleet(api.url) as fleet:
        epoch = fleet.lease().json()["epoch"]
        seen, answers = Observed(api), list[int]()
        behaviour.answers = {"PUT": Answer(0)}
        thread = threading.Thread(target=lambda: answers.append(fleet.publish(10, epoch).status_code))
        thread.start()
        until(lambda: behaviour.asked > 0, "the store is not asked")
        time.sleep(2.0)
        behaviour.heal()
        thread.join(60)
        assert answers == [201]
        assert fleet.get("/policy").headers["x-policy-version"] == "10"
        assert seen.growth_mib < 100


def test_a_full_disk_refuses_checkpoints_until_there_is_room(mongodb_uri: str, tiny_disk: Path, tmp_path: Path) -> None:
    store = {"checkpoint_store": f"directory:{tiny_disk}", "mongodb_uri": mongodb_uri}
    api = ApiServer(tmp_path, store | {"mongodb_database": "test-full-disk"})
    try:
        with Fleet(api.url) as fleet:
            epoch = fleet.lease().json()["epoch"]
            assert fleet.publish(10, epoch).status_code == 201
            filler = tiny_disk / "filler"
            filler.write_bytes(bytes(700_000))
            seen = Observed(api)
            body = broken(fleet, version=20, trainer={"large": np.zeros(100_000, np.float32)})
            refused = fleet.publish(20, epoch, body)
            assert (refused.status_code, refused.json()["reason"]) == (503, "checkpoint_store")
            assert seen.counted("rl_s3_errors_total", op="put", code="OSError") == 1
            assert any("No space left" in line.get("error", "") for line in api.said())
            assert fleet.get("/policy").headers["x-policy-version"] == "10"
            assert not list(tiny_disk.rglob(".new-*"))
            filler.unlink()
            assert fleet.publish(20, epoch, body).status_code == 201
            assert fleet.get("/checkpoints/newest").content == body
            assert not seen.restarted
    finally:
        api.kill()
