"""The newest and the best policy, in memory, and those who wait for the next."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from gaitfleet.wire import CheckpointInfo
from replay_api.constants import FIRST_BODY_SECONDS, RETRY_AFTER_SECONDS
from replay_api.errors import PolicyMissingError, UnavailableError
from replay_api.services.background import Background
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
        self._fetching = Background()

    def get(self, which: Which) -> ServedPolicy | None:
        """The policy of a head; None before the first."""
        return self._served.get(which)

    @property
    def step(self) -> int:
        """Step of the newest policy, 0 before the first; known even while the checkpoint store is away."""
        newest = self._published.get("newest")
        return 0 if newest is None else newest.step

    def follow(self, record: RunRecord) -> None:
        """Follow the run's document, which another replica may have changed: at once where the body is known, else as
        soon as the checkpoint store has given it, for which nobody waits here."""
        heads: dict[Which, CheckpointInfo | None] = {"newest": record.head, "best": record.best}
        for which, info in heads.items():
            if info is None or (which == "newest" and info.step < self.step):
                continue
            self._published[which] = info
            if self._serves(which, info):
                continue
            known = next((there for there in self._served.values() if _same(there.info, info)), None)
            if known is not None:
                self.set(which, ServedPolicy(info, known.body))
            else:
                self._fetching.start(which, partial(self._fetch, which))

    def set(self, which: Which, policy: ServedPolicy) -> None:
        """Serve a policy from now on, also to those who wait for it. The newest never moves back."""
        served = self._served.get(which)
        if which == "newest" and served is not None and policy.info.step < served.info.step:
            return
        if which == "best" or policy.info.step >= self.step:
            self._published[which] = policy.info
        self._served[which] = policy
        letting_go = asyncio.ensure_future(self._let_go(which))
        self._letting_go.add(letting_go)
        letting_go.add_done_callback(self._letting_go.discard)

    async def close(self) -> None:
        """Ask the checkpoint store for nothing any more."""
        await self._fetching.stop(seconds=0.0)

    async def wait(self, which: Which, etag: str | None, seconds: float, stop: asyncio.Event) -> ServedPolicy | None:
        """The policy that differs from `etag`; None when there is none within `seconds`. One that is published and has
        yet to come from the checkpoint store is waited for a moment in any case.

        Raises
        ------
        PolicyMissingError
            When the run still has no such policy after the wait.
        UnavailableError
            When it has one that could not be read from the checkpoint store yet.
        """
        if which in self._published and which not in self._served:
            seconds = max(seconds, FIRST_BODY_SECONDS)
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

    def _serves(self, which: Which, info: CheckpointInfo) -> bool:
        served = self._served.get(which)
        return served is not None and _same(served.info, info)

    async def _fetch(self, which: Which) -> None:
        """Get the body of a head from the checkpoint store, and of another that it has moved to meanwhile."""
        while not self._serves(which, info := self._published[which]):
            try:
                body = await self._store.get(policy_key(info))
            except (ObjectMissingError, UnavailableError):
                return  # thinned since the document was read, or the store is away: the next look begins again
            if which == "newest" or _same(self._published[which], info):  # an older best is none
                self.set(which, ServedPolicy(info, body))


def _same(one: CheckpointInfo, other: CheckpointInfo) -> bool:
    """Whether two records, maybe of different times, are of the same checkpoint."""
    return (one.step, one.digest) == (other.step, other.digest)
