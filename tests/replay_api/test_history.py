"""What has happened stands in the history once, though the database fails just before it is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest

from gaitfleet.checkpoint import decode_checkpoint, encode_checkpoint
from gaitfleet.wire import Event
from replay_api.errors import UnavailableError
from replay_api.services import workers
from replay_api.storage.events import EventStore
from tests.faults.observed import until
from tests.replay_api.fleet import Fleet, experiment_of

COUNTS = ("policy_version", "environment_steps", "episodes", "spooled")


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """Lets the next event of a kind not be kept; the kinds that have yet to fail."""
    append, kinds = EventStore.append, list[str]()

    async def fail_first(store: EventStore, event: Event) -> None:
        if event.kind in kinds:
            kinds.remove(event.kind)
            raise UnavailableError("the database did not answer", reason="database", retry_after_seconds=1)
        await append(store, event)

    def once(kind: str) -> list[str]:
        kinds.append(kind)
        return kinds

    monkeypatch.setattr(EventStore, "append", fail_first)
    return once


def twice(request: Callable[[], httpx.Response]) -> list[int]:
    return [request().status_code for _ in range(2)]


def test_a_request_that_fails_before_its_event_is_kept_writes_it_when_it_is_repeated(
    fleet: Fleet, failing: Callable[[str], list[str]]
) -> None:
    failing("lease_acquired")
    assert twice(fleet.lease) == [503, 200]
    epoch = fleet.lease().json()["epoch"]
    for step in (10, 20, 30):
        assert fleet.publish(step, epoch).status_code == 201
    failing("checkpoint_published")
    assert twice(lambda: fleet.publish(40, epoch)) == [503, 200]
    until(lambda: fleet.get("/checkpoints/20").status_code == 404, "nothing is thinned")
    failing("evaluation_finished")
    first, last = (fleet.play(seed=seed, role="evaluate", policy_version=40, exploration="none") for seed in range(2))
    assert fleet.post(first).status_code == 201
    assert twice(lambda: fleet.post(last)) == [503, 200]
    assert twice(lambda: fleet.post(last)) == [200, 200]
    assert twice(lambda: fleet.publish(40, epoch)) == [200, 200]
    assert fleet.create().status_code == 200
    kinds = [event["kind"] for event in fleet.events()]
    published = ["checkpoint_published"] * 4
    assert kinds == ["run_started", "lease_acquired", *published, "evaluation_finished"]


def test_the_creation_of_a_run_that_fails_before_its_events_are_kept_writes_them_when_it_is_repeated(
    fleet: Fleet, failing: Callable[[str], list[str]]
) -> None:
    course = {"curriculum": {"stages": [{"name": "one", "gate": {"mean_return": 1e6}}, {"name": "two"}]}}
    failing("run_started")
    failing("stage_entered")
    with Fleet(fleet.url, experiment_of(**course)) as made:  # has asked once
        assert twice(made.create) == [503, 200]
        assert [event["kind"] for event in made.events()] == ["run_started", "stage_entered"]
    failing("episodes_inherited")
    failing("run_forked")
    into = {"run": f"{fleet.run}-fork", "experiment": fleet.experiment.model_dump(mode="json")}
    statuses = [fleet.http.post(f"{fleet.path}/forks", json=into).status_code for _ in range(4)]
    assert statuses == [503, 503, 200, 200]
    events = fleet.http.get(f"{fleet.path}-fork/events").json()["events"]
    assert [event["kind"] for event in events] == ["run_started", "episodes_inherited"]
    (forked,) = fleet.events("run_forked")
    assert forked["data"]["into"] == into["run"]


def test_with_what_a_run_began_is_written_when_its_first_checkpoint_comes_again(
    fleet: Fleet, failing: Callable[[str], list[str]]
) -> None:
    epoch = fleet.lease().json()["epoch"]
    begun = replace(decode_checkpoint(fleet.checkpoint(1)), counters={"warm_start": {"run": "other", "step": 12}})
    failing("warm_started")
    assert twice(lambda: fleet.publish(1, epoch, encode_checkpoint(begun))) == [503, 200]
    (event,) = fleet.events("warm_started")
    assert event["data"] == {"step": 1, "from_run": "other", "from_step": 12}
    assert len(fleet.events("checkpoint_published")) == 1


def test_what_cannot_be_asked_for_again_is_told_as_soon_as_the_database_answers(
    fleet: Fleet, failing: Callable[[str], list[str]]
) -> None:
    course = {"curriculum": {"stages": [{"name": "one", "gate": {"max_environment_steps": 30}}, {"name": "two"}]}}
    with Fleet(fleet.url, experiment_of(**course)) as made:
        epoch = made.lease().json()["epoch"]
        for kind in ("lease_released", "stage_entered"):
            failing(kind)
        assert made.post(made.play(stage="one")).status_code == 201
        assert made.http.delete(f"{made.path}/lease", params={"epoch": epoch}).status_code == 204
        until(lambda: len(made.events("lease_released")) == 1, "the release is not told")
        until(lambda: len(made.events("stage_entered")) == 2, "the stage is not told")
        assert made.events("stage_entered")[1]["data"]["stage"] == "two"


def test_what_is_told_late_stands_after_what_was_read_meanwhile(
    fleet: Fleet, failing: Callable[[str], list[str]]
) -> None:
    epoch = fleet.lease().json()["epoch"]
    failing("lease_released")
    assert fleet.http.delete(f"{fleet.path}/lease", params={"epoch": epoch}).status_code == 204
    fleet.lease()
    read = fleet.events()[-1]
    assert read["kind"] == "lease_acquired"

    def later() -> list[str]:
        return [event["kind"] for event in fleet.get("/events", params={"after": read["sequence"]}).json()["events"]]

    until(lambda: later() == ["lease_released"], "who reads on does not come to it")


def test_every_worker_that_falls_silent_is_told(
    fleet: Fleet, failing: Callable[[str], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "WORKER_EXPIRY_SECONDS", 0.5)
    left = failing("worker_left")
    report: dict[str, Any] = {"role": "train", "simulators": 1} | dict.fromkeys(COUNTS, 0)
    for worker in ("a", "b"):
        assert fleet.http.put(f"{fleet.path}/workers/{worker}", json=report).status_code == 200
    until(lambda: len(fleet.events("worker_left")) == 2, "one of them is not told")
    assert left == []
    assert {event["data"]["worker"] for event in fleet.events("worker_left")} == {"a", "b"}
