"""The limit that sampling is held against: numpy gathers, `sendall` sends, one thread a connection."""

from __future__ import annotations

import socket
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gaitfleet.batch import FIELDS, batch_specs
from gaitfleet.client.bulk import WAIT_BYTES

BATCH_SIZE = 256


def send_bare(observation_size: int, action_size: int, transitions: int, port_file: Path) -> None:
    """Gather and send whatever each connection asks for: two bytes, the batches and whether they are float16."""
    random = np.random.default_rng(0)
    source: dict[str, npt.NDArray[Any]] = {
        "index": np.arange(transitions),
        "policy_version": np.zeros(transitions, np.int64),
        "observation": random.normal(size=(transitions + 1, observation_size)).astype(np.float32),
        "action": random.normal(size=(transitions, action_size)).astype(np.float32),
        "reward": random.normal(size=transitions).astype(np.float32),
        "discount": np.ones(transitions, np.float32),
        "weight": np.ones(transitions, np.float32),
        "return_so_far": np.ones(transitions, np.float32),
    }
    server = socket.create_server(("127.0.0.1", 0))
    port_file.write_text(str(server.getsockname()[1]))
    while True:
        connection, _ = server.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sizes = observation_size, action_size, transitions
        threading.Thread(target=_send_to, args=(connection, source, *sizes), daemon=True).start()


def _send_to(
    connection: socket.socket,
    source: dict[str, npt.NDArray[Any]],
    observation_size: int,
    action_size: int,
    transitions: int,
) -> None:
    random = np.random.default_rng()
    while asked := connection.recv(2):
        specs = batch_specs(1, BATCH_SIZE, observation_size, action_size, half_precision=bool(asked[1]))
        size = sum(spec.nbytes for spec in specs.values())
        for _ in range(asked[0]):
            buffer = np.empty(size, np.uint8)
            chosen = random.integers(0, transitions, BATCH_SIZE)
            offset = 0
            for name, spec in zip(FIELDS, specs.values(), strict=True):
                target = buffer[offset : offset + spec.nbytes].view(spec.dtype).reshape(spec.shape)
                following = name == "next_observation"
                column = source["observation" if following else name]
                at = chosen + following
                if target.dtype == column.dtype:
                    np.take(column, at, axis=0, out=target, mode="clip")
                else:
                    target[:] = np.take(column, at, axis=0, mode="clip")
                offset += spec.nbytes
            connection.sendall(buffer.data)


class BareReader:
    """Reads what the bare sender sends, `batches` batches at a time."""

    def __init__(self, port: int, observation_size: int, action_size: int) -> None:
        # with a timeout a read waits first and then takes what is there, as the client does; without one it would take
        # a part, wait for the whole of SO_RCVLOWAT once more, and never see it
        self._connection = socket.create_connection(("127.0.0.1", port), timeout=60)
        self._sizes = observation_size, action_size

    def read(self, batches: int, half_precision: bool, buffer: bytearray) -> None:
        specs = batch_specs(batches, BATCH_SIZE, *self._sizes, half_precision=half_precision)
        view = memoryview(buffer)[: sum(spec.nbytes for spec in specs.values())]
        self._connection.sendall(bytes([batches, half_precision]))
        filled = 0
        while filled < len(view):
            at_least = min(WAIT_BYTES, len(view) - filled)  # as the client that it is compared with
            self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, at_least)
            filled += self._connection.recv_into(view[filled:])

    def close(self) -> None:
        self._connection.close()


if __name__ == "__main__":
    *sizes, port_file = sys.argv[1:]
    send_bare(*map(int, sizes), port_file=Path(port_file))
