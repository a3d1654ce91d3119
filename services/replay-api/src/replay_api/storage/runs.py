"""The collection `runs`: one document a run, and every compare-and-set on it.

The experiment is kept as JSON text, because its keys may hold dots and its hash depends on the exact numbers. Times
that the database compares are milliseconds as integers: ``$toLong($$NOW)`` is the server's clock, and no client's
clock is trusted.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError
from pymongo import DESCENDING, ReturnDocument
from pymongo.errors import DuplicateKeyError

from gaitfleet.experiment import Experiment
from gaitfleet.wire import CheckpointInfo, Lease, LimitsChange, RunDescription, TrainerProgress
from replay_api.storage.episodes import RoleTotal
from replay_api.storage.mongo import Database, Document, asking, now

_log = logging.getLogger(__name__)

_SERVER_CLOCK = {"$toLong": "$$NOW"}


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """The lease as last written, expired or not."""

    holder: str
    epoch: int
    expires_ms: int
    renewals: int
    progress: TrainerProgress | None

    @property
    def lease(self) -> Lease:
        return Lease(
            holder=self.holder, epoch=self.epoch, expires_at=datetime.fromtimestamp(self.expires_ms / 1e3, UTC)
        )


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How a checkpoint was judged: the mean official score of so many episodes, played in a stage."""

    mean_return: float
    episodes: int
    stage: str

    def fields(self) -> dict[str, Any]:
        """As they stand in a checkpoint's record."""
        return {
            "evaluation_return": self.mean_return,
            "evaluation_episodes": self.episodes,
            "evaluation_stage": self.stage,
        }

    def fence(self, prefix: str = "") -> Document:
        """Query for records that this may be noted in: another replica may have counted more episodes of the stage."""
        other_stage = {f"{prefix}evaluation_stage": {"$ne": self.stage}}
        return {"$or": [other_stage, {f"{prefix}evaluation_episodes": {"$lte": self.episodes}}]}


@dataclass(frozen=True, slots=True)
class RunRecord:
    """Everything in a run's document.

    Parameters
    ----------
    limits
        Limits that were changed at run time.
    sampled
        Transitions sampled, as last flushed.
    deleted_transitions
        Training transitions that retention has deleted.
    deleted
        What that was, by role.
    deleted_stage_steps
        Simulator steps of it, by stage.
    published
        Checkpoints published since the run began.
    stage_entered_at
        When the stage of the description began.
    credit
        Samples allowed beyond those of the inserted transitions.
    head, best
        The newest checkpoint, and the best by evaluation.
    """

    description: RunDescription
    stage_entered_at: datetime
    limits: LimitsChange
    sampled: int
    deleted_transitions: int
    deleted: dict[str, RoleTotal]
    deleted_stage_steps: dict[str, int]
    published: int
    credit: float
    epoch: int
    lease: LeaseRecord | None
    head: CheckpointInfo | None
    best: CheckpointInfo | None


class RunStore:
    """Runs, their lease, heads and counters."""

    def __init__(self, database: Database) -> None:
        self._runs = database["runs"]

    async def insert(self, description: RunDescription, *, credit: float = 0.0) -> bool:
        """Keep a new run; False when one is there under this id."""
        document = {
            "_id": description.run,
            "experiment": description.experiment.model_dump_json(),
            "layout_hash": description.layout_hash,
            "observation_hash": description.observation_hash,
            "created_at": description.created_at,
            "stage": {"index": 0, "entered_at": description.created_at},
            "parents": [parent.model_dump(mode="python") for parent in description.parents],
            "demonstrations": [shown.model_dump(mode="python") for shown in description.demonstrations],
            "limits": {},
            "counters": {"sampled": 0, "deleted_transitions": 0, "published": 0, "credit": credit},
            "epoch": 0,
            "lease": None,
            "head": None,
            "best": None,
        }
        async with asking("create the run"):
            try:
                await self._runs.insert_one(document)
            except DuplicateKeyError:
                return False
        return True

    async def get(self, run: str) -> RunRecord | None:
        """One run, None when it does not exist."""
        async with asking("read the run"):
            document = await self._runs.find_one({"_id": run})
        return None if document is None else _record(document)

    async def all(self) -> list[RunDescription]:
        """All runs that can be read, newest first."""
        async with asking("list the runs"):
            documents = await self._runs.find({}).sort("created_at", DESCENDING).to_list(None)
        return [run for run in map(_description_if_readable, documents) if run is not None]

    async def take_lease(
        self, run: str, holder: str, ttl_seconds: float, progress: TrainerProgress | None
    ) -> RunRecord | None:
        """Grant or renew the lease unless another holds it; the result says who holds it now.

        One update on the server decides by the server's clock. The epoch grows whenever the lease was not this
        holder's.
        """
        mine = {"$eq": ["$lease.holder", {"$literal": holder}]}
        over = {"$lte": [{"$ifNull": ["$lease.expires_ms", 0]}, _SERVER_CLOCK]}
        renewal = {
            "holder": {"$literal": holder},
            "epoch": "$lease.epoch",
            "expires_ms": {"$add": [_SERVER_CLOCK, round(ttl_seconds * 1000)]},
            "renewals": {"$add": ["$lease.renewals", 1]},
            "progress": {"$literal": None if progress is None else progress.model_dump_json()},
        }
        grant = renewal | {"epoch": {"$add": ["$epoch", 1]}, "renewals": {"$literal": 0}}
        lease = {"$cond": [mine, renewal, {"$cond": [over, grant, "$lease"]}]}
        pipeline: list[Document] = [
            {"$set": {"lease": lease}},
            {"$set": {"epoch": {"$max": ["$epoch", {"$ifNull": ["$lease.epoch", 0]}]}}},
        ]
        async with asking("grant the lease"):
            document = await self._runs.find_one_and_update(
                {"_id": run}, pipeline, return_document=ReturnDocument.AFTER
            )
        return None if document is None else _record(document)

    async def release_lease(self, run: str, epoch: int) -> bool:
        """Give the lease of this epoch back; False when it is no longer the run's."""
        async with asking("release the lease"):
            result = await self._runs.update_one({"_id": run, "lease.epoch": epoch}, {"$set": {"lease": None}})
        return bool(result.matched_count)

    async def move_head(self, info: CheckpointInfo) -> bool:
        """Move the head to a checkpoint, if its epoch holds the lease and its step is above the head."""
        fence: Document = {
            "_id": info.run,
            "lease.epoch": info.epoch,
            "$or": [{"head": None}, {"head.step": {"$lt": info.step}}],
        }
        change = {"$set": {"head": info_document(info)}, "$inc": {"counters.published": 1}}
        async with asking("move the head"):
            result = await self._runs.update_one(fence, change)
        return bool(result.matched_count)

    async def evaluated(self, run: str, step: int, score: Evaluation) -> None:
        """Note an evaluation of the head; does nothing where the head has moved on or one of more episodes is noted."""
        change = {"$set": {f"head.{name}": value for name, value in score.fields().items()}}
        async with asking("note the evaluation"):
            await self._runs.update_one({"_id": run, "head.step": step} | score.fence("head."), change)

    async def set_best(self, run: str, info: CheckpointInfo) -> None:
        """Name the best checkpoint."""
        async with asking("set the best checkpoint"):
            await self._runs.update_one({"_id": run}, {"$set": {"best": info_document(info)}})

    async def enter_stage(self, run: str, index: int, *, credit: float) -> bool:
        """Enter a stage from the one before it; False when the run is not there, or not any more."""
        change = {"$set": {"stage": {"index": index, "entered_at": now()}}, "$inc": {"counters.credit": credit}}
        async with asking("enter a stage"):
            result = await self._runs.update_one({"_id": run, "stage.index": index - 1}, change)
        return bool(result.matched_count)

    async def set_limits(self, run: str, known: LimitsChange, change: LimitsChange, *, credit: float) -> bool:
        """Keep changed limits, and add to the credit; False when the limits are not those that are known any more."""
        unchanged = {f"limits.{name}": value for name, value in known.model_dump().items()}  # None: absent
        fields = {f"limits.{name}": value for name, value in change.model_dump(exclude_none=True).items()}
        update = {"$set": fields, "$inc": {"counters.credit": credit}}
        async with asking("change the limits"):
            result = await self._runs.update_one({"_id": run} | unchanged, update)
        return bool(result.matched_count)

    async def add_sampled(self, run: str, transitions: int, *, by: str, number: int) -> int:
        """Add to the sampled transitions, once for every number of who adds; the new total.

        Parameters
        ----------
        by
            Who adds; a letter and digits.
        number
            Of this addition. The same again, or one before it, adds nothing: an attempt may have been carried out and
            its answer lost, or lie in the database for long.
        """
        last = f"counters.additions.{by}"
        change = {"$inc": {"counters.sampled": transitions}, "$set": {last: number}}
        async with asking("count samples"):
            added = await self._runs.find_one_and_update(
                {"_id": run, last: {"$not": {"$gte": number}}}, change, return_document=ReturnDocument.AFTER
            )
            document = added or await self._runs.find_one({"_id": run}, {"counters": 1})
        return 0 if document is None else int(document["counters"]["sampled"])

    async def end_additions(self, run: str, by: str) -> None:
        """Forget who will not add any more."""
        async with asking("count samples"):
            await self._runs.update_one({"_id": run}, {"$unset": {f"counters.additions.{by}": ""}})


def info_document(info: CheckpointInfo) -> Document:
    """A checkpoint's record as a document."""
    return info.model_dump(mode="python")


def _description_if_readable(document: Document) -> RunDescription | None:
    """None for a run of another version of this service, which must not take the others along."""
    try:
        return _description(document)
    except (ValidationError, KeyError):
        _log.exception("this run cannot be read", extra={"run": document["_id"]})
        return None


def _description(document: Document) -> RunDescription:
    experiment = Experiment.model_validate_json(document["experiment"])
    return RunDescription(
        run=document["_id"],
        experiment=experiment,
        experiment_hash=experiment.hash,  # not as it was when the run began: a later version may know more settings
        layout_hash=document["layout_hash"],
        observation_hash=document["observation_hash"],
        created_at=document["created_at"],
        stage=document.get("stage", {}).get("index", 0),
        parents=document.get("parents", []),
        demonstrations=document.get("demonstrations", []),
    )


def _record(document: Document) -> RunRecord:
    counters: dict[str, Any] = document["counters"]
    lease = document["lease"]
    return RunRecord(
        description=_description(document),
        stage_entered_at=document.get("stage", {}).get("entered_at", document["created_at"]),
        limits=LimitsChange(**document["limits"]),
        sampled=int(counters["sampled"]),
        deleted_transitions=int(counters["deleted_transitions"]),
        deleted={role: RoleTotal(**total) for role, total in counters.get("deleted", {}).items()},
        deleted_stage_steps=counters.get("deleted_stage_steps", {}),
        published=int(counters["published"]),
        credit=float(counters.get("credit", 0.0)),
        epoch=document["epoch"],
        lease=None if lease is None else _lease(lease),
        head=None if document["head"] is None else CheckpointInfo(**document["head"]),
        best=None if document["best"] is None else CheckpointInfo(**document["best"]),
    )


def _lease(document: Document) -> LeaseRecord:
    text = document["progress"]
    progress = None if text is None else TrainerProgress.model_validate_json(text)
    return LeaseRecord(document["holder"], document["epoch"], document["expires_ms"], document["renewals"], progress)
