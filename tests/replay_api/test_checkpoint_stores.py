"""One contract, three stores: a directory, moto's S3, and SeaweedFS."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from replay_api.errors import UnavailableError
from replay_api.metrics import Metrics
from replay_api.settings import Settings
from replay_api.storage import objects
from replay_api.storage.checkpoint_store import open_store
from replay_api.storage.objects import CheckpointStore, ObjectExistsError, ObjectMissingError


@pytest.fixture(params=["directory", "moto", "seaweedfs"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[CheckpointStore]:
    changes: dict[str, Any] = {"checkpoint_store": f"directory:{tmp_path / 'objects'}"}
    if request.param != "directory":
        changes = request.getfixturevalue(request.param)
    async with open_store(Settings(authentication="none", **changes), Metrics()) as opened:
        yield opened


async def test_an_object_is_written_once_and_read_whole(store: CheckpointStore) -> None:
    body = bytes(range(256)) * 4096
    await store.put_new("runs/a/1-1.safetensors", bytearray(body))
    assert await store.get("runs/a/1-1.safetensors") == body
    with pytest.raises(ObjectExistsError):
        await store.put_new("runs/a/1-1.safetensors", b"other")
    assert await store.get("runs/a/1-1.safetensors") == body
    await store.check()


async def test_of_sixteen_writers_of_one_key_one_wins(store: CheckpointStore) -> None:
    bodies = [f"writer {i}".encode() for i in range(16)]
    results = await asyncio.gather(*(store.put_new("runs/race/key", body) for body in bodies), return_exceptions=True)
    winners = [body for body, result in zip(bodies, results, strict=True) if result is None]
    assert len(winners) == 1
    assert all(result is None or isinstance(result, ObjectExistsError) for result in results)
    assert await store.get("runs/race/key") == winners[0]


async def test_objects_are_listed_by_prefix_and_deleted(store: CheckpointStore) -> None:
    for key in ("runs/list/1", "runs/list/2", "runs/list2/1"):
        await store.put_new(key, b"x")
    assert sorted([key async for key in store.find("runs/list/")]) == ["runs/list/1", "runs/list/2"]
    await store.delete("runs/list/1")
    await store.delete("runs/list/1")
    assert [key async for key in store.find("runs/list/")] == ["runs/list/2"]
    assert [key async for key in store.find("runs/nothing/")] == []
    with pytest.raises(ObjectMissingError):
        await store.get("runs/list/1")


async def test_a_store_that_is_away_is_told_as_unavailable() -> None:
    away = Settings(authentication="none", checkpoint_store="s3://bucket/prefix", s3_endpoint_url="http://127.0.0.1:9")
    async with open_store(away, Metrics()) as opened:
        with pytest.raises(UnavailableError, match="the checkpoint store did not get"):
            await opened.get("runs/a/1")


def within(directory: Path) -> Settings:
    return Settings(authentication="none", checkpoint_store=f"directory:{directory}")


def at(port: int) -> Settings:
    return Settings(
        authentication="none",
        checkpoint_store="s3://bucket/prefix",
        s3_endpoint_url=f"http://127.0.0.1:{port}",
        s3_access_key_id=SecretStr("key"),
        s3_secret_access_key=SecretStr("secret"),
    )


async def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "STORE_SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the kernel takes connections, nobody reads
        async with open_store(at(silent.getsockname()[1]), Metrics()) as opened:
            with pytest.raises(UnavailableError, match="did not put"):
                await opened.put_new("runs/a/1", b"x")


@contextmanager
def answering(*answers: bytes) -> Iterator[Settings]:
    """An S3 server that says the same to everybody, with a pause between its parts, and hangs up."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            for number, answer in enumerate(answers):
                time.sleep(0.6 if number else 0.0)
                self.wfile.write(answer)
            self.close_connection = True

        do_PUT = do_GET

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield at(server.server_port)
        server.shutdown()


async def test_a_body_that_breaks_off_is_told_as_unavailable() -> None:
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf of it") as settings:
        async with open_store(settings, Metrics()) as opened:
            with pytest.raises(UnavailableError, match="the checkpoint store did not get"):
                await opened.get("runs/a/1")


@pytest.fixture
def slow_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """A moment for an operation, and one more for every kilobyte."""
    monkeypatch.setattr(objects, "STORE_SECONDS", 0.3)
    monkeypatch.setattr(objects, "BODY_BYTES_PER_SECOND", 1000)


@pytest.mark.usefixtures("slow_store")
async def test_a_large_object_is_given_the_time_that_its_bytes_may_take() -> None:
    with answering(b"", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as settings:
        async with open_store(settings, Metrics()) as opened:
            await opened.put_new("runs/a/1", bytes(10_000))
            with pytest.raises(UnavailableError, match="did not put"):
                await opened.put_new("runs/a/1", b"x")
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n", bytes(10_000)) as settings:
        async with open_store(settings, Metrics()) as opened:
            assert len(await opened.get("runs/a/1")) == 10_000


@pytest.mark.usefixtures("slow_store")
async def test_a_disk_that_hangs_is_given_up_and_holds_up_no_other_work(tmp_path: Path) -> None:
    """Who opens a pipe to read waits until somebody writes."""
    metrics = Metrics()
    async with open_store(within(tmp_path), metrics) as opened:
        await opened.put_new("runs/a/1", b"x")
        os.mkfifo(tmp_path / "runs/a/hangs")
        try:
            for _ in range(2):
                answers = await asyncio.gather(*(opened.get("runs/a/hangs") for _ in range(10)), return_exceptions=True)
                assert all(isinstance(answer, UnavailableError) for answer in answers)
            async with asyncio.timeout(10):
                await asyncio.gather(*(asyncio.to_thread(int) for _ in range(10)))
        finally:
            os.close(os.open(tmp_path / "runs/a/hangs", os.O_WRONLY | os.O_NONBLOCK))
        assert await opened.get("runs/a/1") == b"x"
    assert metrics.registry.get_sample_value("rl_s3_errors_total", {"op": "get", "code": "TimeoutError"}) == 20


@pytest.mark.usefixtures("slow_store")
async def test_a_large_file_is_given_the_time_that_its_bytes_may_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: time.sleep(0.4))
    async with open_store(
        Settings(authentication="none", checkpoint_store=f"directory:{tmp_path}"), Metrics()
    ) as opened:
        await opened.put_new("large", bytes(10_000))
        with pytest.raises(UnavailableError, match="did not put"):
            await opened.put_new("small", b"x")


async def test_probes_of_a_disk_that_hangs_take_one_thread_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, hangs = list[Path](), threading.Event()

    def access(path: Path, mode: int) -> bool:
        asked.append(path)
        return hangs.wait(30)

    async with open_store(
        Settings(authentication="none", checkpoint_store=f"directory:{tmp_path}"), Metrics()
    ) as opened:
        monkeypatch.setattr(os, "access", access)
        try:
            for _ in range(5):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.1):
                        await opened.check()
            assert len(asked) == 1
        finally:
            hangs.set()
        await opened.check()


async def test_whether_the_bucket_answers_is_asked_once_a_second(
    moto: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = Metrics()

    def asked() -> float | None:
        return metrics.registry.get_sample_value("rl_s3_request_duration_seconds_count", {"op": "check"})

    async with open_store(Settings(authentication="none", **moto), metrics) as opened:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):  # a probe that is given up at once
                await opened.check()
        await asyncio.gather(*(opened.check() for _ in range(20)))
        await opened.check()
        assert asked() == 1
        monkeypatch.setattr("replay_api.storage.shared_check.CHECK_KEPT_SECONDS", 0.0)
        await opened.check()
        assert asked() == 2


async def test_a_conflict_with_another_upload_does_not_count_as_stored() -> None:
    error = b"<Error><Code>ConditionalRequestConflict</Code><Message>try again</Message></Error>"
    head = f"HTTP/1.1 409 Conflict\r\nContent-Type: application/xml\r\nContent-Length: {len(error)}\r\n\r\n"
    with answering(head.encode() + error) as settings:
        async with open_store(settings, Metrics()) as opened:
            with pytest.raises(UnavailableError, match="ConditionalRequestConflict"):
                await opened.put_new("runs/a/1", b"x")


async def test_no_key_leads_out_of_the_directory(tmp_path: Path) -> None:
    async with open_store(within(tmp_path), Metrics()) as opened:
        with pytest.raises(ValueError, match="leads out of the store"):
            await opened.get("../outside")


async def test_a_torn_file_is_never_seen_and_an_old_one_is_removed_at_the_next_start(tmp_path: Path) -> None:
    async with open_store(within(tmp_path), Metrics()) as opened:
        await opened.put_new("runs/a/1", b"x")
        young, old, gone = (tmp_path / f"runs/a/.new-7-{name}" for name in ("young", "old", "gone"))
        young.write_bytes(b"half")
        old.write_bytes(b"half")
        os.utime(old, (0, 0))
        gone.symlink_to("nothing")  # is listed, and is not there: another process has ended its writing meanwhile
        assert [key async for key in opened.find("runs/a/")] == ["runs/a/1"]
    async with open_store(within(tmp_path), Metrics()) as opened:
        assert await opened.get("runs/a/1") == b"x"
    assert (young.exists(), old.exists()) == (True, False)
