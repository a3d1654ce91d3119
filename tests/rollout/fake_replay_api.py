"""A replay API of a few endpoints on loopback, which can be told to fail."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from gaitfleet import codec
from gaitfleet.episode import Episode, check_episode, decode_episode
from gaitfleet.errors import CodecError
from gaitfleet.experiment import Experiment
from gaitfleet.problems import POLICY_NOT_PUBLISHED
from gaitfleet.task import make_task
from gaitfleet.wire import RunDescription

Answer = tuple[int, dict[str, str], bytes]


class FakeApi:
    """What the API holds, and how it misbehaves.

    Attributes
    ----------
    refuse
        Asked for each episode; a status and headers instead of an answer, or None to take it.
    away
        While set, every request gets 503.
    policy_unread
        While set, a policy is published, and the checkpoint store does not give it.
    """

    def __init__(self, experiment: Experiment, run: str = "test") -> None:
        self.run, self.experiment = run, experiment
        self.task = make_task(experiment.task)
        self.created_at = datetime.now(UTC)
        self.bodies: dict[str, bytes] = {}
        self.posts: list[str] = []
        self.reports: list[dict[str, Any]] = []
        self.left: list[str] = []
        self.stage = 0
        self.policy: tuple[int, bytes] | None = None
        self.policy_requests = 0
        self.tokens: set[str] | None = None
        self.away = threading.Event()
        self.policy_unread = threading.Event()
        self.delay_seconds = 0.0
        self.refuse: Callable[[Episode], tuple[int, dict[str, str]] | None] = lambda episode: None
        self.url = ""
        self._changed = threading.Condition()

    def publish(self, version: int, body: bytes) -> None:
        """A new policy."""
        with self._changed:
            self.policy = version, body
            self._changed.notify_all()

    def lose(self, policy: tuple[int, bytes] | None) -> None:
        """Forget all episodes, and the policy but for an older one."""
        with self._changed:
            self.bodies.clear()
            self.policy = policy
            self._changed.notify_all()

    def episodes(self) -> list[Episode]:
        """Everything stored, in order of arrival."""
        with self._changed:
            return [decode_episode(body) for body in self.bodies.values()]

    def wait_for(self, condition: Callable[[FakeApi], bool], seconds: float = 60.0) -> None:
        """Wait until the condition holds."""
        deadline = time.monotonic() + seconds
        while not condition(self):
            assert time.monotonic() < deadline, f"not within {seconds} s; {len(self.bodies)} episodes are stored"
            time.sleep(0.02)

    @contextmanager
    def serving(self) -> Iterator[FakeApi]:
        """Serve on a free port."""
        server = _Server(("127.0.0.1", 0), _handler(self))
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        self.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()

    def answer(self, method: str, target: str, headers: Any, body: bytes) -> Answer:
        """What a request gets."""
        url = urlsplit(target)
        if self.delay_seconds:
            time.sleep(self.delay_seconds)
        if self.away.is_set():
            return _problem(503, "away")
        if self.tokens is not None and headers.get("Authorization", "").removeprefix("Bearer ") not in self.tokens:
            return _problem(401, "no token")
        parts = url.path.removeprefix(f"/v1/runs/{self.run}").strip("/").split("/")
        answer = _problem(404, target)
        match method, parts[0]:
            case "GET", "":
                answer = 200, {}, self._description().model_dump_json().encode()
            case "GET", "policy":
                wait = float(parse_qs(url.query).get("wait", ["0"])[0])
                self.policy_requests += 1
                answer = self._get_policy(headers.get("If-None-Match"), wait)
            case "POST", "episodes":
                answer = self._post(codec.decompress(body, limit_bytes=1 << 28))
            case "PUT", "workers":
                self.reports.append(json.loads(body))
                orders = {"stage": self.stage, "training_episodes": len(self.bodies)}
                answer = 200, {}, json.dumps(orders).encode()
            case "DELETE", "workers":
                self.left.append(parts[1])
                answer = 204, {}, b""
        return answer

    def _description(self) -> RunDescription:
        description = self.task.description
        return RunDescription(
            run=self.run,
            experiment=self.experiment,
            experiment_hash=self.experiment.hash,
            layout_hash=description.state_layout.hash,
            observation_hash=description.observation_hash,
            created_at=self.created_at,
        )

    def _get_policy(self, etag: str | None, wait: float) -> Answer:
        if self.policy_unread.is_set():
            return _problem(503, "the newest policy is published, but the checkpoint store has not given it yet")
        with self._changed:
            self._changed.wait_for(lambda: self.policy is not None and _etag(self.policy[1]) != etag, wait)
            policy = self.policy
        if policy is None:
            return _problem(404, "not published", POLICY_NOT_PUBLISHED)
        if _etag(policy[1]) == etag:
            return 304, {"ETag": etag}, b""
        return 200, {"ETag": _etag(policy[1]), "X-Policy-Version": str(policy[0])}, policy[1]

    def _post(self, body: bytes) -> Answer:
        try:
            episode = decode_episode(body)
            stage = self.experiment.stage_names.index(episode.metadata.stage)
            check_episode(episode, self.run, make_task(self.experiment.task_at(stage)).description)
        except CodecError as error:
            return _problem(422, str(error))
        episode_id = str(episode.metadata.episode_id)
        self.posts.append(episode_id)
        if episode.metadata.policy_version > (0 if self.policy is None else self.policy[0]):
            return _problem(422, "policy_version is from the future", reason="future_policy")
        refusal = self.refuse(episode)
        if refusal is not None:
            return _problem(refusal[0], "told to refuse", headers=refusal[1])
        with self._changed:
            known = self.bodies.get(episode_id)
            if known is not None and known != body:
                return _problem(409, "other bytes")
            self.bodies[episode_id] = body
        transitions = int(episode.trajectory.decision.sum())
        receipt = {"episode_id": episode_id, "stored": known is None, "transitions": transitions}
        return 201 if known is None else 200, {}, json.dumps(receipt).encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that was killed in the middle of a request


def _etag(body: bytes) -> str:
    return f'"{hashlib.sha256(body).hexdigest()}"'


def _problem(
    status: int, detail: str, kind: str = "about:blank", headers: dict[str, str] | None = None, reason: str = "told"
) -> Answer:
    body = {"type": kind, "title": detail, "status": status, "detail": detail, "field": "action[0,0]"}
    body |= {"reason": reason}
    return status, headers or {}, json.dumps(body).encode()


def _handler(api: FakeApi) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, headers, content = api.answer(self.command, self.path, self.headers, body)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if status != 204:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content if status not in (204, 304) else b"")

        do_GET = do_POST = do_PUT = do_DELETE = serve

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    return Handler
