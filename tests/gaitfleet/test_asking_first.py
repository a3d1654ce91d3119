"""Whoever was told to wait asks before it sends the next body (`tests/replay_api/test_overload.py`: the real API)."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from uuid import uuid4

import pytest

from gaitfleet import codec
from gaitfleet.client import ReplayClient
from gaitfleet.errors import ApiUnavailableError, LimitedError, RejectedError

EPISODE = uuid4()
FRAME = codec.compress(bytes(range(256)) * 8)
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def answer(status: int, **content: object) -> bytes:
    body = json.dumps(content).encode()
    return f"HTTP/1.1 {status} Scripted\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


STORED = answer(201, episode_id=str(EPISODE), stored=True, transitions=1)
BUSY = answer(429, detail="no room", reason="busy")
HEAD = b"\r\n\r\n"

Step = tuple[bytes, bytes] | None


class RawServer:
    """Waits until what it has heard ends in a certain way, and answers it; one such pair after the other. None closes
    the connection.

    `heard` is what came on each connection.
    """

    def __init__(self, *script: Step) -> None:
        self.heard: list[bytes] = []
        self._script = list(script)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with suppress(OSError):  # until it is closed
            while True:
                connection, _ = self._listener.accept()
                with connection, suppress(ConnectionError):  # a client may leave before it has read all
                    self.heard.append(b"")
                    self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        while piece := connection.recv(1 << 16):
            self.heard[-1] += piece
            if self._script and self._script[0] and self.heard[-1].endswith(self._script[0][0]):
                connection.sendall(self._script[0][1])
                self._script.pop(0)
            if self._script[:1] == [None]:
                self._script.pop(0)
                return

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)


@pytest.fixture
def served(request: pytest.FixtureRequest) -> Iterator[tuple[RawServer, ReplayClient]]:
    server = RawServer(*request.param)
    with ReplayClient(server.url, run="walker", timeout_seconds=30.0, attempts=1) as client:
        with pytest.raises(LimitedError):
            client.post_frame(FRAME)
        yield server, client
    server.close()


def scripted(*script: Step, first: bytes = BUSY) -> pytest.MarkDecorator:
    """A client whose first body was answered by `first`, and what its server says then."""
    return pytest.mark.parametrize("served", [((FRAME, first), *script)], indirect=True, ids=["scripted"])


@scripted((HEAD, BUSY), (HEAD, BUSY), (HEAD, CONTINUE), (FRAME, STORED), (FRAME, STORED))
def test_only_the_first_refusal_costs_a_body(served: tuple[RawServer, ReplayClient]) -> None:
    server, client = served
    for _ in range(2):
        with pytest.raises(LimitedError, match="no room"):
            client.post_frame(FRAME)
    for _ in range(2):  # accepted again, it does not ask any more
        assert client.post_frame(FRAME).episode_id == EPISODE
    heard = b"".join(server.heard)
    assert heard.count(FRAME) == 3
    assert [b"Expect" in one for one in heard.split(b"POST ")[1:]] == [False, True, True, True, False]


@scripted((HEAD, answer(422, detail="never")), (FRAME, STORED))
def test_a_refusal_for_good_says_why_without_the_body(served: tuple[RawServer, ReplayClient]) -> None:
    server, client = served
    with pytest.raises(RejectedError, match="never"):
        client.post_frame(FRAME)
    assert client.post_frame(FRAME).stored
    assert b"".join(server.heard).count(FRAME) == 2


@scripted((FRAME, STORED))
def test_a_server_that_does_not_know_the_question_gets_the_body(served: tuple[RawServer, ReplayClient]) -> None:
    _, client = served
    assert client.post_frame(FRAME).stored


@scripted((HEAD, answer(429)[:12]), None)
def test_an_answer_that_ends_in_its_head_is_an_api_that_is_away(served: tuple[RawServer, ReplayClient]) -> None:
    server, client = served
    with pytest.raises(ApiUnavailableError, match="head has no end"):
        client.post_frame(FRAME)
    assert b"".join(server.heard).count(FRAME) == 1


@scripted((HEAD, b"HTTP/1.1 200 OK\r\nX: " + bytes(100_000)))
def test_a_head_without_end_is_an_api_that_is_away(served: tuple[RawServer, ReplayClient]) -> None:
    _, client = served
    with pytest.raises(ApiUnavailableError, match="head has no end"):
        client.post_frame(FRAME)


@scripted((HEAD, b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 100\r\n\r\n"), (FRAME, STORED))
def test_other_interim_answers_are_passed_over(served: tuple[RawServer, ReplayClient]) -> None:
    _, client = served
    assert client.post_frame(FRAME).stored


@scripted((HEAD, answer(417)), (FRAME, STORED))
def test_whoever_refuses_the_question_itself_gets_the_body_without_it(served: tuple[RawServer, ReplayClient]) -> None:
    server, client = served
    assert client.post_frame(FRAME).stored
    assert [b"Expect" in one for one in b"".join(server.heard).split(b"POST ")[1:]] == [False, True, False]


@scripted((FRAME, STORED), first=answer(429, reason="inserts_limited"))
def test_a_refusal_for_which_the_body_was_read_is_not_asked_about(served: tuple[RawServer, ReplayClient]) -> None:
    server, client = served
    assert client.post_frame(FRAME).stored
    assert b"Expect" not in b"".join(server.heard)
