"""The trainer's side of a replay API on loopback, in the standard library. It can be told to fail."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np

from gaitfleet import wire
from gaitfleet.batch import Batch, batch_specs
from gaitfleet.codec import header
from gaitfleet.problems import CHECKPOINT_NOT_FOUND, CHECKPOINT_NOT_PUBLISHED, LEASE_LOST

Answer = tuple[int, dict[str, str], bytes]


@dataclass
class StubReplayApi:
    """What the API holds, and how it misbehaves.

    Parameters
    ----------
    description
        The run; None: it does not exist yet.
    batches
        Makes the n-th sampled batch, for the request that asks for it.
    held
        Whether transitions are there when their priorities come.
    limit
        Asked for each sample request; the batches allowed, 0 for 429.
    refuse
        Asked for each publication, by its step; a status instead of an answer, or None to take it.
    away
        While set, every request gets 503.
    holder
        Who holds the lease.
    leased
        Times that it was granted or renewed.
    lost
        So many more requests for the newest checkpoint do not find it, though it was published.
    others
        Newest checkpoints of other runs.
    """

    description: wire.RunDescription | None
    batches: Callable[[int, wire.BatchRequest], Batch]
    held: bool = True
    limit: Callable[[wire.BatchRequest], int] = lambda request: request.batches
    refuse: Callable[[int], int | None] = lambda step: None
    away: threading.Event = field(default_factory=threading.Event)
    holder: str | None = None
    epoch: int = 0
    stage: int = 0
    sampled: int = 0
    leased: int = 0
    released: list[int] = field(default_factory=list)
    checkpoints: dict[int, bytes] = field(default_factory=dict)
    lost: int = 0
    others: dict[str, bytes] = field(default_factory=dict)
    progress: list[wire.TrainerProgress] = field(default_factory=list)
    priorities: list[wire.PriorityUpdate] = field(default_factory=list)
    url: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def wait_for(self, condition: Callable[[StubReplayApi], bool], seconds: float = 60.0) -> None:
        """Wait until the condition holds."""
        deadline = time.monotonic() + seconds
        while not condition(self):
            assert time.monotonic() < deadline, f"not within {seconds} s; checkpoints {sorted(self.checkpoints)}"
            time.sleep(0.01)

    def give_lease_to(self, holder: str | None) -> None:
        """Another trainer takes over, or (None) leaves."""
        with self._lock:
            self.holder, self.epoch = holder, self.epoch + 1

    @contextmanager
    def serving(self) -> Iterator[StubReplayApi]:
        """Serve on a free port."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()

    def answer(self, method: str, target: str, body: bytes) -> Answer:
        """What a request gets."""
        if self.away.is_set():
            return _problem(503)
        if self.description is None:
            return _problem(404)
        url = urlsplit(target)
        query = parse_qs(url.query)
        answer = _problem(404)
        other = url.path.removeprefix("/v1/runs/").removesuffix("/checkpoints/newest")
        if other in self.others:
            return 200, {}, self.others[other]
        match method, *url.path.removeprefix(f"/v1/runs/{self.description.run}").strip("/").split("/"):
            case "GET", "":
                answer = 200, {}, self.description.model_dump_json().encode()
            case "POST", "lease":
                answer = self._lease(wire.LeaseRequest.model_validate_json(body))
            case "DELETE", "lease":
                answer = self._release(int(query["epoch"][0]))
            case "POST", "batches":
                answer = self._sample(wire.BatchRequest.model_validate_json(body))
            case "POST", "priorities":
                answer = self._prioritize(wire.PriorityUpdate.model_validate_json(body))
            case "GET", "checkpoints", "newest" if self.lost:
                self.lost -= 1
                answer = _problem(404, CHECKPOINT_NOT_FOUND)
            case "GET", "checkpoints", "newest" if self.checkpoints:
                answer = 200, {}, self.checkpoints[max(self.checkpoints)]
            case "GET", "checkpoints", "newest":
                answer = _problem(404, CHECKPOINT_NOT_PUBLISHED)
            case "PUT", "checkpoints", step:
                answer = self._publish(int(step), int(query["epoch"][0]), body)
        return answer

    def _lease(self, request: wire.LeaseRequest) -> Answer:
        with self._lock:
            if self.holder not in (None, request.holder):
                return _problem(409, LEASE_LOST)
            if self.holder is None:
                self.holder, self.epoch = request.holder, self.epoch + 1
            self.leased += 1
        if request.progress is not None:
            self.progress.append(request.progress)
        expires = datetime.now(UTC) + timedelta(seconds=request.ttl_seconds)
        lease = wire.Lease(holder=request.holder, epoch=self.epoch, expires_at=expires, stage=self.stage)
        return 200, {}, lease.model_dump_json().encode()

    def _release(self, epoch: int) -> Answer:
        if epoch != self.epoch:
            return _problem(409, LEASE_LOST)
        self.released.append(epoch)
        self.holder = None
        return 204, {}, b""

    def _sample(self, request: wire.BatchRequest) -> Answer:
        allowed = min(self.limit(request), request.batches)
        if allowed == 0:
            return _problem(429, headers={"Retry-After": "0.01"})
        with self._lock:
            first, self.sampled = self.sampled, self.sampled + allowed
        batches = [self.batches(first + k, request) for k in range(allowed)]
        sizes = (request.batch_size, batches[0].observation.shape[1], batches[0].action.shape[1])
        specs = batch_specs(allowed, *sizes, half_precision=request.half_precision)
        arrays = [array for batch in batches for array in batch.arrays()]
        cast = [array.astype(spec.dtype, copy=False) for array, spec in zip(arrays, specs.values(), strict=True)]
        return 200, {}, header(specs, {}) + b"".join(array.tobytes() for array in cast)

    def _prioritize(self, update: wire.PriorityUpdate) -> Answer:
        self.priorities.append(update)
        count = len(update.index)
        receipt = wire.PriorityReceipt(updated=count if self.held else 0, evicted=0 if self.held else count)
        return 200, {}, receipt.model_dump_json().encode()

    def _publish(self, step: int, epoch: int, body: bytes) -> Answer:
        if epoch != self.epoch:
            return _problem(409, LEASE_LOST)
        refusal = self.refuse(step)
        if refusal is not None:
            return _problem(refusal)
        self.checkpoints[step] = body
        assert self.description is not None
        info = wire.CheckpointInfo(
            run=self.description.run,
            step=step,
            epoch=epoch,
            digest="",
            size_bytes=len(body),
            policy_digest="",
            policy_size_bytes=0,
            published_at=datetime.now(UTC),
        )
        return 201, {}, info.model_dump_json().encode()


def _problem(status: int, kind: str = "about:blank", headers: dict[str, str] | None = None) -> Answer:
    body = {"type": kind, "title": "told to fail", "status": status, "detail": "told to fail"}
    return status, headers or {}, json.dumps(body).encode()


def _handler(api: StubReplayApi) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, headers, content = api.answer(self.command, self.path, body)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_DELETE = serve

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    return Handler


def numbered_batch(
    number: int, request: wire.BatchRequest, *, observation_size: int = 3, action_size: int = 1
) -> Batch:
    """A batch whose every value follows from its number, so that a mixture of two is seen at once."""
    size = request.batch_size
    random = np.random.default_rng(number)
    observation = np.full((size, observation_size), number, np.float32)
    return Batch(
        index=np.full(size, number, np.int64),
        policy_version=np.zeros(size, np.int64),
        observation=observation,
        next_observation=observation + np.float32(0.5),
        action=random.uniform(-1, 1, (size, action_size)).astype(np.float32),
        reward=np.full(size, -number, np.float32),
        discount=np.full(size, request.discount, np.float32),
        weight=np.ones(size, np.float32),
        return_so_far=np.full(size, -number, np.float32),
    )


def random_batch(number: int, request: wire.BatchRequest, *, observation_size: int = 3, action_size: int = 1) -> Batch:
    """A batch of noise, the same for the same number."""
    size, random = request.batch_size, np.random.default_rng(number)

    def normal(*shape: int) -> np.ndarray:
        return random.standard_normal(shape).astype(np.float32)

    return Batch(
        index=random.integers(0, 1000, size),
        policy_version=np.zeros(size, np.int64),
        observation=normal(size, observation_size),
        next_observation=normal(size, observation_size),
        action=np.tanh(normal(size, action_size)),
        reward=normal(size),
        discount=np.full(size, request.discount, np.float32),
        weight=np.ones(size, np.float32),
        return_so_far=normal(size),
    )
