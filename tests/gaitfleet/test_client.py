"""The client against a real HTTP server that misbehaves on demand (`tests/replay_api` runs it against the real API)."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Iterator

import httpx
import pytest
from tests.scripted_server import Server

from gaitfleet import problems, wire
from gaitfleet.client import Backoff, ReplayClient
from gaitfleet.errors import (
    ApiUnavailableError,
    ConflictError,
    ForbiddenError,
    LeaseLostError,
    LimitedError,
    NotFoundError,
    RejectedError,
    TokenError,
)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def client(server: Server) -> Iterator[ReplayClient]:
    with ReplayClient(server.url, run="walker", token="secret", timeout_seconds=2.0, attempts=3) as client:
        yield client


def problem(status: int, **fields: str) -> tuple[int, dict[str, str], bytes]:
    return status, {"Content-Type": "application/problem+json"}, json.dumps({"status": status} | fields).encode()


LIMITS = {
    "samples_per_insert": 256.0,
    "min_size": 10,
    "error_buffer": 4096.0,
    "limit_inserts": False,
    "inserted": 0,
    "inherited": 0,
    "credit": 0.0,
    "sampled": 0,
    "samples_allowed": 0,
    "waiting_samplers": 0,
    "longest_wait_seconds": 0.0,
}
GOOD = (200, {}, json.dumps(LIMITS).encode())
BATCHES = wire.BatchRequest(batch_size=4, discount=0.9)


def test_a_call_is_tried_again_while_the_api_is_away(server: Server, client: ReplayClient) -> None:
    server.script = [problem(503, detail="no database"), (0, {}, b""), GOOD]
    assert client.limits().min_size == 10
    assert len(server.requests) == 3


def test_after_all_tries_the_error_says_what_the_api_said(server: Server, client: ReplayClient) -> None:
    server.script = [problem(503, detail="no database")] * 3
    with pytest.raises(ApiUnavailableError, match="503: no database"):
        client.limits()


def test_nobody_listening_is_an_error_of_the_tree() -> None:
    with (
        ReplayClient("http://127.0.0.1:9", run="walker", attempts=1) as client,
        pytest.raises(ApiUnavailableError, match="GET /v1/runs/walker/limits"),
    ):
        client.limits()


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (problem(401, detail="no token"), ForbiddenError),
        (problem(403, detail="wrong role"), ForbiddenError),
        (problem(404, type=problems.RUN_NOT_FOUND), NotFoundError),
        (problem(409, detail="other bytes"), ConflictError),
        (problem(409, type=problems.LEASE_LOST), LeaseLostError),
        (problem(400, detail="no HTTP"), RejectedError),
        (problem(413, detail="too large"), RejectedError),
        (problem(415, detail="gzip"), RejectedError),
        (problem(422, detail="action[3,7] is -1", field="action[3,7]"), RejectedError),
    ],
)
def test_a_refusal_is_raised_at_once_and_never_tried_again(
    server: Server, client: ReplayClient, answer: tuple[int, dict[str, str], bytes], kind: type[Exception]
) -> None:
    server.script = [answer]
    with pytest.raises(kind):
        client.publish_checkpoint(1, 1, b"body")
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [405, 408, 421, 425])
def test_what_a_proxy_says_is_no_verdict_on_the_request(server: Server, client: ReplayClient, status: int) -> None:
    server.script = [(status, {}, b"<html>a page</html>"), GOOD]
    assert client.limits().min_size == 10


def test_posting_an_episode_is_tried_once_and_hands_on_retry_after(server: Server, client: ReplayClient) -> None:
    status, headers, body = problem(429, detail="inserts wait for the trainer")
    server.script = [(status, headers | {"Retry-After": "7"}, body), problem(503)]
    with pytest.raises(LimitedError) as caught:
        client.post_episode(b"episode")
    assert caught.value.retry_after_seconds == 7
    with pytest.raises(ApiUnavailableError):
        client.post_episode(b"episode")
    assert len(server.requests) == 2


def test_batches_are_read_into_the_given_buffer(server: Server, client: ReplayClient) -> None:
    content = bytes(range(256)) * 1000
    server.script = [(200, {}, content), (200, {}, content)]
    buffer = bytearray(300_000)
    assert bytes(client.sample_batches(BATCHES, buffer)) == content
    assert buffer[: len(content)] == content
    assert bytes(client.sample_batches(BATCHES, bytearray(10))) == content  # too small: a new one is made


def test_a_body_cut_short_is_an_error_and_not_a_short_body(server: Server) -> None:
    server.script = [(200, {"Content-Length": "1000", "Connection": "close"}, b"short")]
    with (
        ReplayClient(server.url, run="walker", timeout_seconds=2.0, attempts=1) as client,
        pytest.raises(ApiUnavailableError),
    ):
        client.sample_batches(BATCHES)


def test_a_connection_that_the_server_closed_meanwhile_is_opened_again(server: Server) -> None:
    server.script = [(200, {}, b"one"), (0, {}, b""), (200, {}, b"two")]
    with ReplayClient(server.url, run="walker", timeout_seconds=2.0, attempts=1) as client:
        assert bytes(client.sample_batches(BATCHES)) == b"one"
        assert bytes(client.sample_batches(BATCHES)) == b"two"


def test_no_policy_yet_and_nothing_newer_are_none_but_a_missing_run_is_an_error(
    server: Server, client: ReplayClient
) -> None:
    headers = {"ETag": '"1-5-abc"', "X-Policy-Version": "5"}
    server.script = [
        problem(404, type=problems.POLICY_NOT_PUBLISHED),
        (200, headers, b"policy"),
        (304, headers, b""),
        problem(404, type=problems.RUN_NOT_FOUND),
    ]
    assert client.get_policy() is None
    answer = client.get_policy()
    assert answer is not None
    assert (answer.body, answer.etag, answer.version) == (b"policy", '"1-5-abc"', 5)
    assert client.get_policy(answer.etag) is None
    assert server.requests[-1][2]["If-None-Match"] == '"1-5-abc"'
    with pytest.raises(NotFoundError):
        client.get_policy()


@pytest.mark.parametrize(
    "call", [lambda c: c.limits(), lambda c: c.sample_batches(BATCHES), lambda c: c.clone().limits()]
)
def test_every_call_carries_the_token(
    server: Server, client: ReplayClient, call: Callable[[ReplayClient], object]
) -> None:
    server.script = [GOOD]
    call(client)
    headers = {name.lower(): value for name, value in server.requests[0][2].items()}
    assert headers["authorization"] == "Bearer secret"


@pytest.mark.parametrize("answer", [(200, {}, b"<html>"), (302, {"Location": "/login"}, b"")])
@pytest.mark.parametrize(
    "call",
    [
        lambda c: c.limits(),
        lambda c: c.runs(),
        lambda c: c.get_policy(),
        lambda c: c.post_episode(b"episode"),
        lambda c: c.publish_checkpoint(1, 1, b"body"),
    ],
)
def test_what_is_no_replay_api_is_one_that_is_away(
    server: Server, call: Callable[[ReplayClient], object], answer: tuple[int, dict[str, str], bytes]
) -> None:
    server.script = [answer]
    with (
        ReplayClient(server.url, run="walker", attempts=1) as client,
        pytest.raises(ApiUnavailableError, match=f"{answer[0]}: no answer of a replay API") as refused,
    ):
        call(client)
    assert refused.value.status == answer[0]


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "socks5://127.0.0.1:9"])
def test_no_proxy_of_the_environment_is_used(server: Server, proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ALL_PROXY", proxy)
    server.script = [GOOD, GOOD]
    with ReplayClient(server.url, run="walker", attempts=1) as client:
        assert client.limits().min_size == 10
        assert bytes(client.sample_batches(BATCHES)) == GOOD[2]


@pytest.mark.parametrize("token", [" secret", "secret\n", "secret\r\n"])
def test_white_space_around_the_token_is_not_sent(server: Server, token: str) -> None:
    server.script = [GOOD, GOOD]
    with ReplayClient(server.url, run="walker", token=token, attempts=1) as client:
        client.limits()
        client.sample_batches(BATCHES)
    assert {request[2]["Authorization"] for request in server.requests} == {"Bearer secret"}


@pytest.mark.parametrize("token", ["secret\nanother", "secret another", "sécret", "secret\x00"])
def test_a_token_that_cannot_stand_in_a_header_is_refused_and_not_repeated(token: str) -> None:
    with pytest.raises(TokenError) as refused:
        ReplayClient("http://127.0.0.1:9", run="walker", token=token)
    assert "cret" not in str(refused.value)


def test_a_request_that_cannot_be_sent_is_not_quoted() -> None:
    """The library quotes the header that it refuses."""

    def refuse(_: httpx.Request) -> httpx.Response:
        raise httpx.LocalProtocolError("Illegal header value b'Bearer secret'")

    with (
        ReplayClient("http://127.0.0.1:9", run="walker", attempts=1, transport=httpx.MockTransport(refuse)) as client,
        pytest.raises(ApiUnavailableError) as refused,
    ):
        client.limits()
    assert "secret" not in "".join(traceback.format_exception(refused.value))


def test_back_off_grows_with_jitter_up_to_its_maximum() -> None:
    backoff = Backoff(first_seconds=1.0, maximum_seconds=8.0)
    waits = [backoff.next_seconds() for _ in range(200)]
    assert waits[0] <= 1.0
    assert waits[1] <= 2.0
    assert 4.0 < max(waits) <= 8.0
    assert min(waits[10:]) < 2.0
    backoff.reset()
    assert backoff.next_seconds(at_least=3.0) <= 4.0
