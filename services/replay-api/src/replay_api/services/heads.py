"""The newest and the best policy, in memory, and those who wait for the next."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass
from typing import Any, Literal

from gaitfleet.wire import CheckpointInfo
from replay_api.constants import RETRY_AFTER_SECONDS
from replay_api.errors import PolicyMissingError, UnavailableError
from replay_api.storage.objects import CheckpointStore, ObjectMissingError
from replay_api.storage.runs import RunRecord

Which = Literal["newest", "best"]

_KEY = re.compile(r"runs/[^/]+/\d+-(\d+)-[0-9a-f]{64}(?:\.policy)?\.safetensors")


@dataclass(frozen=True, slots=True)
class ServedPolicy:
    """A policy body and the checkpoint it belongs to."""

    info: CheckpointInfo
    body: bytes

    @property
    def etag(self) -> str:
        return f'"{self.info.policy_digest}"'


def checkpoint_key(info: CheckpointInfo) -> str:
    """Where a checkpoint lies: named by its content, so that the same key can only ever mean the same bytes."""
    return f"runs/{info.run}/{info.epoch}-{info.step}-{info.digest}.safetensors"


def policy_key(info: CheckpointInfo) -> str:
    """Where its policy lies."""
    return f"runs/{info.run}/{info.epoch}-{info.step}-{info.digest}.policy.safetensors"


def step_of(key: str) -> int | None:
    """Step of the checkpoint that an object belongs to; None for an object of somebody else."""
    found = _KEY.fullmatch(key)
    return None if found is None else int(found[1])


class Heads:
    """Both heads of one run."""

    def __init__(self, store: CheckpointStore) -> None:
        self._store = store
        self._served: dict[Which, ServedPolicy] = {}
        self._published: dict[Which, CheckpointInfo] = {}
        self._waiting: dict[asyncio.Future[None], Which] = {}
        self._letting_go: set[asyncio.Task[None]] = set()

    def get(self, which: Which) -> ServedPolicy | None:
        """The policy of a head; None before the first."""
        return self._served.get(which)

    @property
    def step(self) -> int:
        """Step of the newest policy, 0 before the first; known even while the checkpoint store is away."""
        newest = self._published.get("newest")
        return 0 if newest is None else newest.step

    async def refresh(self, record: RunRecord) -> None:
        """Follow the run's document, which another replica may have changed."""
        heads: dict[Which, CheckpointInfo | None] = {"newest": record.head, "best": record.best}
        for which, info in heads.items():
            if info is not None:
                await self._follow(which, info)

    def set(self, which: Which, policy: ServedPolicy) -> None:
        """Serve a policy from now on, also to those who wait for it. The newest never moves back."""
        if which == "newest" and policy.info.step < self.step:
            return
        self._published[which] = policy.info
        self._served[which] = policy
        letting_go = asyncio.ensure_future(self._let_go(which))
        self._letting_go.add(letting_go)
        letting_go.add_done_callback(self._letting_go.discard)

    async def wait(self, which: Which, etag: str | None, seconds: float, stop: asyncio.Event) -> ServedPolicy | None:
        """The policy that differs from `etag`; None when there is none within `seconds`.

        Raises
        ------
        PolicyMissingError
            When the run still has no such policy after the wait.
        UnavailableError
            When it has one that could not be read from the checkpoint store yet.
        """
        until = time.monotonic() + seconds
        while not self._other(which, etag) and not stop.is_set() and (left := until - time.monotonic()) > 0:
            await self._wait_turn(which, left, stop)
        policy = self._served.get(which)
        if policy is None and which in self._published:
            detail = f"the {which} policy is published, but the checkpoint store has not given it yet"
            raise UnavailableError(detail, reason="checkpoint_store", retry_after_seconds=RETRY_AFTER_SECONDS)
        if policy is None:
            raise PolicyMissingError(f"the run has no {which} policy yet", field="head", reason="not_published")
        return policy if policy.etag != etag else None

    def _other(self, which: Which, etag: str | None) -> bool:
        policy = self._served.get(which)
        return policy is not None and policy.etag != etag

    async def _wait_turn(self, which: Which, seconds: float, stop: asyncio.Event) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        stopping = asyncio.ensure_future(stop.wait())
        either: set[asyncio.Future[Any]] = {turn, stopping}
        self._waiting[turn] = which
        try:
            await asyncio.wait(either, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            del self._waiting[turn]
            stopping.cancel()

    async def _let_go(self, which: Which) -> None:
        """Those who wait now, one in each round of the event loop: to answer a thousand of them takes it a second, in
        which it must not be deaf to everybody else."""
        for turn in [turn for turn, waits_for in self._waiting.items() if waits_for == which]:
            if not turn.done():
                turn.set_result(None)
                await asyncio.sleep(0)

    async def _follow(self, which: Which, info: CheckpointInfo) -> None:
        if which != "newest" or info.step >= self.step:
            self._published[which] = info
        served = self._served.get(which)
        if served is not None and (served.info.step, served.info.digest) == (info.step, info.digest):
            return
        try:
            body = await self._store.get(policy_key(info))
        except ObjectMissingError:
            return  # thinned between the document's reading and this; the next look sees the new head
        self.set(which, ServedPolicy(info, body))
