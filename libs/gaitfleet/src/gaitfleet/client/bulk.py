"""One kept-alive connection for bodies of megabytes."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from gaitfleet.errors import ApiUnavailableError

WAIT_BYTES = 512 << 10
"""What a read of a large body waits for."""

PIECE_BYTES = 512 << 10
"""What is sent at once of a large body: the timeout is for a piece, so that a slow network carries any body."""

_CUT = (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError)
"""How a connection looks that the server has closed."""


@dataclass(frozen=True, slots=True)
class BulkAnswer:
    """Status, Retry-After, Location and body of an answer."""

    status: int
    retry_after: str | None
    location: str | None
    body: memoryview


class BulkConnection:
    """POST and GET over http.client, reading into a given buffer.

    Parameters
    ----------
    base_url
        ``http://`` or ``https://``, host, port, optional path.
    timeout_seconds
        For connecting, for every read, and for every piece of `PIECE_BYTES` that is sent.
    """

    def __init__(self, base_url: str, *, timeout_seconds: float) -> None:
        parts = urlsplit(base_url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._prefix = parts.path.rstrip("/")
        self._connection = kind(parts.hostname or "localhost", parts.port, timeout=timeout_seconds)
        self._used = False

    def request(
        self, method: str, path: str, *, body: bytes | None, headers: Mapping[str, str], buffer: bytearray | None = None
    ) -> BulkAnswer:
        """Send a request and read the whole answer.

        Parameters
        ----------
        buffer
            Where the body goes, when it is large enough; else a new one is made. The answer's body is a view into it.

        Raises
        ------
        ApiUnavailableError
            When the connection fails, unless the server refused the request before that. A kept-alive connection that
            the server has closed meanwhile is opened again once.
        """
        while True:
            reused = self._used
            try:
                response = self._response(method, self._prefix + path, body, dict(headers))
                self._used = True
                answer, told = _read(response, buffer, self._wait_for), response.headers
                return BulkAnswer(response.status, told.get("Retry-After"), told.get("Location"), answer)
            except (http.client.HTTPException, OSError) as error:
                self.close()
                if not (reused and isinstance(error, _CUT)):
                    raise ApiUnavailableError(f"{method} {path}: {error!r}") from error

    def _response(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> http.client.HTTPResponse:
        """The answer's head. A server may refuse a body, and close the connection, before it has read all of it."""
        if body is not None:
            headers["Content-Length"] = str(len(body))
        try:
            self._connection.request(method, path, body=None if body is None else _pieces(body), headers=headers)
        except _CUT as error:
            refusal = self._refusal()
            if refusal is None:
                raise error from None
            return refusal
        return self._connection.getresponse()

    def _refusal(self) -> http.client.HTTPResponse | None:
        """What the server may have said before it cut the connection."""
        if self._connection.sock is None:  # it was never opened
            return None
        try:
            response = self._connection.getresponse()
        except (http.client.HTTPException, OSError):
            return None
        return response if response.status >= 400 else None

    def _wait_for(self, nbytes: int) -> None:
        """Let a read return when so much has arrived: a thread that is woken for every packet takes the interpreter
        from the others as often. TLS reads small records; there it would wait for bytes that never come."""
        if type(self._connection) is http.client.HTTPConnection and self._connection.sock is not None:
            self._connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, nbytes)

    def close(self) -> None:
        """Close the connection; the next request opens it again."""
        self._connection.close()
        self._used = False


def _pieces(body: bytes) -> Iterator[memoryview]:
    view = memoryview(body)
    return (view[start : start + PIECE_BYTES] for start in range(0, len(view), PIECE_BYTES))


def _read(response: http.client.HTTPResponse, buffer: bytearray | None, wait_for: Callable[[int], None]) -> memoryview:
    length = response.length
    if length is None:
        return memoryview(response.read())
    target = buffer if buffer is not None and len(buffer) >= length else bytearray(length)
    view = memoryview(target)[:length]
    filled, bulk = 0, length - 2 * WAIT_BYTES  # the end is read as it comes: less may be left than is waited for
    for end, at_least in ((bulk, WAIT_BYTES), (length, 1)):
        if filled < end:
            wait_for(at_least)
        while filled < end:
            count = response.readinto(view[filled:end])
            if count == 0:
                raise http.client.IncompleteRead(bytes(view[:filled]), length - filled)
            filled += count
    response.read()  # to the end, so that the connection can be used again
    return view
