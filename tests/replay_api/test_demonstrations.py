"""A run is shown the episodes of another: a share of every batch, told as its own task would have recorded them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from gaitfleet.batch import Batch
from gaitfleet.experiment import Experiment
from replay_api.services.retelling import retold
from replay_api.settings import Settings
from tests.conftest import serve
from tests.replay_api.fleet import Fleet, experiment_of
from tests.replay_api.test_curriculum import part
from tests.replay_api.test_forks import REPLAY, WALKER, computed, forked, rows, upright, wait_until_loaded, walker


@pytest.fixture
def old(api: str) -> Iterator[Fleet]:
    with Fleet(api, walker()) as fleet:
        yield fleet


def shown(old: Fleet, demonstrations: Any = None, *, replay: dict[str, Any] | None = None, **task: Any) -> Experiment:
    chosen = demonstrations or old.run
    return experiment_of(task=WALKER | task, replay=REPLAY | (replay or {}), demonstrations=chosen)


def halves(batches: list[Batch], at: int) -> tuple[dict[bytes, Any], dict[bytes, Any]]:
    """What came from the run itself, and what was shown."""
    own, beside = (rows([part(batch, where) for batch in batches]) for where in (slice(at), slice(at, None)))
    return own, beside


def test_half_of_every_batch_is_the_other_runs_retold_by_the_new_task(settings: Settings) -> None:
    """Also of the runs that it was forked from; as they stood when the run was created; and after a restart."""
    with serve(settings) as url:
        first = Fleet(url, walker())
        fell = upright(first, seed=1, lowest_m=0.69, ending="terminated", ending_reason="fall", role="random")
        first.post(fell)
        second = forked(first, walker(reward={"preset": "mattias"}))
        epoch = second.lease().json()["epoch"]
        assert second.publish(7, epoch).status_code == 201
        lucky = upright(second, seed=2, policy_version=7, role="train", exploration="none")
        second.post(lucky)
        second.post(upright(second, seed=9, policy_version=7, role="evaluate", exploration="none"))
        experiment = shown(second, round=2, ending={"fall_height": 0.8}, reward={"preset": "round2"})
        new = Fleet(url, experiment)
        own = upright(new, seed=3, lowest_m=0.85)
        assert "min_size is 5" in new.sample().json()["detail"]  # of its own
        assert new.post(own).status_code == 201
        second.post(upright(second, seed=4))  # after the run was created: not shown
        expected = [computed(retold(episode, new.task), new.task) for episode in (fell, lucky)]
        assert len(expected[0]) < 11

        def check() -> None:
            wait_until_loaded(new)
            batches = new.batches(batches=4, batch_size=128)
            assert all(batch.sources == {"run": 64, "demonstrations": 64} for batch in batches)
            assert halves(batches, 64) == (computed(own, new.task), expected[0] | expected[1])
            assert not any(batch.policy_version.any() for batch in batches)  # none of its policies acted

        check()
        assert new.create().status_code == 200
        description = new.get("").json()
        assert [(run["run"], run["transitions"]) for run in description["demonstrations"]] == [
            (second.run, 11),
            (first.run, 11),
        ]
        (event,) = new.events("demonstrations_shown")
        assert event["data"] == {"runs": [second.run, first.run], "transitions": 22}
        assert new.status()["limits"]["inherited"] == 0
        for fleet in (first, second):
            fleet.http.close()
    with serve(settings) as url:
        new.reconnect(url)
        check()
        (source,) = new.status()["sources"]
        assert (source["name"], source["share"]) == ("demonstrations", 0.5)
        new.http.close()


def test_another_share_and_a_stage_of_a_curriculum_go_together(old: Fleet) -> None:
    """A fork can be shown what it was not forked from."""
    episode = upright(old, seed=1)
    old.post(episode)
    stages = [
        {"name": "a", "gate": {"max_environment_steps": 42}},
        {"name": "b", "replay": "restart", "former": {"share": 0.25, "environment_steps": 1000}},
    ]
    settings = {"run": old.run, "share": 0.125}
    experiment = experiment_of(task=WALKER, replay=REPLAY, demonstrations=settings, curriculum={"stages": stages})
    with Fleet(old.url, walker()) as parent:
        parent.post(upright(parent, seed=2))
        new = forked(parent, experiment)
        (batch,) = new.batches(batch_size=64)
        assert batch.sources == {"run": 56, "demonstrations": 8}
        assert rows([part(batch, slice(56, None))]).keys() <= computed(episode, new.task).keys()
        new.post(upright(new, seed=3, stage="a"))
        wait_until_loaded(new)
        new.post(upright(new, seed=4, stage="b"))
        (batch,) = new.batches(batch_size=64)
        assert batch.sources == {"run": 40, "former": 16, "demonstrations": 8}


@pytest.mark.parametrize(
    ("block", "task", "words"),
    [
        ("nowhere", {}, "demonstrations.run is 'nowhere': there is no other run of this name"),
        (None, {}, "it holds no training episode"),
        (None, {"prosthetic": False}, "cannot be learned from here: task: the state layout was 412 columns"),
        (None, {"action": {"repeat": 5}}, "decisions were held for 4 steps, here for 5"),
    ],
)
def test_what_cannot_be_shown_is_refused_when_the_run_is_created(
    old: Fleet, block: str | None, task: dict[str, Any], words: str
) -> None:
    old.post(upright(old, seed=9, role="evaluate", exploration="none"))
    experiment = shown(old, block, **task).model_dump(mode="json")
    answer: httpx.Response = old.http.put(f"/v1/runs/{old.run}-new", json=experiment)
    assert (answer.status_code, answer.json()["field"]) == (422, "demonstrations.run")
    assert words in answer.json()["detail"]
    assert old.http.get(f"/v1/runs/{old.run}-new").status_code == 404
