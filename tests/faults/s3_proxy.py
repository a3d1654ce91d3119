"""An HTTP proxy in front of a real S3 server, which answers some requests itself."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

_ERROR = "<?xml version='1.0'?><Error><Code>{code}</Code><Message>injected</Message></Error>"


@dataclass(frozen=True)
class Answer:
    """What is answered in the server's place.

    Parameters
    ----------
    status, code
        Of the error; 0 for none at all: the connection stays open and silent until the proxy is told otherwise.
    carried_out
        Whether the server gets the request all the same: an answer that is lost on its way back.
    """

    status: int
    code: str = ""
    carried_out: bool = False


@dataclass
class Behaviour:
    """What the proxy does at this moment: `answers` by method; others are handed on."""

    answers: dict[str, Answer] = field(default_factory=dict)
    asked: int = 0
    silence_ends: threading.Event = field(default_factory=threading.Event)

    def heal(self) -> None:
        """Hand everything on again; who was left waiting loses the connection."""
        self.answers = {}
        self.silence_ends.set()


@contextmanager
def in_front_of(endpoint_url: str) -> Iterator[tuple[str, Behaviour]]:
    """A proxy on a loopback port; its address, and what steers it."""
    target = urlsplit(endpoint_url).netloc
    behaviour = Behaviour()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def _handle(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            body = self.rfile.read(length)
            answer = behaviour.answers.get(self.command)
            if answer is None:
                self._send(*self._hand_on(body))
                return
            behaviour.asked += 1
            if answer.carried_out:
                self._hand_on(body)
            if answer.status == 0:
                behaviour.silence_ends.wait(120)
                self.close_connection = True
                return
            self._send(answer.status, {}, _ERROR.format(code=answer.code).encode())

        def _hand_on(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
            connection = http.client.HTTPConnection(target, timeout=30)
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("connection", "expect"):
                    connection.putheader(name, value)
            connection.endheaders(body)
            response = connection.getresponse()
            content = response.read()
            connection.close()
            return response.status, dict(response.getheaders()), content

        def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
            with suppress(OSError):
                self.send_response(status)
                for name, value in headers.items():
                    if name.lower() not in ("connection", "transfer-encoding", "content-length", "date", "server"):
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        do_GET = do_PUT = do_DELETE = do_POST = _handle

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", behaviour
    finally:
        behaviour.heal()
        server.shutdown()
        server.server_close()
