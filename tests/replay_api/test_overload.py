"""More than the service can hold: the rest is told when to come back, and memory stays where it is."""

from __future__ import annotations

import os
import re
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Any

import httpx
import psutil
import pytest

from gaitfleet import codec
from gaitfleet.client import ReplayClient
from gaitfleet.command.processes import free_port
from gaitfleet.episode import encode_episode
from gaitfleet.errors import LimitedError
from gaitfleet.wire import PriorityUpdate, TrainerProgress, WorkerReport
from replay_api.handlers.measuring import PARSED
from replay_api.services.retention import Retention
from replay_api.settings import Settings
from tests.conftest import serve
from tests.faults.observed import until
from tests.replay_api.fleet import Fleet, experiment_of

MIB = 1 << 20
INFLIGHT_BYTES = 64 * MIB
BODY_BYTES = 8 * MIB
PLACES = 4
"""Episodes of at most 16 MiB, decompressed, that fit."""


@pytest.fixture(scope="module")
def server(mongodb_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, psutil.Process]]:
    """A server process with little room, and its address."""
    directory, port = tmp_path_factory.mktemp("overload"), free_port()
    limits = {"MAX_INFLIGHT_BYTES": INFLIGHT_BYTES, "MAX_DECOMPRESSED_BYTES": INFLIGHT_BYTES // PLACES}
    given = limits | {
        "AUTHENTICATION": "none",
        "PORT": port,
        "MONGODB_URI": mongodb_uri,
        "MONGODB_DATABASE": "test-overload",
        "CHECKPOINT_STORE": f"directory:{directory}",
    }
    environment = os.environ | {f"GAITFLEET_REPLAY_API_{name}": str(value) for name, value in given.items()}
    process = subprocess.Popen([sys.executable, "-m", "replay_api"], env=environment)
    url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 60
    try:
        while True:
            with suppress(httpx.TransportError):
                if httpx.get(f"{url}/health/ready").is_success:
                    break
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.1)
        yield url, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(30)


def connect(url: str) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=30)


def send_part(url: str, path: str, part: bytes, content_type: str, more: str = "") -> socket.socket:
    """A connection on which a post of `BODY_BYTES` has begun and does not end; `more` are header lines."""
    connection = connect(url)
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {content_type}\r\n{more}"
    connection.sendall(f"{head}Content-Length: {BODY_BYTES}\r\n\r\n".encode() + part)
    return connection


def received(connection: socket.socket) -> bytes:
    """All that comes until the other side disconnects."""
    pieces = []
    with suppress(ConnectionError):  # it does so while more is sent
        while piece := connection.recv(1 << 16):
            pieces.append(piece)
    return b"".join(pieces)


def test_a_head_without_end_is_not_kept(server: tuple[str, psutil.Process]) -> None:
    url, process = server
    before = process.memory_info().rss
    with connect(url) as connection:
        connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n")
        with pytest.raises(ConnectionError):
            connection.sendall(100 * (b"x: " + b"a" * MIB + b"\r\n"))
    assert process.memory_info().rss - before < 32 * MIB
    with connect(url) as connection:  # in pieces, but not too long
        connection.sendall(b"GET /health/live HTTP/1.1\r\n")
        time.sleep(0.1)
        connection.sendall(b"x: " + b"a" * 60_000 + b"\r\nHost: 127.0.0.1\r\n")
        time.sleep(0.1)
        connection.sendall(b"Connection: close\r\n\r\n")
        assert received(connection).startswith(b"HTTP/1.1 200")


def test_few_requests_wait_for_the_answer_to_another(server: tuple[str, psutil.Process]) -> None:
    url, _ = server
    question = b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with connect(url) as connection:
        connection.sendall(5 * question)
        answers = b""
        while answers.count(b'"alive"') < 5:
            answers += connection.recv(1 << 16)
        connection.sendall(10_000 * question)
        assert received(connection).count(b'"alive"') < 100


def test_a_connection_without_a_whole_head_is_closed_and_a_long_answer_is_not(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("replay_api.handlers.protocol.HEAD_SECONDS", 0.5)
    with serve(settings) as url, Fleet(url) as fleet:
        for part in (b"", b"\r\n", b"GET /health/live HTTP/1.1\r\n"):
            with connect(url) as connection:
                connection.sendall(part)
                assert received(connection) == b""
        with connect(url) as connection:
            began = time.monotonic()
            connection.sendall(
                f"GET {fleet.path}/policy?wait=2 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nGET /health".encode()
            )
            assert received(connection).startswith(b"HTTP/1.1 404")
            assert time.monotonic() - began > 2


def test_beyond_the_budget_posts_are_told_to_come_back_and_memory_stays(server: tuple[str, psutil.Process]) -> None:
    url, process = server
    with ExitStack() as stack, Fleet(url) as fleet:
        assert fleet.post(fleet.play()).status_code == 201
        before = process.memory_info().rss
        half = bytes(BODY_BYTES // 2)
        begun = [
            stack.enter_context(send_part(url, f"{fleet.path}/episodes", half, "application/x-safetensors"))
            for _ in range(PLACES)
        ]
        with ThreadPoolExecutor(20) as threads:
            answers = list(threads.map(lambda _: fleet.post(bytes(BODY_BYTES)), range(60)))
        assert {answer.status_code for answer in answers} == {429}
        assert {answer.headers["retry-after"] for answer in answers} == {"1"}
        assert {answer.json()["reason"] for answer in answers} == {"busy"}
        assert process.memory_info().rss - before < 2 * INFLIGHT_BYTES  # all bodies are 480 MiB
        for connection in begun:
            connection.sendall(half)
        assert [connection.recv(12) for connection in begun] == [b"HTTP/1.1 422"] * PLACES
        assert fleet.post(fleet.play()).status_code == 201


def test_more_episodes_than_the_database_can_be_waited_for_are_refused_unread(settings: Settings) -> None:
    few = settings.model_copy(update={"max_concurrent_episodes": 3})
    with serve(few) as url, Fleet(url) as fleet, ExitStack() as stack:
        path, kind = f"{fleet.path}/episodes", "application/x-safetensors"
        begun = [stack.enter_context(send_part(url, path, bytes(MIB), kind)) for _ in range(4)]
        (refused,) = select.select(begun, [], [], 30)[0]
        assert refused.recv(12) == b"HTTP/1.1 429"
        assert fleet.post(fleet.play()).json()["detail"].startswith("3 of 3 episodes are being worked on")
        begun[begun[0] is refused].close()
        until(lambda: fleet.post(fleet.play()).status_code == 201, "a place that was left is not given again")


def test_whoever_was_told_to_wait_is_answered_before_the_body(settings: Settings) -> None:
    few = settings.model_copy(update={"max_concurrent_episodes": 1})
    with serve(few) as url, Fleet(url) as fleet, ReplayClient(url, run=fleet.run, attempts=1) as client:
        assert fleet.post(fleet.play()).status_code == 201  # the run is open
        frame = codec.compress(encode_episode(fleet.play()))
        path, kind, question = f"{fleet.path}/episodes", "application/x-safetensors", "Expect: 100-continue\r\n"
        with send_part(url, path, b"part", kind):
            # that of who asks for the metrics is one of them
            until(lambda: "rl_api_inflight_requests 2.0" in httpx.get(f"{url}/metrics").text, "the post does not begin")
            with send_part(url, path, b"", kind, question) as asking:
                assert asking.recv(12) == b"HTTP/1.1 429"
            for _ in range(2):
                with pytest.raises(LimitedError, match="1 of 1 episodes"):
                    client.post_frame(frame)
        until(lambda: fleet.post(b"x").status_code == 422, "the place that was left is not given again")
        with send_part(url, path, b"", kind, question) as asking:
            assert asking.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        until(lambda: fleet.post(b"x").status_code == 422, "the place that was left is not given again")
        assert client.post_frame(frame).stored


def test_json_beyond_the_budget_waits_too(server: tuple[str, psutil.Process]) -> None:
    url, process = server
    with ExitStack() as stack, Fleet(url) as fleet:
        before = process.memory_info().rss
        path, part = f"{fleet.path}/priorities", bytes(3 * MIB)
        begun = [stack.enter_context(send_part(url, path, part, "application/json")) for _ in range(40)]
        refused: set[socket.socket] = set()
        deadline = time.monotonic() + 60
        while len(refused) < 39:  # parsed, one may fill the budget
            assert time.monotonic() < deadline, f"{len(refused)} are refused"
            refused |= set(select.select([one for one in begun if one not in refused], [], [], 1)[0])
        assert {connection.recv(12) for connection in refused} == {b"HTTP/1.1 429"}
        assert process.memory_info().rss - before < INFLIGHT_BYTES  # all bodies are 120 MiB, and parsed far more
    with Fleet(url) as fleet:
        assert fleet.lease().status_code == 200


def test_one_update_of_priorities_is_taken_although_it_fills_the_budget(server: tuple[str, psutil.Process]) -> None:
    url, _ = server
    with Fleet(url, experiment_of(replay={"sampling": "prioritized"})) as fleet:
        index = list(range(1 << 53, (1 << 53) + 65_536))
        update = PriorityUpdate(index=index, priority=[1 / 3] * len(index))
        body = update.model_dump_json()
        assert PARSED * len(body) > INFLIGHT_BYTES
        answer = fleet.http.post(f"{fleet.path}/priorities", content=body, headers={"Content-Type": "application/json"})
        assert answer.json() == {"updated": 0, "evicted": 65_536}


def test_what_workers_and_trainers_send_every_few_seconds_has_64_kib(fleet: Fleet) -> None:
    numbers: dict[str, Any] = dict.fromkeys(
        ("simulators", "policy_version", "environment_steps", "episodes", "spooled"), 1
    )
    kinds = [first + second + "_" * 48 for first in "abcde" for second in "abcdefghij"]
    report = WorkerReport(role="train", failures=dict.fromkeys(kinds, 2**53 - 1), **numbers)
    progress = TrainerProgress(
        updates=1, updates_per_second=0.1, losses={f"{name:x>100}": 1 / 3 for name in range(100)}
    )
    path = f"{fleet.path}/workers/w"
    assert fleet.http.put(path, json=report.model_dump()).status_code == 200
    assert fleet.lease(progress=progress.model_dump()).status_code == 200
    for method, place in (("PUT", "/workers/w"), ("POST", "/lease"), ("POST", "/batches"), ("PATCH", "/limits")):
        answer = fleet.http.request(method, fleet.path + place, json={str(key): 0 for key in range(8000)})
        assert (answer.status_code, answer.json()["reason"]) == (413, "too_large"), place


def test_a_body_that_never_ends_gives_its_place_back(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replay_api.handlers.bodies.BODY_SECONDS", -11.5)  # and a second for each of 12 MiB
    with serve(settings) as url, Fleet(url) as fleet:
        with send_part(url, f"{fleet.path}/episodes", bytes(MIB), "application/x-safetensors") as connection:
            answer = connection.recv(4096)
        assert answer.startswith(b"HTTP/1.1 429")
        assert b"retry-after: 2" in answer.lower()
        assert fleet.status()["rejected"] == {"slow": 1}


def test_json_that_never_ends_gives_its_place_back(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replay_api.handlers.measuring.BODY_SECONDS", 0.5)
    with serve(settings) as url, Fleet(url) as fleet:
        with send_part(url, f"{fleet.path}/lease", b"{", "application/json") as connection:
            answer = connection.recv(4096)
        assert answer.startswith(b"HTTP/1.1 429")
        assert b"retry-after: 2" in answer.lower()
        assert fleet.lease().status_code == 200


def test_a_body_of_an_unknown_sender_is_not_read(settings: Settings) -> None:
    """What is not JSON is told only to those who may speak."""
    guarded = settings.model_copy(update={"authentication": "token"})
    with serve(guarded) as url:
        answer = httpx.post(f"{url}/v1/runs/run/lease", content=b"{", headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")


def test_lag_by_work_of_its_own_is_told_from_waiting_for_a_core(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spin(seconds: float) -> None:
        ends = time.thread_time() + seconds
        while time.thread_time() < ends:
            pass

    def late(metrics: str, name: str) -> float:
        counts = dict(re.findall(rf'rl_api_event_loop_{name}_seconds_bucket{{le="(.*)"}} (.*)', metrics))
        return float(counts["+Inf"]) - float(counts["0.2"])

    with serve(settings) as url, Fleet(url) as fleet:
        counted = [[late(httpx.get(f"{url}/metrics").text, name) for name in ("lag", "busy")]]
        for wait in (spin, time.sleep):  # asleep, it does nothing, as one that waits for a core
            monkeypatch.setattr(Retention, "consider", lambda *_, wait=wait: wait(0.3))
            assert fleet.post(fleet.play()).status_code == 201
            counted.append([late(httpx.get(f"{url}/metrics").text, name) for name in ("lag", "busy")])
    (_, before), (lag_busy, busy), (lag_asleep, asleep) = counted
    assert busy > before
    assert lag_asleep > lag_busy
    assert asleep == busy
