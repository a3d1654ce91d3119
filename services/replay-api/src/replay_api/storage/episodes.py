"""The collection `episodes`: one document an episode, its summary as fields and its arrays as one compressed binary.

Ids are ``{run}/{uuid}``: unique within a run, sorted by run and time of creation, and a shard key by themselves.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, get_args
from uuid import UUID

from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorClientSession
from pymongo import DESCENDING

from gaitfleet.episode import Role
from gaitfleet.wire import EpisodeSummary
from replay_api.storage.group_insert import GroupInsert
from replay_api.storage.mongo import Database, Document, asking

TRAINING_ROLES = ("train", "random")
"""Roles whose episodes are sampled."""

_PLANNED = {"transitions": 1, "steps": 1, "stored_at": 1, "role": 1, "stage": 1}


@dataclass(frozen=True, slots=True)
class EpisodeFilter:
    """Which episodes a listing holds; None means any."""

    role: str | None = None
    worker: str | None = None
    ending: str | None = None
    policy_version: int | None = None
    finding: str | None = None


@dataclass(frozen=True, slots=True)
class Evaluated:
    """One evaluation episode: official score and steps; of a walker way, drift, speed, contacts and whether it walked,
    else None."""

    score: float
    steps: int
    distance_m: float | None
    drift_m: float | None
    mean_speed_m_per_s: float | None
    foot_contacts: int | None
    walked: bool | None


@dataclass(frozen=True, slots=True)
class Planned:
    """One episode of the store, to be loaded, to be deleted or to be counted."""

    key: str
    transitions: int
    steps: int
    stored_at: datetime
    role: str
    stage: str


@dataclass(frozen=True, slots=True)
class RoleTotal:
    """Episodes, simulator steps and transitions of one role."""

    episodes: int
    steps: int
    transitions: int

    def __add__(self, other: RoleTotal) -> RoleTotal:
        return RoleTotal(self.episodes + other.episodes, self.steps + other.steps, self.transitions + other.transitions)


class EpisodeStore:
    """Episodes of all runs."""

    def __init__(self, client: AsyncIOMotorClient[Document], database: Database) -> None:
        self._client = client
        self._episodes = database["episodes"]
        self._inserts = GroupInsert(self._episodes)
        self._runs = database["runs"]
        self._deletions: set[asyncio.Task[bool]] = set()

    async def insert(self, summary: EpisodeSummary, content: bytes) -> bool:
        """Keep an episode, by majority and journal; False when one is there under this id."""
        document = _document(summary)
        document["content"] = content
        return await self._inserts.insert(document, len(content))

    async def digest(self, run: str, episode_id: UUID) -> str | None:
        """Digest of a stored episode's uncompressed body."""
        async with asking("read the episode"):
            document = await self._episodes.find_one({"_id": key_of(run, episode_id)}, {"content_digest": 1})
        return None if document is None else str(document["content_digest"])

    async def get(self, run: str, episode_id: UUID) -> EpisodeSummary | None:
        """Summary of an episode."""
        async with asking("read the episode"):
            document = await self._episodes.find_one({"_id": key_of(run, episode_id)}, {"content": 0})
        return None if document is None else _summary(document)

    async def content(self, run: str, episode_id: UUID) -> bytes | None:
        """The compressed body of an episode."""
        contents = await self.contents([key_of(run, episode_id)])
        return contents.get(key_of(run, episode_id))

    async def contents(self, keys: Sequence[str]) -> dict[str, bytes]:
        """Compressed bodies by key; those that are gone are left out."""
        async with asking("read episodes"):
            documents = await self._episodes.find({"_id": {"$in": list(keys)}}, {"content": 1}).to_list(None)
        return {document["_id"]: bytes(document["content"]) for document in documents}

    async def page(self, run: str, chosen: EpisodeFilter, before: UUID | None, limit: int) -> list[EpisodeSummary]:
        """Episodes, newest first."""
        upper = key_of(run, before) if before else f"{run}0"  # "0" follows "/" in ASCII
        query: Document = {"run": run, "_id": {"$gte": f"{run}/", "$lt": upper}}
        for name in ("role", "worker", "ending", "policy_version"):
            value = getattr(chosen, name)
            if value is not None:
                query[name] = value
        if chosen.finding is not None:
            query["findings.name"] = chosen.finding
        async with asking("list episodes"):
            cursor = self._episodes.find(query, {"content": 0}).sort("_id", DESCENDING).limit(limit)
            documents = await cursor.to_list(limit)
        return await asyncio.to_thread(lambda: [_summary(document) for document in documents])  # 0.3 ms each

    async def plan(
        self, run: str, capacity: int, *, until: datetime | None = None, stages: Collection[str] | None = None
    ) -> list[Planned]:
        """The newest training episodes, newest first, until those of the given stages fill `capacity` transitions.

        Parameters
        ----------
        until
            None stored after this.
        stages
            Stages whose episodes fill the capacity; None: all.
        """
        planned: list[Planned] = []
        held = 0
        query = _training(run, until)
        async with asking("list stored episodes", seconds=120.0):
            cursor = self._episodes.find(query, _PLANNED)
            async for document in cursor.sort([("stored_at", DESCENDING), ("_id", DESCENDING)]):
                planned.append(_planned(document))
                held += planned[-1].transitions if stages is None or planned[-1].stage in stages else 0
                if held >= capacity:
                    break
        return planned

    async def training_transitions(self, run: str, *, until: datetime) -> int:
        """Training transitions stored up to a moment."""
        return await self._sum_transitions(_training(run, until))

    async def transitions_before(self, run: str, oldest: Planned) -> int:
        """Training transitions stored before the given episode."""
        older = [
            {"stored_at": {"$lt": oldest.stored_at}},
            {"stored_at": oldest.stored_at, "_id": {"$lt": oldest.key}},
        ]
        return await self._sum_transitions(_training(run) | {"$or": older})

    async def _sum_transitions(self, match: Document) -> int:
        pipeline: list[Document] = [
            {"$match": match},
            {"$group": {"_id": None, "transitions": {"$sum": "$transitions"}}},
        ]
        async with asking("count stored transitions", seconds=120.0):
            rows = await self._episodes.aggregate(pipeline).to_list(1)
        return int(rows[0]["transitions"]) if rows else 0

    async def keys_since(self, run: str, since: datetime, limit: int = 0) -> list[str]:
        """Keys of the episodes of every role that were stored at or after a moment, oldest first; 0 is no limit."""
        async with asking("look for new episodes"):
            cursor = self._episodes.find({"run": run, "stored_at": {"$gte": since}}, {"_id": 1})
            documents = await cursor.sort([("stored_at", 1), ("_id", 1)]).limit(limit).to_list(None)
        return [document["_id"] for document in documents]

    async def stored_since(self, run: str, since: datetime) -> list[Planned]:
        """Episodes of every role that were stored at or after a moment, oldest first."""
        query = {"run": run, "role": {"$in": list(get_args(Role))}, "stored_at": {"$gte": since}}  # as the index has it
        async with asking("list new episodes", seconds=120.0):
            documents = await self._episodes.find(query, _PLANNED).to_list(None)
        return sorted(map(_planned, documents), key=lambda episode: (episode.stored_at, episode.key))

    async def summaries(self, keys: Sequence[str]) -> list[EpisodeSummary]:
        """Summaries of episodes, oldest first; those that are gone are left out."""
        async with asking("read episodes"):
            cursor = self._episodes.find({"_id": {"$in": list(keys)}}, {"content": 0})
            documents = await cursor.sort([("stored_at", 1), ("_id", 1)]).to_list(None)
        return [_summary(document) for document in documents]

    async def totals(self, run: str, before: datetime) -> dict[str, RoleTotal]:
        """What was stored before a moment, by role."""
        match = {"run": run, "role": {"$in": list(get_args(Role))}, "stored_at": {"$lt": before}}  # as the index has it
        group = {
            "_id": "$role",
            "episodes": {"$sum": 1},
            "steps": {"$sum": "$steps"},
            "transitions": {"$sum": "$transitions"},
        }
        async with asking("count episodes", seconds=120.0):
            rows = await self._episodes.aggregate([{"$match": match}, {"$group": group}]).to_list(None)
        return {row["_id"]: RoleTotal(row["episodes"], int(row["steps"]), int(row["transitions"])) for row in rows}

    async def latest(self, run: str, role: str, limit: int) -> list[EpisodeSummary]:
        """Newest stored episodes of a role, newest first."""
        async with asking("list episodes", seconds=120.0):
            cursor = self._episodes.find({"run": run, "role": role}, {"content": 0})
            documents = await cursor.sort([("stored_at", DESCENDING), ("_id", DESCENDING)]).limit(limit).to_list(limit)
        return [_summary(document) for document in documents]

    async def evaluations(self, run: str, policy_version: int) -> list[EpisodeSummary]:
        """Every evaluation episode of one policy, newest first."""
        query = {"run": run, "role": "evaluate", "policy_version": policy_version}
        async with asking("list evaluations", seconds=120.0):
            documents = await self._episodes.find(query, {"content": 0}).sort("_id", DESCENDING).to_list(None)
        return [_summary(document) for document in documents]

    async def stage_steps(self, run: str, stage: str, before: datetime) -> int:
        """Simulator steps of the training episodes of a stage that were stored before a moment."""
        match = _training(run) | {"stage": stage, "stored_at": {"$lt": before}}
        pipeline: list[Document] = [{"$match": match}, {"$group": {"_id": None, "steps": {"$sum": "$steps"}}}]
        async with asking("count steps", seconds=120.0):
            rows = await self._episodes.aggregate(pipeline).to_list(1)
        return int(rows[0]["steps"]) if rows else 0

    async def evaluated(self, run: str, policy_version: int, stage: str) -> list[Evaluated]:
        """The evaluation episodes of one policy in one stage, one of each seed: an evaluator that was started again
        plays its seeds once more."""
        query: Document = {"run": run, "role": "evaluate", "policy_version": policy_version}
        query["stage"] = stage if stage else {"$in": ["", None]}  # older episodes have no such field
        measured = ("distance_m", "drift_m", "mean_speed_m_per_s", "foot_contacts", "walked")
        wanted = ["seed", "simulator_return", "steps", *measured]
        async with asking("list evaluations"):
            documents = await self._episodes.find(query, wanted).to_list(None)
        return [
            Evaluated(
                score=float(document["simulator_return"]),
                steps=int(document["steps"]),
                **{name: document.get(name) for name in measured},
            )
            for document in {document["seed"]: document for document in documents}.values()
        ]

    async def newest_evaluated(self, run: str) -> int | None:
        """Newest policy that has an evaluation episode."""
        async with asking("look for evaluations", seconds=120.0):
            cursor = self._episodes.find({"run": run, "role": "evaluate"}, {"policy_version": 1})
            documents = await cursor.sort("policy_version", DESCENDING).limit(1).to_list(1)
        return int(documents[0]["policy_version"]) if documents else None

    async def oldest_training(self, run: str, limit: int) -> list[Planned]:
        """The oldest training episodes, oldest first."""
        async with asking("list stored episodes"):
            cursor = self._episodes.find(_training(run), _PLANNED)
            documents = await cursor.sort([("stored_at", 1), ("_id", 1)]).limit(limit).to_list(limit)
        return [_planned(document) for document in documents]

    async def delete(self, run: str, doomed: Sequence[Planned]) -> int:
        """Delete episodes and count what they were, both or neither; how many transitions these were, 0 where another
        replica was faster with some of the episodes."""
        counted = Counter[str]()
        for episode in doomed:
            counted["counters.deleted_transitions"] += episode.transitions
            for quantity, number in (("episodes", 1), ("steps", episode.steps), ("transitions", episode.transitions)):
                counted[f"counters.deleted.{episode.role}.{quantity}"] += number
            if episode.stage:
                counted[f"counters.deleted_stage_steps.{episode.stage}"] += episode.steps
        keys = [episode.key for episode in doomed]
        # Carried to its end though nobody waits any longer: the driver ends a session that is left in the middle of its
        # transaction by aborting that on the event loop, which would wait there for the database.
        deletion = asyncio.ensure_future(self._delete(run, keys, counted))
        self._deletions.add(deletion)
        deletion.add_done_callback(self._forget)
        async with asking("delete old episodes"):
            done = await asyncio.shield(deletion)
        return counted["counters.deleted_transitions"] if done else 0

    async def _delete(self, run: str, keys: Sequence[str], counted: Mapping[str, int]) -> bool:
        async def transaction(session: AsyncIOMotorClientSession) -> bool:
            result = await self._episodes.delete_many({"_id": {"$in": keys}}, session=session)
            if result.deleted_count != len(keys):
                await session.abort_transaction()
                return False
            # Last, because whoever else writes to it waits from here to the end.
            await self._runs.update_one({"_id": run}, {"$inc": dict(counted)}, session=session)
            return True

        session = await self._client.start_session()
        try:
            # Tried again where another write was faster: somebody writes to the run's document twice a second.
            return bool(await session.with_transaction(transaction))
        finally:
            await session.end_session()  # in a thread; leaving `async with session` would do it on the event loop

    def _forget(self, deletion: asyncio.Task[bool]) -> None:
        self._deletions.discard(deletion)
        if not deletion.cancelled():
            deletion.exception()  # told by who waited for it, or that it took too long was


def key_of(run: str, episode_id: UUID) -> str:
    """Id of an episode's document."""
    return f"{run}/{episode_id}"


def _training(run: str, until: datetime | None = None) -> Document:
    """Query for the training episodes of a run, stored at `until` or before."""
    query: Document = {"run": run, "role": {"$in": list(TRAINING_ROLES)}}
    return query if until is None else query | {"stored_at": {"$lte": until}}


def _document(summary: EpisodeSummary) -> Document:
    document: dict[str, Any] = {"_id": key_of(summary.run, summary.episode_id)}
    fields = summary.model_dump(mode="python", exclude={"episode_id"})
    return document | fields | {"seed": summary.seed}


def _summary(document: Document) -> EpisodeSummary:
    fields = {name: value for name, value in document.items() if name not in ("_id", "content")}
    return EpisodeSummary(episode_id=UUID(document["_id"].rpartition("/")[2]), **fields)


def _planned(document: Document) -> Planned:
    return Planned(
        key=document["_id"],
        transitions=int(document["transitions"]),
        steps=int(document["steps"]),
        stored_at=document["stored_at"],
        role=document["role"],
        stage=document.get("stage") or "",
    )
