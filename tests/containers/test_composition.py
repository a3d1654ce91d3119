"""The system in containers: hardened, complete, and indifferent to the death of its parts.

The tests speak of one running system, each of the next thing that happens to it.
"""

from __future__ import annotations

import subprocess

import pytest

from tests.containers.conftest import Composition, docker, image_of

pytestmark = pytest.mark.containers

FORBIDDEN = {
    "replay-api": {"torch", "opensim", "osim", "gymnasium", "rollout", "trainer", "pip"},
    "rollout": {"torch", "motor", "pymongo", "aioboto3", "fastapi", "trainer", "replay_api", "pip"},
    "trainer": {"opensim", "osim", "motor", "pymongo", "aioboto3", "fastapi", "gymnasium", "rollout", "pip"},
}
USERS = {"replay-api": 10001, "trainer": 10002, "rollout": 10003, "database": 10004, "bucket": 10005}
LEARNING = 900.0
"""Seconds for what has to be simulated and learned: minutes on two cores that nobody else uses."""


@pytest.mark.parametrize("service", FORBIDDEN)
def test_an_image_holds_only_what_its_service_needs(service: str) -> None:
    code = "import importlib.util, sys; print(*filter(importlib.util.find_spec, sys.argv[1:]))"
    command = ["python", "-c", code, *sorted(FORBIDDEN[service]), "gaitfleet"]
    assert docker("run", "--rm", "--network", "none", image_of(service), *command).split() == ["gaitfleet"]


@pytest.mark.parametrize("service", USERS)
def test_a_container_s_user_is_its_own_and_can_write_nowhere_but_where_it_should(
    composition: Composition, service: str
) -> None:
    (container, *_) = composition.containers(service)
    code = "import os, pathlib as p; print(os.getuid()); p.Path('/tmp/probe').touch(); p.Path('/probe').touch()"
    done = subprocess.run(
        ["docker", "exec", container, "python3", "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert int(done.stdout) == USERS[service]
    assert "Read-only file system: '/probe'" in done.stderr


def test_the_run_is_created_by_a_container_that_ends(composition: Composition) -> None:
    assert composition.exit_status(composition.containers("run")[0]) == 0


def test_a_checkpoint_travels_round(composition: Composition) -> None:
    """Played at random, stored, sampled, learned from, published, fetched, and played by."""
    composition.wait_for_api(
        lambda client: any(item.policy_version > 0 for item in client.episodes(role="train", limit=1).episodes),
        "a training episode of a published policy",
        LEARNING,
    )
    composition.wait_for_status(
        lambda status: status.episodes.get("evaluate", 0) > 0, "an evaluation of a checkpoint", LEARNING
    )


def test_it_goes_on_when_the_api_was_killed(composition: Composition) -> None:
    before = composition.wait_for_status(lambda status: status.checkpoint is not None, "a checkpoint", LEARNING)
    (api,) = composition.containers("replay-api")
    composition.kill(api)
    composition.restart(api)
    composition.wait_until_healthy(api)
    assert before.checkpoint is not None
    step = before.checkpoint.step
    after = composition.wait_for_status(
        lambda status: (
            status.checkpoint is not None
            and status.checkpoint.step > step
            and status.environment_steps > before.environment_steps
        ),
        f"episodes and a checkpoint after step {step}",
        LEARNING,
    )
    assert all(after.episodes[role] >= count for role, count in before.episodes.items()), "acknowledged and lost"
    assert docker("inspect", "--format", "{{.RestartCount}}", composition.containers("trainer")[0]) == "0"


def test_a_killed_trainer_continues_where_it_was(composition: Composition) -> None:
    before = composition.wait_for_status(lambda status: status.lease is not None, "a trainer at work", 120)
    assert before.checkpoint is not None
    (trainer,) = composition.containers("trainer")
    composition.kill(trainer)
    composition.restart(trainer)
    step = before.checkpoint.step
    after = composition.wait_for_status(
        lambda status: status.checkpoint is not None and status.checkpoint.step > step,
        f"a checkpoint after step {step}",
        LEARNING,
    )
    assert after.lease is not None
    assert before.lease is not None
    assert after.lease.epoch > before.lease.epoch


def test_a_third_rollout_joins(composition: Composition) -> None:
    composition.compose("up", "--detach", "--no-build", "--no-recreate", "--scale", "rollout=3", "rollout")
    worker = docker("inspect", "--format", "{{.Config.Hostname}}", composition.containers("rollout")[2])
    composition.wait_for_api(
        lambda client: bool(client.episodes(worker=f"{worker}.0", limit=1).episodes),
        f"an episode of {worker}'s simulator",
        LEARNING,
    )
    assert len({item.worker for item in composition.wait_for_status(lambda _: True, "a status", 30).workers}) >= 4


@pytest.mark.parametrize("service", ["rollout", "evaluation"])
def test_a_killed_worker_keeps_its_spool(composition: Composition, service: str) -> None:
    spool = composition.services["rollout"]["environment"]["GAITFLEET_ROLLOUT_SPOOL_DIR"]
    (container, *_) = composition.containers(service)
    docker("exec", container, "touch", f"{spool}/{service}")
    composition.kill(container)
    composition.restart(container)
    composition.wait_until_healthy(container)
    assert service in docker("exec", container, "ls", spool).split()


@pytest.mark.parametrize("service", ["rollout", "evaluation", "trainer", "replay-api", "database"])
def test_it_stops_in_time_when_it_is_asked_to(composition: Composition, service: str) -> None:
    """Asked by SIGTERM, which the first process of a container ignores unless it says otherwise."""
    for container in composition.containers(service):
        docker("stop", "--time", "30", container)
        assert composition.exit_status(container, 5) == 0, composition.said()
