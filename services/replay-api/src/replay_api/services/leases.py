"""The right to publish: one trainer a run."""

from __future__ import annotations

from gaitfleet.wire import Lease, LeaseRequest
from replay_api.errors import LeaseLostError, RunMissingError
from replay_api.services.event_log import EventLog
from replay_api.services.open_run import OpenRun
from replay_api.storage.runs import LeaseRecord, RunStore


class Leases:
    """Grants, renews and takes back leases; the database's clock decides."""

    def __init__(self, runs: RunStore, events: EventLog) -> None:
        self._runs = runs
        self._events = events
        self._told: dict[str, int] = {}  # the latest epoch of each run that is in the history

    async def take(self, opened: OpenRun, request: LeaseRequest) -> Lease:
        """Grant or renew the lease.

        Raises
        ------
        LeaseLostError
            While another holds it.
        """
        record = await self._runs.take_lease(opened.run, request.holder, request.ttl_seconds, request.progress)
        if record is None or record.lease is None:
            raise RunMissingError(opened.run)
        opened.record = record
        held = record.lease
        if held.holder != request.holder:
            detail = f"{held.holder} holds the lease until {held.lease.expires_at.isoformat()}, epoch {held.epoch}"
            raise LeaseLostError(detail, field="holder", reason="lease")
        await self._tell(opened.run, held)
        return held.lease.model_copy(update={"stage": record.description.stage})

    async def _tell(self, run: str, held: LeaseRecord) -> None:
        """Write the event of a grant; with a renewal, that of a grant whose attempt ended before it was kept."""
        if held.renewals > 0 and self._told.get(run) == held.epoch:
            return
        granted = {"epoch": held.epoch}
        await self._events.complete(run, "lease_acquired", granted, again=held.renewals > 0, holder=held.holder)
        self._told[run] = held.epoch

    async def release(self, opened: OpenRun, epoch: int) -> None:
        """Give the lease back.

        Raises
        ------
        LeaseLostError
            When it is not this epoch's any more.
        """
        if not await self._runs.release_lease(opened.run, epoch):
            raise LeaseLostError(f"epoch {epoch} does not hold the lease", field="epoch", reason="lease")
        await self._events.tell(opened.run, "lease_released", epoch=epoch)
