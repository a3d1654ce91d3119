"""What other replicas have stored: looked for only while there may be any.

Every search reads the key of each episode of the last seconds again. MongoDB answers that from an index, but SecantusDB
decodes the whole documents, which costs it as much as storing them. So a replica that has heard of no other for
`REPLICA_SECONDS` does not search.
"""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import suppress
from datetime import timedelta

from replay_api.constants import BEAT_SECONDS, REPLICA_SECONDS
from replay_api.errors import UnavailableError
from replay_api.services import loading
from replay_api.services.open_run import OpenRun
from replay_api.storage.episodes import EpisodeStore
from replay_api.storage.mongo import DatabaseClock
from replay_api.storage.replicas import ReplicaStore


class Following:
    """Knows whether other replicas live, and takes in what they have stored.

    Parameters
    ----------
    limit_bytes
        Size of a decompressed episode at most.
    """

    def __init__(self, replicas: ReplicaStore, episodes: EpisodeStore, clock: DatabaseClock, limit_bytes: int) -> None:
        self._replicas = replicas
        self._episodes = episodes
        self._clock = clock
        self._limit_bytes = limit_bytes
        self._name = os.urandom(8).hex()
        self._beaten_at = -BEAT_SECONDS
        self._heard: dict[str, tuple[int, float]] = {}  # the number of another, and when it was first seen

    async def announce(self) -> None:
        """Tell the other replicas of this one, unless they were told a moment ago. Before that it must store nothing.

        Raises
        ------
        UnavailableError
            When the database does not answer.
        """
        began = time.monotonic()
        if began >= self._beaten_at + BEAT_SECONDS:
            await self._replicas.beat(self._name)
            self._beaten_at = began

    async def keep_announcing(self) -> None:
        """Announce for as long as this is not cancelled, and wait for nothing else: a search may take minutes."""
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            with suppress(UnavailableError):  # logged where it happened
                await self.announce()

    async def search(self, opened: OpenRun, which: str, overlap_seconds: float) -> None:
        """Search from where the last such search that succeeded began, which may be minutes ago.

        Raises
        ------
        UnavailableError
            When the database does not answer.
        """
        began = time.monotonic()
        await self._clock.ask()
        moment = self._clock.earliest()
        if await self._others_live() or opened.unsettled:
            since = min(opened.followed.get(which, opened.planned_at), moment)  # the database's clock may be set back
            since -= timedelta(seconds=overlap_seconds)
            await loading.follow(opened, self._episodes, self._limit_bytes, since)
        opened.followed[which] = moment
        opened.recent.expire(began)  # the next search looks back from here, however long this one took

    async def _others_live(self) -> bool:
        """Whether another replica has lived in the last `REPLICA_SECONDS`; one that is new is there at once."""
        beats = await self._replicas.beats()
        now = time.monotonic()
        for name, number in beats.items():
            if name != self._name and self._heard.get(name, (None,))[0] != number:
                self._heard[name] = number, now
        gone = [name for name, (_, heard_at) in self._heard.items() if heard_at < now - REPLICA_SECONDS]
        if gone:
            await self._replicas.forget(gone)
            for name in gone:
                del self._heard[name]
        return bool(self._heard)
