"""Answers of batches on their way into the trainer's memory."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaitfleet import codec
from gaitfleet.batch import BATCHES_KEY, BatchBuffer, BatchesMetadata, batch_specs, decode_batches
from gaitfleet.client.bulk import WAIT_BYTES, BulkConnection
from gaitfleet.errors import ApiUnavailableError, CodecError


def answer(batches: int, batch_size: int, own: int | None, seed: int) -> bytes:
    """An answer as the replay API lays it out."""
    specs = batch_specs(batches, batch_size, 5, 2)
    metadata = {} if own is None else {BATCHES_KEY: BatchesMetadata(sources={"run": own}).model_dump_json()}
    numbers = np.random.default_rng(seed).integers(0, 255, sum(spec.nbytes for spec in specs.values()), np.uint8)
    return codec.header(specs, metadata) + numbers.tobytes()


answers = st.builds(answer, st.integers(1, 3), st.integers(1, 4), st.sampled_from([None, 1]), st.integers(0, 9))


@given(st.lists(answers, min_size=1, max_size=6), st.integers(0, 1000))
def test_answers_received_into_one_memory_decode_as_each_alone(bodies: list[bytes], nbytes: int) -> None:
    buffer = BatchBuffer(nbytes)
    for body in bodies:
        view = memoryview(bytearray(body))
        if len(body) <= nbytes:
            buffer.memory[: len(body)] = body
            view = memoryview(buffer.memory)[: len(body)]
        alone = decode_batches(body)
        together = buffer.decode(view)
        assert [batch.sources for batch in together] == [batch.sources for batch in alone]
        for one, other in zip(together, alone, strict=True):
            for mine, expected in zip(one.arrays(), other.arrays(), strict=True):
                assert mine.tobytes() == expected.tobytes()


def test_an_answer_that_ends_early_is_refused_though_its_header_is_known() -> None:
    body = answer(2, 4, None, 0)
    buffer = BatchBuffer(len(body))
    buffer.memory[:] = body
    buffer.decode(memoryview(buffer.memory))
    with pytest.raises(CodecError, match="ends at byte"):
        buffer.decode(memoryview(buffer.memory)[:-1])


@contextmanager
def serving(body: bytes, sent: int, piece: int) -> Iterator[str]:
    """A server that sends the first bytes of a body in pieces, and then closes the connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode())
                for start in range(0, sent, piece):
                    connection.sendall(body[start : min(sent, start + piece)])

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join(10)


@pytest.mark.parametrize("size", [0, 1, 2 * WAIT_BYTES, 2 * WAIT_BYTES + 1, 5 * WAIT_BYTES + 77])
@pytest.mark.parametrize("piece", [1 << 14, 1 << 20])
def test_a_body_of_any_size_arrives_whole(size: int, piece: int) -> None:
    body = np.random.default_rng(size).bytes(size)
    with serving(body, size, piece) as url:
        assert BulkConnection(url, timeout_seconds=10).request("GET", "/", body=None, headers={}).body == body


@pytest.mark.parametrize("sent", [10, WAIT_BYTES + 10, 4 * WAIT_BYTES])
def test_a_body_that_is_cut_off_is_an_error_and_no_wait(sent: int) -> None:
    with serving(bytes(5 * WAIT_BYTES), sent, 1 << 16) as url:
        connection = BulkConnection(url, timeout_seconds=300)
        with pytest.raises(ApiUnavailableError, match="IncompleteRead"):
            connection.request("GET", "/", body=None, headers={})


def test_the_timeout_is_for_a_piece_of_a_body_and_not_for_all_of_it() -> None:
    body = bytes(16 << 20)
    read = 0
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            nonlocal read
            connection, _ = listener.accept()
            with connection:
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    head += connection.recv(1)
                assert f"Content-Length: {len(body)}\r\n".encode() in head
                while read < len(body):
                    read += len(connection.recv(1 << 19, socket.MSG_WAITALL))
                    time.sleep(0.1)
                connection.sendall(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        connection = BulkConnection(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout_seconds=1.5)
        assert connection.request("PUT", "/", body=body, headers={}).status == 201
        connection.close()
        thread.join(10)
    assert read == len(body)
