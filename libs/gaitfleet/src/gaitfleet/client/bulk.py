"""One kept-alive connection for bodies of megabytes."""

from __future__ import annotations

import http.client
import io
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

CONTINUE_SECONDS = 1.0
"""How long a server is waited for that was asked whether it wants a body; one that does not know the question says
nothing (RFC 9110, 10.1.1)."""

MAX_HEAD_BYTES = 64 << 10
"""Of an answer."""

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
        self._timeout_seconds = timeout_seconds
        self._used = False

    def request(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None,
        headers: Mapping[str, str],
        buffer: bytearray | None = None,
        ask_first: bool = False,
    ) -> BulkAnswer:
        """Send a request and read the whole answer.

        Parameters
        ----------
        buffer
            Where the body goes, when it is large enough; else a new one is made. The answer's body is a view into it.
        ask_first
            Send the body only once the server has said that it would read it (``Expect: 100-continue``).

        Raises
        ------
        ApiUnavailableError
            When the connection fails, unless the server refused the request before that. A kept-alive connection that
            the server has closed meanwhile is opened again once.
        """
        while True:
            reused = self._used
            try:
                response = self._response(method, self._prefix + path, body, dict(headers), ask_first)
                self._used = True
                answer, told = _read(response, buffer, self._wait_for), response.headers
                if isinstance(response, _EarlyAnswer):
                    self.close()  # the server may still wait for the body
                    if response.status == http.HTTPStatus.EXPECTATION_FAILED:  # somebody on the way cannot be asked
                        ask_first = False
                        continue
                return BulkAnswer(response.status, told.get("Retry-After"), told.get("Location"), answer)
            except (http.client.HTTPException, OSError) as error:
                self.close()
                if not (reused and isinstance(error, _CUT)):
                    raise ApiUnavailableError(f"{method} {path}: {error!r}") from error

    def _response(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str], ask_first: bool
    ) -> http.client.HTTPResponse:
        """The answer's head. A server may refuse a body, and close the connection, before it has read all of it."""
        if body is not None:
            headers["Content-Length"] = str(len(body))
        if ask_first:
            headers["Expect"] = "100-continue"
        self._connection.request(method, path, headers=headers)
        if ask_first and (early := self._early_answer(method)):
            return early
        try:
            for piece in _pieces(body or b""):
                self._connection.send(piece)
        except _CUT as error:
            refusal = self._refusal()
            if refusal is None:
                raise error from None
            return refusal
        return self._connection.getresponse()

    def _early_answer(self, method: str) -> _EarlyAnswer | None:
        """The answer to a request whose body was not sent; None when it is wanted, or the server does not say."""
        sock = self._connection.sock
        sock.settimeout(min(CONTINUE_SECONDS, self._timeout_seconds))
        try:
            first = sock.recv(1)
        except TimeoutError:
            return None
        finally:
            sock.settimeout(self._timeout_seconds)
        head = _head(sock, first)
        while (status := _status(head)) != b"100" and status.startswith(b"1"):  # 103, for example
            head = _head(sock)
        if status == b"100":
            return None
        response = _EarlyAnswer(_Unread(head, sock), method=method)  # type: ignore[arg-type]
        response.begin()
        return response

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


class _EarlyAnswer(http.client.HTTPResponse):
    """An answer that came in the place of ``100 Continue``."""


class _Unread(io.RawIOBase):
    """A socket whose first bytes have been read, as `http.client` wants one."""

    def __init__(self, head: bytes, sock: socket.socket) -> None:
        self._head, self._socket = memoryview(head), sock

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        if not self._head:
            return self._socket.recv_into(buffer)
        count = min(len(buffer), len(self._head))
        buffer[:count], self._head = self._head[:count], self._head[count:]
        return count


def _head(sock: socket.socket, begun: bytes = b"") -> bytes:
    """What comes up to the end of an answer's head, and nothing of what follows it."""
    head = bytearray(begun)
    while not head.endswith(b"\r\n\r\n"):
        byte = sock.recv(1)
        if not byte and not head:
            raise ConnectionResetError("the server has closed the connection")
        if not byte or len(head) > MAX_HEAD_BYTES:
            raise http.client.HTTPException(f"the answer's head has no end: {bytes(head)!r:.100}")
        head += byte
    return bytes(head)


def _status(head: bytes) -> bytes:
    words = head.split(None, 2)
    return words[1] if len(words) > 1 else b""


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
