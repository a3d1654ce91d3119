"""What the API says of a warm start before a trainer begins, and what it remembers of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import httpx
import pytest

from gaitfleet.checkpoint import decode_checkpoint, encode_checkpoint
from tests.replay_api.fleet import Fleet, experiment_of


def create(fleet: Fleet, warm_start: dict[str, Any], **blocks: Any) -> httpx.Response:
    experiment = experiment_of(warm_start=warm_start, **blocks)
    return fleet.http.put(f"/v1/runs/{fleet.run}-new", json=experiment.model_dump(mode="json"))


@pytest.mark.parametrize(
    ("warm_start", "task", "words"),
    [
        ({"run": "nowhere"}, {}, "warm_start.run is 'nowhere': there is no other run of this name"),
        ({}, {"environment": "gymnasium:MountainCarContinuous-v0"}, "there were 3 values"),
        ({"checkpoint": 7}, {}, "warm_start.checkpoint is 7: run {run!r} keeps no checkpoint of this step"),
    ],
)
def test_what_cannot_be_had_is_refused_when_the_run_is_created(
    fleet: Fleet, warm_start: dict[str, Any], task: dict[str, Any], words: str
) -> None:
    answer = create(fleet, {"run": fleet.run} | warm_start, task=task)
    assert answer.status_code == 422
    assert words.format(run=fleet.run) in answer.json()["detail"]


def test_the_first_checkpoint_says_with_what_the_run_began(fleet: Fleet) -> None:
    epoch = fleet.lease().json()["epoch"]
    assert fleet.publish(12, epoch).status_code == 201
    assert create(fleet, {"run": fleet.run, "checkpoint": 12}).status_code == 201
    child = Fleet.__new__(Fleet)
    child.__dict__.update(fleet.__dict__ | {"run": f"{fleet.run}-new", "path": f"/v1/runs/{fleet.run}-new"})
    made = decode_checkpoint(child.checkpoint(1))
    epoch = child.lease().json()["epoch"]
    for step in (1, 2):
        policy = made.policy.model_copy(update={"version": step})
        begun = replace(made, policy=policy, counters={"warm_start": {"run": fleet.run, "step": 12}})
        assert child.publish(step, epoch, encode_checkpoint(begun)).status_code == 201
    (event,) = child.events("warm_started")
    assert event["data"] == {"step": 1, "from_run": fleet.run, "from_step": 12}
