"""Filling the memory from the database, newest first, and following what other replicas store."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise

from gaitfleet import codec
from gaitfleet.episode import decode_episode
from gaitfleet.wire import RunDescription, RunParent
from replay_api.constants import LOAD_CHUNK_EPISODES
from replay_api.errors import UnavailableError
from replay_api.services.cache import TransitionCache
from replay_api.services.open_run import OpenRun, learned_stages
from replay_api.services.retelling import retold
from replay_api.services.transitions import Transitions, check_finite, transitions_of
from replay_api.storage.episodes import EpisodeStore, Planned, key_of

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """Which stored episodes fill the memory.

    Parameters
    ----------
    own
        Of the run, newest first; also those of stages that are not learned from any more.
    inherited
        Of the runs that it was forked from, newest first.
    stages
        Stages of the run that are learned from.
    """

    own: Sequence[Planned]
    inherited: Sequence[Planned]
    stages: Collection[str]

    @property
    def episodes(self) -> Sequence[Planned]:
        """Those to be loaded, newest first."""
        return [*(planned for planned in self.own if planned.stage in self.stages), *self.inherited]

    def known(self, episodes: Iterable[Planned]) -> list[Planned]:
        """Those of the run's training episodes that are in this plan, or too old for it; the others were stored after
        it, and are followed."""
        keys = {planned.key for planned in self.own}
        oldest = min(((planned.stored_at, planned.key) for planned in self.own), default=None)
        return [
            episode
            for episode in episodes
            if episode.key in keys or (oldest is not None and (episode.stored_at, episode.key) < oldest)
        ]


async def plan_of(description: RunDescription, episodes: EpisodeStore) -> LoadPlan:
    """The newest training episodes that fit: the run's own, then its parents', unless a stage began without them."""
    room = description.experiment.replay.capacity
    stages = learned_stages(description)
    own = await episodes.plan(description.run, room, stages=stages)
    room -= transitions_in([planned for planned in own if planned.stage in stages])
    if description.experiment.stage_names[0] not in stages:
        return LoadPlan(own, [], stages)
    return LoadPlan(own, await plan_of_others(description.run, description.parents, room, episodes), stages)


async def plan_of_others(run: str, others: Sequence[RunParent], room: int, episodes: EpisodeStore) -> Sequence[Planned]:
    """The newest training episodes of other runs that fit, run after run."""
    found: list[Planned] = []
    for other in others:
        if room > 0:
            planned = await episodes.plan(other.run, room, until=other.until)
            room -= transitions_in(planned)
            found += planned
    recorded = sum(other.transitions for other in others)
    if room > 0 and (left := transitions_in(found)) < recorded:
        words = "episodes of other runs that this one learns from are gone"
        _log.warning(words, extra={"run": run, "transitions": recorded, "left": left})
    return found


def transitions_in(planned: Sequence[Planned]) -> int:
    """Their number."""
    return sum(episode.transitions for episode in planned)


async def fill(run: OpenRun, episodes: EpisodeStore, plan: Sequence[Planned], limit_bytes: int) -> None:
    """Load the planned episodes, and those of the sources beside them; sampling begins as soon as the minimum of each
    is there."""
    began = time.monotonic()
    plans = [(run.cache, plan), *((source.cache, source.planned) for source in run.sources)]
    await asyncio.gather(*(_fill(run, cache, episodes, planned, limit_bytes) for cache, planned in plans))
    run.loading = False
    run.limiter.wake()
    seconds = time.monotonic() - began
    run.metrics.rebuild_seconds.labels(run.run).set(seconds)
    held = sum(cache.transitions for cache, _ in plans)
    _log.info("transitions are loaded", extra={"run": run.run, "transitions": held, "seconds": round(seconds, 3)})


async def _fill(
    run: OpenRun, cache: TransitionCache, episodes: EpisodeStore, plan: Sequence[Planned], limit_bytes: int
) -> None:
    """Load the planned episodes into a cache, newest first."""
    loop = asyncio.get_running_loop()
    chunks = [*_chunks(plan), ()]  # after the last one, nothing
    ahead = asyncio.ensure_future(_fetch(episodes, chunks[0]))
    try:
        for chunk, following in pairwise(chunks):
            contents = await ahead
            ahead = asyncio.ensure_future(_fetch(episodes, following))
            fits = await loop.run_in_executor(run.threads, _fill_chunk, run, cache, chunk, contents, limit_bytes)
            run.limiter.wake()
            if not fits:
                break
    finally:
        ahead.cancel()


async def follow(run: OpenRun, episodes: EpisodeStore, limit_bytes: int, since: datetime) -> None:
    """Take in episodes that are in the database and not yet here: another replica's, or one whose answer was lost."""
    keys = run.recent.keep(await episodes.keys_since(run.run, since))
    for chunk in (keys[i : i + LOAD_CHUNK_EPISODES] for i in range(0, len(keys), LOAD_CHUNK_EPISODES)):
        contents = await episodes.contents(chunk)
        for summary in await episodes.summaries(chunk):
            key = key_of(run.run, summary.episode_id)
            if key not in contents or not run.recent.add(key):
                continue
            transitions = None
            if summary.role != "evaluate" and run.cache_of(summary.stage) is not None:
                loop = asyncio.get_running_loop()
                transitions = await loop.run_in_executor(run.threads, _readable, key, contents[key], run, limit_bytes)
            await run.admit(summary, transitions)


def _readable(key: str, content: bytes, run: OpenRun, limit_bytes: int) -> Transitions | None:
    """Rows of a stored episode; None, counted and logged, where there are none that can be learned from."""
    try:
        return read_transitions(content, run, limit_bytes)
    except Exception:  # whatever it is, it keeps no other out
        run.metrics.corrupt_episodes.labels(run.run).inc()
        _log.exception("a stored episode cannot be learned from", extra={"run": run.run, "episode": key})
        return None


def read_transitions(content: bytes, run: OpenRun, limit_bytes: int) -> Transitions:
    """Rows of a stored episode: of this run in any stage, or of another, whose policies never acted here.

    Raises
    ------
    CodecError
        When it is no episode.
    RejectedError
        When a number that is derived from it is not finite: another task may make of its states what its own did not.
    """
    episode = decode_episode(codec.decompress(content, limit_bytes=limit_bytes))
    if episode.metadata.run != run.run:
        episode = replace(episode, metadata=episode.metadata.model_copy(update={"policy_version": 0}))
    if not run.as_recorded(episode.metadata):
        episode = retold(episode, run.task)
    transitions = transitions_of(episode, run.task, run.former_task)
    check_finite(transitions)
    return transitions


async def _fetch(episodes: EpisodeStore, chunk: Sequence[Planned]) -> dict[str, bytes]:
    while chunk:
        try:
            return await episodes.contents([planned.key for planned in chunk])
        except UnavailableError:
            await asyncio.sleep(1.0)  # the database comes back, or the service ends
    return {}


def _fill_chunk(
    run: OpenRun, cache: TransitionCache, chunk: Sequence[Planned], contents: dict[str, bytes], limit_bytes: int
) -> bool:
    for planned in chunk:
        if planned.key not in contents:  # retention has deleted it meanwhile
            continue
        transitions = _readable(planned.key, contents[planned.key], run, limit_bytes)
        if transitions is not None and not cache.fill(transitions, planned.stored_at.timestamp()):
            return False
    return True


def _chunks(plan: Sequence[Planned]) -> Iterator[Sequence[Planned]]:
    for start in range(0, len(plan), LOAD_CHUNK_EPISODES):
        yield plan[start : start + LOAD_CHUNK_EPISODES]
