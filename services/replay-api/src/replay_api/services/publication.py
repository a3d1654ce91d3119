"""Publishing checkpoints: fenced by the lease's epoch, seen whole or not at all.

Both objects are written first, under names made of their content; then one compare-and-set moves the head. A crash in
between leaves objects that nobody refers to, and `thinning` deletes them.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from gaitfleet.checkpoint import Checkpoint, decode_checkpoint
from gaitfleet.errors import CodecError, PolicyError
from gaitfleet.policy import encode_policy
from gaitfleet.wire import CheckpointInfo, CheckpointList
from replay_api.errors import CheckpointMissingError, LeaseLostError, RejectedError, ServiceError, StepNotAboveHeadError
from replay_api.metrics import Metrics
from replay_api.services.background import Background
from replay_api.services.event_log import EventLog
from replay_api.services.heads import ServedPolicy, checkpoint_key, policy_key
from replay_api.services.one_at_a_time import OneAtATime
from replay_api.services.open_run import OpenRun
from replay_api.services.opening import Stores
from replay_api.services.registry import RunRegistry
from replay_api.services.thinning import Thinning
from replay_api.storage.mongo import now
from replay_api.storage.objects import ObjectExistsError, ObjectMissingError
from replay_api.storage.runs import RunRecord

Which = int | Literal["newest", "best"]


@dataclass(frozen=True, slots=True)
class _Candidate:
    info: CheckpointInfo
    policy: bytes
    warm_start: dict[str, Any] | None


class Publication:
    """Takes checkpoints in, and gives them back."""

    def __init__(
        self,
        registry: RunRegistry,
        stores: Stores,
        thinning: Thinning,
        background: Background,
        events: EventLog,
        metrics: Metrics,
        threads: Executor,
    ) -> None:
        self._registry = registry
        self._stores = stores
        self._thinning = thinning
        self._background = background
        self._events = events
        self._metrics = metrics
        self._threads = threads
        # Of each run: a repeated publication must not miss in the history what is on its way there.
        self._one_at_a_time = OneAtATime()

    async def publish(self, opened: OpenRun, step: int, epoch: int, body: bytes) -> tuple[CheckpointInfo, bool]:
        """Publish a checkpoint; its record, and whether it is new.

        Raises
        ------
        LeaseLostError
            When `epoch` does not hold the lease.
        StepNotAboveHeadError
            When the head stands at this step or above, with other bytes.
        RejectedError
            When the checkpoint is broken, of another run or task, or holds a value that is not finite.
        """
        began = time.monotonic()
        results = self._metrics.publications
        try:
            info, new = await self._publish(opened, step, epoch, body)
        except LeaseLostError:
            results.labels(opened.run, "fenced").inc()
            raise
        except ServiceError:
            results.labels(opened.run, "error").inc()
            raise
        results.labels(opened.run, "ok" if new else "repeated").inc()
        if new:
            self._metrics.publish_seconds.labels(opened.run).observe(time.monotonic() - began)
        return info, new

    async def list(self, opened: OpenRun) -> CheckpointList:
        """Checkpoints that are kept, newest first."""
        record = await self._registry.record(opened.run)
        return CheckpointList(
            checkpoints=await self._stores.records.all(opened.run),
            newest=None if record.head is None else record.head.step,
            best=None if record.best is None else record.best.step,
        )

    async def find(self, opened: OpenRun, which: Which) -> CheckpointInfo:
        """The record of one checkpoint.

        Raises
        ------
        CheckpointMissingError
            When there is none.
        """
        if isinstance(which, int):
            info = await self._stores.records.get(opened.run, which)
            if info is None:
                raise CheckpointMissingError(f"checkpoint {which} is not kept", first=False)
            return info
        record = await self._registry.record(opened.run)
        head = record.head if which == "newest" else record.best
        if head is None:
            raise CheckpointMissingError(f"the run has no {which} checkpoint yet", first=True)
        return head

    async def body(self, info: CheckpointInfo) -> bytes:
        """The bytes of a checkpoint.

        Raises
        ------
        CheckpointMissingError
            When it was deleted since its record was read.
        """
        try:
            return await self._stores.objects.get(checkpoint_key(info))
        except ObjectMissingError:
            raise CheckpointMissingError(f"checkpoint {info.step} is no longer kept", first=False) from None

    async def _publish(self, opened: OpenRun, step: int, epoch: int, body: bytes) -> tuple[CheckpointInfo, bool]:
        loop = asyncio.get_running_loop()
        candidate = await loop.run_in_executor(self._threads, _examine, opened, step, epoch, body)
        record = await self._registry.record(opened.run)
        kept = await self._stores.records.get(opened.run, step)
        for there in (record.head, kept):
            if there is not None and (there.step, there.digest) == (step, candidate.info.digest):
                async with self._one_at_a_time(opened.run):
                    await self._finish(opened, there, candidate.warm_start, again=True)
                return there, False
        _check_fence(record, candidate.info)  # before the upload, to spare it
        await self._put(checkpoint_key(candidate.info), body)
        await self._put(policy_key(candidate.info), candidate.policy)
        info = candidate.info.model_copy(update={"published_at": now()})
        # Shielded: a head that has moved must also be recorded and served.
        moving = self._move_alone(opened, ServedPolicy(info, candidate.policy), candidate.warm_start)
        return await asyncio.shield(asyncio.ensure_future(moving))

    async def _move_alone(
        self, opened: OpenRun, policy: ServedPolicy, warm_start: dict[str, Any] | None
    ) -> tuple[CheckpointInfo, bool]:
        async with self._one_at_a_time(opened.run):
            info, new = await self._move(opened, policy)
            await self._finish(opened, info, warm_start, again=not new)
            await self._registry.look(opened)
        return info, new

    async def _move(self, opened: OpenRun, policy: ServedPolicy) -> tuple[CheckpointInfo, bool]:
        info = policy.info
        if not await self._stores.runs.move_head(info):
            record = await self._registry.record(opened.run)
            head = record.head
            if head is not None and (head.step, head.digest) == (info.step, info.digest):
                return head, False  # the same request twice at the same time
            _check_fence(record, info)
            raise LeaseLostError(
                f"the lease changed while checkpoint {info.step} was published", field="epoch", reason="lease"
            )
        opened.heads.set("newest", policy)
        return info, True

    async def _finish(
        self, opened: OpenRun, info: CheckpointInfo, warm_start: dict[str, Any] | None, *, again: bool
    ) -> None:
        """What follows when the head has moved: record, history, thinning. The attempt that moved it may have ended
        anywhere in between; then the same request comes `again`."""
        await self._stores.records.put(info)
        body, more = {"step": info.step, "digest": info.digest}, {"epoch": info.epoch, "size_bytes": info.size_bytes}
        await self._events.complete(opened.run, "checkpoint_published", body, again=again, **more)
        if warm_start is not None:  # in every checkpoint of the run; told once
            await self._events.complete(opened.run, "warm_started", {}, again=True, step=info.step, **warm_start)
        self._background.start(f"thinning/{opened.run}", lambda: self._thinning.thin(opened))

    async def _put(self, key: str, body: bytes) -> None:
        try:
            await self._stores.objects.put_new(key, body)
        except ObjectExistsError:
            return  # named by its content, so these are the same bytes: an attempt that was cut off


def _examine(opened: OpenRun, step: int, epoch: int, body: bytes) -> _Candidate:
    """Everything that can be said against a checkpoint without asking anybody."""
    try:
        checkpoint = decode_checkpoint(body)
        policy = encode_policy(checkpoint.policy, checkpoint.policy_tensors)
    except CodecError as error:
        raise RejectedError(str(error), field=error.field, reason=error.reason) from None
    except PolicyError as error:
        raise RejectedError(str(error), field="policy", reason="policy") from None
    _check_identity(opened, step, checkpoint)
    for name, tensor in checkpoint.trainer_tensors.items():
        if tensor.dtype.kind == "f" and not np.isfinite(tensor).all():
            detail = f"tensor 'trainer/{name}' holds a value that is not finite"
            raise RejectedError(detail, field=f"trainer/{name}", reason="not_finite")
    info = CheckpointInfo(
        run=opened.run,
        step=step,
        epoch=epoch,
        digest=hashlib.sha256(body).hexdigest(),
        size_bytes=len(body),
        policy_digest=hashlib.sha256(policy).hexdigest(),
        policy_size_bytes=len(policy),
        published_at=now(),
    )
    return _Candidate(info, policy, _warm_start_of(checkpoint))


def _warm_start_of(checkpoint: Checkpoint) -> dict[str, Any] | None:
    """From which checkpoint the run began, where the trainer says so."""
    origin = checkpoint.counters.get("warm_start")
    return {"from_run": origin.get("run"), "from_step": origin.get("step")} if isinstance(origin, dict) else None


def _check_identity(opened: OpenRun, step: int, checkpoint: Checkpoint) -> None:
    policy, task = checkpoint.policy, opened.task.description
    expected = {
        "run": opened.run,
        "version": step,
        "observation_hash": task.observation_hash,
        "observation_size": task.observation_size,
        "action_size": task.action_size,
    }
    for name, value in expected.items():
        received = getattr(policy, name)
        if received != value:
            detail = f"the policy's {name} is {received!r}, must be {value!r}"
            raise RejectedError(detail, field=f"policy.{name}", reason="policy")


def _check_fence(record: RunRecord, info: CheckpointInfo) -> None:
    lease = record.lease
    if lease is None or lease.epoch != info.epoch:
        held = (
            "nobody holds the lease"
            if lease is None
            else f"the lease is at epoch {lease.epoch}, held by {lease.holder}"
        )
        raise LeaseLostError(f"epoch {info.epoch} may not publish: {held}", field="epoch", reason="lease")
    if record.head is not None and record.head.step >= info.step:
        detail = f"step {info.step} is not above the head, which is at {record.head.step}"
        raise StepNotAboveHeadError(detail, field="step", reason="step")
