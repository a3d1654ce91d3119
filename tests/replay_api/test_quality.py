"""What the store says of the episodes it takes in."""

from __future__ import annotations

from dataclasses import replace

import httpx
import numpy as np
import pytest

from gaitfleet.checksum import trajectory_checksum
from gaitfleet.episode import Episode
from tests.replay_api.fleet import Fleet, experiment_of


def posted(fleet: Fleet, episode: Episode) -> dict[str, object]:
    """The summary of an episode after it was posted."""
    assert fleet.post(episode).status_code == 201
    summary: dict[str, object] = fleet.get(f"/episodes/{episode.metadata.episode_id}").json()
    return summary


def names(summary: dict[str, object]) -> list[str]:
    return [finding["name"] for finding in summary["findings"]]  # type: ignore[attr-defined]


def frozen(episode: Episode) -> Episode:
    """The episode with one decision for all steps."""
    action = np.broadcast_to(episode.trajectory.action[:1], episode.trajectory.action.shape).copy()
    return replace(episode, trajectory=replace(episode.trajectory, action=action))


def test_an_episode_that_passes_every_check_has_no_finding(fleet: Fleet) -> None:
    summary = posted(fleet, fleet.play())
    assert (summary["findings"], summary["walked"]) == ([], None)
    assert fleet.events("episode_finding") == []


def test_a_finding_stands_in_episode_history_status_and_metrics(fleet: Fleet) -> None:
    for seed in range(11):
        summary = posted(fleet, frozen(fleet.play(seed=seed)))
        assert names(summary) == ["frozen_actions"]
    other = frozen(fleet.play(seed=11, worker="worker-1"))
    posted(fleet, other)
    posted(fleet, fleet.play(seed=12))
    told = [(event["data"]["worker"], event["data"]["episodes"]) for event in fleet.events("episode_finding")]
    assert told == [("worker-0", 1), ("worker-0", 10), ("worker-1", 1)]
    last = fleet.events("episode_finding")[-1]["data"]
    assert last["finding"] == "frozen_actions"
    assert last["episode_id"] == str(other.metadata.episode_id)
    assert fleet.status()["findings"] == {"frozen_actions": 12}
    line = f'rl_replay_findings_total{{finding="frozen_actions",run_id="{fleet.run}"}} 12.0'
    assert line in httpx.get(f"{fleet.url}/metrics").text
    found = fleet.get("/episodes", params={"finding": "frozen_actions"}).json()["episodes"]
    assert len(found) == 12
    assert fleet.get("/episodes", params={"finding": "statue"}).json()["episodes"] == []


def test_the_same_rows_under_another_seed_are_found_and_a_second_post_is_not(fleet: Fleet) -> None:
    episode = fleet.play(seed=1)
    again = replace(fleet.play(seed=1), metadata=fleet.play(seed=2).metadata)
    assert names(posted(fleet, episode)) == []
    assert fleet.post(episode).status_code == 200
    summary = posted(fleet, again)
    assert names(summary) == ["repeated_episode"]
    assert str(episode.metadata.episode_id) in summary["findings"][0]["detail"]  # type: ignore[index]


def test_rows_that_changed_on_their_way_are_refused(fleet: Fleet) -> None:
    episode = fleet.play()
    checksum = trajectory_checksum(episode.trajectory)
    metadata = episode.metadata.model_copy(update={"rows_checksum": checksum})
    state = episode.trajectory.state.copy()
    state[7, 1] = np.nextafter(state[7, 1], np.float32(9))
    answer = fleet.post(Episode(metadata, replace(episode.trajectory, state=state)))
    assert answer.status_code == 422
    assert (answer.json()["field"], answer.json()["reason"]) == ("rows_checksum", "checksum")
    assert fleet.status()["rejected"] == {"checksum": 1}
    assert fleet.post(Episode(metadata, episode.trajectory)).status_code == 201


def test_an_evaluation_says_how_far_its_episodes_went_and_how_many_walked(api: str) -> None:
    with Fleet(api, experiment_of(task={"environment": "prosthetics", "round": 1})) as fleet:
        fleet.publish(1, fleet.lease().json()["epoch"])
        for seed in range(2):
            fleet.post(fleet.play(seed=seed, role="evaluate", exploration="none", policy_version=1))
        (event,) = fleet.events("evaluation_finished")
        summaries = fleet.get("/episodes").json()["episodes"]
        for figure, name in (("mean_distance_m", "distance_m"), ("mean_foot_contacts", "foot_contacts")):
            assert event["data"][figure] == pytest.approx(np.mean([summary[name] for summary in summaries]))
        assert event["data"]["walked_episodes"] == 0
        assert fleet.status()["returns"]["evaluate"]["walked_episodes"] == 0
