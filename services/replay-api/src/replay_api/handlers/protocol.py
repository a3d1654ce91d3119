"""How much one connection may hold before a request reaches the application, and for how long.

uvicorn keeps a head without end, waits without end for a first request, and queues every request that is sent before
the one before it is answered (HTTP pipelining): all without a token.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 1 << 16
"""Bytes of a request's line and header lines, beside what came with the first read. httptools takes no longer URL."""

HEAD_SECONDS = 30.0
"""Time in s for a head to arrive, and for a new connection to send one."""

MAX_QUEUED_REQUESTS = 8
"""Requests of a connection that wait while another is answered. Clients in use wait for each answer and have none."""


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with bounds on heads, idle time and pipelining; who breaks one is disconnected."""

    _in_head = False
    _head_bytes = 0  # in reads after the one in which it began
    _read_bytes = 0
    _due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._read_bytes = len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self.send_400_response("The head of the request is too long.")
                return
            self._expect_head()
        elif self.cycle is not None and self.cycle.response_complete:
            # The rest of a body that nobody reads, or empty lines: every read ends uvicorn's wait for the next request.
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = -self._read_bytes  # the rest of this read may be the end of another body

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._stop_waiting()
        if len(self.pipeline) >= MAX_QUEUED_REQUESTS:
            raise ValueError("too many pipelined requests")  # uvicorn answers 400 and disconnects
        super().on_headers_complete()

    def _expect_head(self) -> None:
        if self._due is None:
            self._due = self.loop.call_later(HEAD_SECONDS, self._head_is_due)

    def _stop_waiting(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def _head_is_due(self) -> None:
        self._due = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
        else:  # reading may be paused until the request before it is answered
            self._expect_head()
