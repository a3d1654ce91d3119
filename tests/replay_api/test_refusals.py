"""Every kind of bad episode, one test each: nothing is kept, and the problem names the field and the value."""

from __future__ import annotations

import socket
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest
import zstandard

from gaitfleet import codec
from gaitfleet.client import ReplayClient
from gaitfleet.episode import METADATA_KEY, Episode, encode_episode
from gaitfleet.errors import RejectedError
from tests.replay_api.fleet import Fleet, experiment_of


def changed(episode: Episode, name: str, where: Any, value: float) -> Episode:
    """The episode with one value of one array replaced."""
    array = getattr(episode.trajectory, name).copy()
    array[where] = value
    return replace(episode, trajectory=replace(episode.trajectory, **{name: array}))


def refused(fleet: Fleet, answer: httpx.Response, status: int, field: str, reason: str) -> str:
    """Checks that the answer is this refusal, that it was counted, and that nothing was kept; gives its detail."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["status"], problem["field"], problem["reason"]) == (status, field, reason)
    state = fleet.status()
    assert state["episodes"] == {}
    assert state["transitions_held"] == 0
    assert state["rejected"] == {reason: 1}
    (event,) = fleet.events("episode_rejected")
    assert event["data"]["reason"] == reason
    assert event["data"]["detail"] == problem["detail"]
    return str(problem["detail"])


@pytest.mark.parametrize(("value", "text"), [(np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf")])
def test_a_state_that_is_not_finite_is_refused(fleet: Fleet, value: float, text: str) -> None:
    answer = fleet.post(changed(fleet.play(), "state", (4, 1), value))
    detail = refused(fleet, answer, 422, "state[4,1]", "not_finite")
    assert detail == f"state[4,1] (observation/1) is {text}, must be finite"


def test_a_reward_that_is_not_finite_is_refused(fleet: Fleet) -> None:
    refused(fleet, fleet.post(changed(fleet.play(), "reward", 2, np.nan)), 422, "reward[2,0]", "not_finite")


def test_an_action_that_is_not_finite_is_refused(fleet: Fleet) -> None:
    refused(fleet, fleet.post(changed(fleet.play(), "action", (3, 0), np.nan)), 422, "action[3,0]", "not_finite")


@pytest.mark.parametrize("value", [-2.5, 2.5])
def test_an_action_out_of_bounds_is_refused(fleet: Fleet, value: float) -> None:
    answer = fleet.post(changed(fleet.play(), "action", (3, 0), value))
    detail = refused(fleet, answer, 422, "action[3,0]", "bounds")
    assert detail.startswith(f"action[3,0] (action/0) is {value}")
    assert detail.endswith(", must be within [-2, 2]")


@pytest.mark.parametrize("value", [-1.0, 1.2])
def test_an_excitation_out_of_bounds_is_refused(api: str, value: float) -> None:
    with Fleet(api, experiment_of(task={"environment": "prosthetics"})) as fleet:
        answer = fleet.post(changed(fleet.play(), "action", (5, 7), value))
        detail = refused(fleet, answer, 422, "action[5,7]", "bounds")
        assert f" is {value:g}" in detail
        assert detail.endswith("must be within [0, 1]")


def test_a_wrong_shape_is_refused(fleet: Fleet) -> None:
    episode = fleet.play()
    short = replace(episode, trajectory=replace(episode.trajectory, state=episode.trajectory.state[:-1]))
    detail = refused(fleet, fleet.post(short), 422, "state", "shape")
    assert detail == "state has shape [30, 3], must be [31, 3] for 30 steps"


def test_more_steps_than_the_time_limit_are_refused(fleet: Fleet) -> None:
    refused(fleet, fleet.post(fleet.play(steps=201)), 422, "action", "shape")


def test_a_wrong_layout_is_refused(fleet: Fleet) -> None:
    answer = fleet.post(fleet.play(layout_hash="0" * 16))
    detail = refused(fleet, answer, 422, "layout_hash", "layout")
    assert detail.startswith("layout_hash is 0000000000000000, this run's layout is ")


def test_an_episode_of_another_run_is_refused(fleet: Fleet) -> None:
    episode = fleet.play()
    other = replace(episode, metadata=episode.metadata.model_copy(update={"run": "other"}))
    refused(fleet, fleet.post(other), 422, "run", "metadata")


def test_an_unknown_role_is_refused(fleet: Fleet) -> None:
    body = encode_episode(fleet.play()).replace(b'\\"role\\":\\"random\\"', b'\\"role\\":\\"rantom\\"')
    assert "'rantom'" in refused(fleet, fleet.post(body), 422, "role", "metadata")


def test_a_policy_from_the_future_is_refused(fleet: Fleet) -> None:
    answer = fleet.post(fleet.play(role="train", policy_version=12))
    detail = refused(fleet, answer, 422, "policy_version", "future_policy")
    assert detail == "policy_version is 12, the newest policy is 0: it cannot be from the future"


@pytest.mark.parametrize("compressed", [False, True])
def test_a_truncated_body_is_refused(fleet: Fleet, compressed: bool) -> None:
    body = encode_episode(fleet.play())
    if compressed:
        answer = fleet.post(codec.compress(body)[:-100], **{"Content-Encoding": "zstd"})
        assert answer.json()["reason"] in ("truncated", "compression")
        assert fleet.status()["episodes"] == {}
    else:
        answer = fleet.post(body[:-100])
        assert "only" in refused(fleet, answer, 422, answer.json()["field"], "truncated")


def test_a_body_that_is_no_container_is_refused(fleet: Fleet) -> None:
    refused(fleet, fleet.post(b"{}" * 100), 422, "header", "header")


def test_a_header_that_claims_a_gigabyte_is_refused(fleet: Fleet) -> None:
    refused(fleet, fleet.post((1 << 30).to_bytes(8, "little") + b"{}"), 422, "header", "header")


def test_a_decompression_bomb_is_refused(fleet: Fleet) -> None:
    """128 MiB of zeros are 12 kB on the wire; at most 64 MiB are ever produced."""
    bomb = zstandard.ZstdCompressor().compress(bytes(128 << 20))
    answer = fleet.post(bomb, **{"Content-Encoding": "zstd"})
    detail = refused(fleet, answer, 413, "body", "too_large")
    assert detail == f"body is {128 << 20} bytes when decompressed; at most {64 << 20} are accepted"


def test_a_body_over_the_limit_is_refused_before_it_is_read(fleet: Fleet) -> None:
    answer = fleet.post(bytes(13 << 20))
    detail = refused(fleet, answer, 413, "body", "too_large")
    assert detail == f"the episode has {13 << 20} bytes or more; at most {12 << 20} are accepted"


def test_a_client_reads_the_refusal_though_the_connection_is_closed_before_all_is_sent(fleet: Fleet) -> None:
    """Else a worker would take it for an API that is away, and send the episode for ever."""
    body = np.random.default_rng(0).bytes(13 << 20)
    with ReplayClient(fleet.url, run=fleet.run) as client:
        for _ in range(3):  # on a new connection, and on one that was closed
            with pytest.raises(RejectedError, match="413"):
                client.post_episode(body)
        assert client.limits().inserted == 0


def test_an_endless_body_is_refused_as_soon_as_it_is_over_the_limit(fleet: Fleet) -> None:
    """Chunked, so that no length is declared; the connection ends although the body does not."""
    host, port = fleet.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        head = f"POST {fleet.path}/episodes HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head.encode())
        chunk = b"%x\r\n" % (1 << 20) + bytes(1 << 20) + b"\r\n"
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            connection.sendall(chunk * 60)
    assert fleet.status()["rejected"] == {"too_large": 1}


def test_an_unknown_encoding_is_refused(fleet: Fleet) -> None:
    answer = fleet.post(fleet.play(), **{"Content-Encoding": "br"})
    assert (answer.status_code, answer.json()["reason"]) == (415, "encoding")


def test_an_unknown_run_is_not_found(fleet: Fleet) -> None:
    answer = fleet.http.post("/v1/runs/nowhere/episodes", content=encode_episode(fleet.play()))
    assert answer.status_code == 404
    assert answer.json() == {
        "type": "urn:gaitfleet:problem:run-not-found",
        "title": "No such run",
        "status": 404,
        "detail": "there is no run 'nowhere'",
        "field": "run",
        "reason": "unknown_run",
    }


def test_a_client_that_hangs_up_leaves_nothing(fleet: Fleet) -> None:
    host, port = fleet.url.removeprefix("http://").split(":")
    body = encode_episode(fleet.play())
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        head = f"POST {fleet.path}/episodes HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body[: len(body) // 2])
    assert fleet.status()["episodes"] == {}
    assert fleet.get("/episodes").json()["episodes"] == []


def test_a_broken_worker_cannot_flood_the_history(fleet: Fleet) -> None:
    for seed in range(12):
        assert fleet.post(fleet.play(seed=seed, layout_hash="0" * 16)).status_code == 422
    assert fleet.status()["rejected"] == {"layout": 12}
    assert len(fleet.events("episode_rejected")) == 5


def test_a_value_that_only_the_task_can_see_is_refused(api: str) -> None:
    """Rewards are finite one by one, but their sum over a decision is not."""
    with Fleet(api, experiment_of(task={"action": {"repeat": 2}})) as fleet:
        refused(fleet, fleet.post(changed(fleet.play(), "reward", slice(None), 3e38)), 422, "reward", "not_finite")


def test_huge_rewards_that_are_taken_give_finite_batches(fleet: Fleet) -> None:
    assert fleet.post(changed(fleet.play(), "reward", slice(None), 3e38)).status_code == 201
    (batch,) = fleet.batches()
    assert np.isfinite(batch.reward).all()
    assert np.isfinite(batch.return_so_far).all()


def test_metadata_is_read_strictly(fleet: Fleet) -> None:
    episode = encode_episode(fleet.play())
    decoded = codec.read(episode)
    body = codec.write(decoded.tensors, {METADATA_KEY: decoded.metadata[METADATA_KEY].replace("{", '{"extra":1,', 1)})
    refused(fleet, fleet.post(body), 422, "extra", "metadata")


def test_a_missing_target_velocity_is_refused(api: str) -> None:
    with Fleet(api, experiment_of(task={"environment": "prosthetics", "round": 2})) as fleet:
        episode = fleet.play()
        assert episode.trajectory.target_velocity is not None
        without = replace(episode, trajectory=replace(episode.trajectory, target_velocity=None))
        detail = refused(fleet, fleet.post(without), 422, "target_velocity", "names")
        assert detail == "target_velocity is missing"
        assert fleet.post(episode).status_code == 201
