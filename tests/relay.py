"""The way to a server: a TCP relay on a loopback port, which can be made slow, silent, or cut."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import Self

PROBE_SECONDS = 0.3
"""Interval in s at which a `Service` asks its backends whether they are ready."""

PIECE_BYTES = 1 << 16


class Relay:
    """Hands bytes on, in both directions, to the port that `target` names; in a thread of its own.

    Parameters
    ----------
    target
        Port of the server for the next connection; None: nobody is there.

    Attributes
    ----------
    delay_seconds
        Every piece of the server's answers waits for this long.
    """

    def __init__(self, target: Callable[[], int | None]) -> None:
        self._target = target
        self.delay_seconds = 0.0
        self.port = 0
        self._open: set[asyncio.StreamWriter] = set()
        self._flowing = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)
        self._started = threading.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def cut(self) -> None:
        """End every connection that is open now, in the middle of whatever it carries."""
        asyncio.run_coroutine_threadsafe(self._cut(), self._loop).result()

    def stall(self) -> None:
        """Accept connections and hand nothing on, as a network that loses every packet."""
        self._loop.call_soon_threadsafe(self._flowing.clear)

    def flow(self) -> None:
        """End what `stall` has begun."""
        self._loop.call_soon_threadsafe(self._flowing.set)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._begin())
        self._started.set()
        self._loop.run_forever()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))

    async def _begin(self) -> None:
        self._flowing.set()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]

    async def _cut(self) -> None:
        for writer in self._open:
            writer.transport.abort()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        port = self._target()
        with contextlib.suppress(OSError):
            return None if port is None else await asyncio.open_connection("127.0.0.1", port)
        return None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream = await self._connect()
        if upstream is None:
            writer.transport.abort()
            return
        both = {writer, upstream[1]}
        self._open |= both
        pumps = {
            asyncio.ensure_future(self._pump(reader, upstream[1], answering=False)),
            asyncio.ensure_future(self._pump(upstream[0], writer, answering=True)),
        }
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pumps:
            pump.cancel()
        self._open -= both
        for end in both:
            end.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answering: bool) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(PIECE_BYTES):
                if answering and self.delay_seconds:
                    await asyncio.sleep(self.delay_seconds)
                await self._flowing.wait()
                writer.write(piece)
                await writer.drain()


class Service(Relay):
    """What a Service is on Kubernetes: every connection goes to one of the backends that are ready.

    Parameters
    ----------
    backends
        Ports of replicas of the replay API.
    """

    def __init__(self, backends: Sequence[int]) -> None:
        super().__init__(self._next)
        self._backends = list(backends)
        self.ready: set[int] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def leave(self, port: int) -> None:
        """Send no further connection to a backend, as to a pod that is being deleted."""
        self._backends.remove(port)

    def join(self, port: int) -> None:
        """Send connections there again."""
        self._backends.append(port)

    def _next(self) -> int | None:
        for _ in range(len(self._backends)):
            port = self._backends.pop(0)
            self._backends.append(port)
            if port in self.ready:
                return port
        return None

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        for _ in range(len(self._backends)):  # who refuses a connection has died since it was asked
            upstream = await super()._connect()
            if upstream is not None:
                return upstream
        return None

    async def _begin(self) -> None:
        await super()._begin()
        self._probes = [asyncio.ensure_future(self._probe(port)) for port in self._backends]

    async def _probe(self, port: int) -> None:
        while True:
            ready = False
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(5):
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.write(b"GET /health/ready HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
                    ready = b" 200 " in await reader.readline()
                    writer.close()
            (self.ready.add if ready else self.ready.discard)(port)
            await asyncio.sleep(PROBE_SECONDS)
