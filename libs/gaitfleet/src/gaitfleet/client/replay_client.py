"""The calls of the replay API, one method each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self, TypeVar
from uuid import UUID

import httpx
from pydantic import BaseModel, TypeAdapter

from gaitfleet import codec, wire
from gaitfleet.client.answers import check, parsed, stranger
from gaitfleet.client.bulk import BulkAnswer, BulkConnection
from gaitfleet.client.certificates import trusted_authorities
from gaitfleet.client.retry import retried
from gaitfleet.client.token import usable_token
from gaitfleet.errors import ApiUnavailableError, LimitedError, NotFoundError
from gaitfleet.experiment import Experiment
from gaitfleet.problems import CHECKPOINT_NOT_PUBLISHED, POLICY_NOT_PUBLISHED

Model = TypeVar("Model", bound=BaseModel)
Which = int | Literal["newest", "best"]

PAGE = 500
"""Episodes or events asked for at once where all are wanted."""

_SAFETENSORS = {"Content-Type": "application/x-safetensors"}


@dataclass(frozen=True, slots=True)
class PolicyAnswer:
    """A policy body with its entity tag and version."""

    body: bytes
    etag: str
    version: int


class ReplayClient:
    """Client of one run; belongs to one thread.

    Calls raise `ApiUnavailableError` when the API cannot be reached, answers 5xx, or something else answers in its
    place, after `attempts` tries with jittered back-off, and the other members of the tree in `gaitfleet.errors` as
    their name says.

    Parameters
    ----------
    base_url
        Where the API is, for example ``http://127.0.0.1:8080``. It is asked directly: proxies that the environment
        names are not used.
    token
        Bearer token; None where authentication is off. White space around it is left out.
    run
        Id of the run that the calls speak of.
    timeout_seconds
        For connecting, for every read, and for every piece of a body that is sent.
    attempts
        Tries of a call while the API is unavailable.
    transport
        Another httpx transport for control calls, for tests.

    Raises
    ------
    TokenError
        When the token cannot stand in an HTTP header.
    CertificateError
        When `SSL_CERT_FILE` or `SSL_CERT_DIR` cannot be read.
    """

    def __init__(
        self,
        base_url: str,
        *,
        run: str,
        token: str | None = None,
        timeout_seconds: float = 30.0,
        attempts: int = 4,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        token = usable_token(token)
        self._arguments: dict[str, Any] = {
            "base_url": base_url,
            "run": run,
            "token": token,
            "timeout_seconds": timeout_seconds,
            "attempts": attempts,
        }
        self._run = f"/v1/runs/{run}"
        self._attempts = attempts
        self._authorization = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._timeout = httpx.Timeout(timeout_seconds, connect=min(5.0, timeout_seconds))
        self._http = httpx.Client(
            base_url=base_url,
            headers=self._authorization,
            timeout=self._timeout,
            transport=transport,
            trust_env=False,  # no proxies: the bulk connection knows none, and both should go the same way
            verify=trusted_authorities(),
        )
        self._bulk = BulkConnection(base_url, timeout_seconds=timeout_seconds)
        self._found_no_room = False  # the last post of an episode

    def clone(self) -> ReplayClient:
        """The same client for another thread."""
        return ReplayClient(**self._arguments)

    def of_run(self, run: str) -> ReplayClient:
        """A new client of another run of the same API."""
        return ReplayClient(**(self._arguments | {"run": run}))

    def close(self) -> None:
        """Close both connections."""
        self._http.close()
        self._bulk.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- runs -------------------------------------------------------------------------------------------------------

    def create_run(self, experiment: Experiment) -> wire.RunDescription:
        """Create the run, or find it there with the same experiment.

        Raises
        ------
        ConflictError
            When the run exists with another experiment.
        """
        return self._json(wire.RunDescription, "PUT", "", json=experiment.model_dump(mode="json"))

    def fork_run(self, request: wire.ForkRequest) -> wire.RunDescription:
        """Create another run that learns from this one's stored episodes too.

        Raises
        ------
        RejectedError
            When these episodes cannot be learned from in the new task; the message names what differs.
        ConflictError
            When the new run exists already, and is not this fork.
        """
        return self._json(wire.RunDescription, "POST", "/forks", content=request.model_dump_json())

    def runs(self) -> list[wire.RunDescription]:
        """All runs, newest first."""
        answer = self._call("GET", "/v1/runs")
        return parsed(TypeAdapter(list[wire.RunDescription]).validate_json, answer.content, answer.status_code)

    def run(self) -> wire.RunDescription:
        """This run."""
        return self._json(wire.RunDescription, "GET", "")

    def status(self) -> wire.RunStatus:
        """How the run stands."""
        return self._json(wire.RunStatus, "GET", "/status")

    def limits(self) -> wire.Limits:
        """The samples-per-insert limiter."""
        return self._json(wire.Limits, "GET", "/limits")

    def change_limits(self, change: wire.LimitsChange) -> wire.Limits:
        """Change the limiter while it runs."""
        return self._json(wire.Limits, "PATCH", "/limits", json=change.model_dump(exclude_none=True))

    # --- episodes and events ----------------------------------------------------------------------------------------

    def post_episode(self, body: bytes) -> wire.EpisodeReceipt:
        """Post an uncompressed episode body. Tried once: the caller keeps the episode and decides when to try again.

        Raises as `post_frame`.
        """
        return self.post_frame(codec.compress(body))

    def post_frame(self, frame: bytes) -> wire.EpisodeReceipt:
        """Post an episode body that `gaitfleet.codec.compress` has compressed; tried once.

        After the API had no room for one, it is asked before the next body is sent: a crowd that comes back again and
        again would otherwise take as much of the network as the episodes that are accepted.

        Raises
        ------
        RejectedError
            When the episode breaks a rule; the problem names field and value.
        ConflictError
            When other bytes are stored under its id.
        LimitedError
            When the API asks to wait.
        """
        headers = _SAFETENSORS | {"Content-Encoding": "zstd"}
        ask_first, self._found_no_room = self._found_no_room, False
        try:
            answer = self._bulk_call("POST", "/episodes", body=frame, headers=headers, attempts=1, ask_first=ask_first)
        except LimitedError as error:
            self._found_no_room = error.problem.get("reason") == "busy"  # else the body was read already
            raise
        return parsed(wire.EpisodeReceipt.model_validate_json, bytes(answer.body), answer.status)

    def episodes(
        self,
        *,
        limit: int = 100,
        before: UUID | None = None,
        role: str | None = None,
        worker: str | None = None,
        ending: str | None = None,
        policy_version: int | None = None,
        finding: str | None = None,
    ) -> wire.EpisodePage:
        """A page of episodes, newest first."""
        query = {
            "limit": limit,
            "before": before,
            "role": role,
            "worker": worker,
            "ending": ending,
            "policy_version": policy_version,
            "finding": finding,
        }
        return self._json(wire.EpisodePage, "GET", "/episodes", params=_given(query))

    def every_episode(self, *, newest: int | None = None, role: str | None = None) -> Iterator[wire.EpisodeSummary]:
        """All episodes, newest first, page by page; at most so many where `newest` is given."""
        before, left = None, newest
        while left is None or left > 0:
            page = self.episodes(limit=PAGE if left is None else min(PAGE, left), before=before, role=role)
            yield from page.episodes
            left = None if left is None else left - len(page.episodes)
            before = page.next_before
            if before is None:
                return

    def episode_content(self, episode_id: UUID) -> bytes:
        """The uncompressed body of an episode."""
        return bytes(self._bulk_call("GET", f"/episodes/{episode_id}/content", headers={}).body)

    def events(self, *, after: str | None = None, kind: str | None = None, limit: int = 100) -> wire.EventPage:
        """A page of events, oldest first."""
        return self._json(
            wire.EventPage, "GET", "/events", params=_given({"after": after, "kind": kind, "limit": limit})
        )

    def every_event(self, *, kind: str | None = None) -> Iterator[wire.Event]:
        """All events, oldest first, page by page."""
        after = None
        while page := self.events(after=after, kind=kind, limit=PAGE).events:
            yield from page
            after = page[-1].sequence

    # --- sampling ---------------------------------------------------------------------------------------------------

    def sample_batches(self, request: wire.BatchRequest, buffer: bytearray | None = None) -> memoryview:
        """Sample; read the result with `gaitfleet.batch.decode_batches`.

        Parameters
        ----------
        buffer
            Where the body goes, when it is large enough.

        Raises
        ------
        LimitedError
            When the limiter did not allow a batch within `request.wait_seconds`.
        """
        headers = {"Content-Type": "application/json"}
        body = request.model_dump_json().encode()
        return self._bulk_call("POST", "/batches", body=body, headers=headers, buffer=buffer).body

    def update_priorities(self, update: wire.PriorityUpdate) -> wire.PriorityReceipt:
        """Set priorities of sampled transitions."""
        return self._json(wire.PriorityReceipt, "POST", "/priorities", content=update.model_dump_json())

    # --- policy, lease, checkpoints ---------------------------------------------------------------------------------

    def get_policy(
        self, etag: str | None = None, *, wait_seconds: float = 0.0, head: Literal["newest", "best"] = "newest"
    ) -> PolicyAnswer | None:
        """The policy, or None while there is none newer than `etag` within `wait_seconds`."""
        headers = {} if etag is None else {"If-None-Match": etag}
        timeout = httpx.Timeout(self._arguments["timeout_seconds"] + wait_seconds, connect=self._timeout.connect)
        query: dict[str, Any] = {"wait": wait_seconds, "head": head}
        try:
            answer = self._call("GET", f"{self._run}/policy", params=query, headers=headers, timeout=timeout)
        except NotFoundError as error:
            if error.problem.get("type") == POLICY_NOT_PUBLISHED:
                return None
            raise
        if answer.status_code == 304:
            return None
        try:
            return PolicyAnswer(answer.content, answer.headers["ETag"], int(answer.headers["X-Policy-Version"]))
        except (KeyError, ValueError):
            raise stranger(answer.status_code, "a policy without ETag and X-Policy-Version") from None

    def acquire_lease(
        self, holder: str, *, ttl_seconds: float, progress: wire.TrainerProgress | None = None
    ) -> wire.Lease:
        """Take the lease, or renew it.

        Raises
        ------
        LeaseLostError
            While another holder has it.
        """
        request = wire.LeaseRequest(holder=holder, ttl_seconds=ttl_seconds, progress=progress)
        return self._json(wire.Lease, "POST", "/lease", content=request.model_dump_json())

    def release_lease(self, epoch: int) -> None:
        """Give the lease back.

        Raises
        ------
        LeaseLostError
            When it has gone to another already.
        """
        self._call("DELETE", f"{self._run}/lease", params={"epoch": epoch})

    def publish_checkpoint(self, step: int, epoch: int, body: bytes) -> wire.CheckpointInfo:
        """Publish a checkpoint body.

        Raises
        ------
        LeaseLostError
            When another trainer holds the run.
        RejectedError
            When the checkpoint is damaged or not finite.
        """
        path = f"/checkpoints/{step}?epoch={epoch}"
        answer = self._bulk_call("PUT", path, body=body, headers=_SAFETENSORS)
        return parsed(wire.CheckpointInfo.model_validate_json, bytes(answer.body), answer.status)

    def download_checkpoint(self, which: Which = "newest") -> bytes | None:
        """A checkpoint body; None before the first."""
        try:
            return bytes(self._bulk_call("GET", f"/checkpoints/{which}", headers={}).body)
        except NotFoundError as error:
            if error.problem.get("type") == CHECKPOINT_NOT_PUBLISHED:
                return None
            raise

    def checkpoints(self) -> wire.CheckpointList:
        """Checkpoints that are kept, newest first."""
        return self._json(wire.CheckpointList, "GET", "/checkpoints")

    # --- workers ----------------------------------------------------------------------------------------------------

    def report_worker(self, worker: str, report: wire.WorkerReport) -> wire.WorkerOrders:
        """Say how a rollout worker is, and learn which stage it should play."""
        return self._json(wire.WorkerOrders, "PUT", f"/workers/{worker}", content=report.model_dump_json())

    def leave(self, worker: str) -> None:
        """Say that a rollout worker is gone."""
        self._call("DELETE", f"{self._run}/workers/{worker}")

    # --- plumbing ---------------------------------------------------------------------------------------------------

    def _json(self, model: type[Model], method: str, path: str, **arguments: Any) -> Model:
        answer = self._call(method, self._run + path, **arguments)
        return parsed(model.model_validate_json, answer.content, answer.status_code)

    def _call(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        if "content" in arguments:
            arguments["headers"] = {"Content-Type": "application/json"}

        def once() -> httpx.Response:
            try:
                answer = self._http.request(method, path, **arguments)
            except httpx.LocalProtocolError:  # its text may quote a header, and with it the token
                raise ApiUnavailableError(f"{method} {path}: the request cannot be sent") from None
            except httpx.HTTPError as error:
                raise ApiUnavailableError(f"{method} {path}: {error!r}") from error
            headers = answer.headers
            check(answer.status_code, answer.content, headers.get("Retry-After"), headers.get("Location"))
            return answer

        return retried(once, attempts=self._attempts)

    def _bulk_call(
        self,
        method: str,
        path: str,
        *,
        headers: dict[str, str],
        body: bytes | None = None,
        buffer: bytearray | None = None,
        attempts: int | None = None,
        ask_first: bool = False,
    ) -> BulkAnswer:
        def once() -> BulkAnswer:
            answer = self._bulk.request(
                method,
                self._run + path,
                body=body,
                headers=headers | self._authorization,
                buffer=buffer,
                ask_first=ask_first,
            )
            check(answer.status, answer.body, answer.retry_after, answer.location)
            return answer

        return retried(once, attempts=attempts or self._attempts)


def _given(query: dict[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in query.items() if value is not None}
