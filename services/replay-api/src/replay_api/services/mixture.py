"""What a batch is drawn from: the run's own transitions, and others beside them for a share of every batch."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from gaitfleet.wire import SourceName
from replay_api.services.cache import TransitionCache
from replay_api.storage.episodes import Planned


@dataclass(frozen=True, eq=False)
class Source:
    """Transitions that are held beside the run's own.

    Parameters
    ----------
    share
        Share of every batch that comes from here, while there is anything.
    planned
        Stored episodes that fill it.
    stages
        Stages of the run whose episodes belong here; those that arrive late still come in.
    environment_steps
        Simulator steps of training in the stage after which nothing comes from here any more; None: never.
    """

    name: SourceName
    cache: TransitionCache
    share: float
    planned: Sequence[Planned]
    stages: Collection[str] = ()
    environment_steps: int | None = None

    def filled(self, least: int) -> bool:
        """Whether it holds so many transitions, or as many as it ever will; half of its capacity always fits."""
        planned = sum(episode.transitions for episode in self.planned)
        return self.cache.transitions >= min(least, planned, self.cache.capacity // 2)

    def over(self, stage_steps: int) -> bool:
        """Whether it has ended."""
        return self.environment_steps is not None and stage_steps >= self.environment_steps


@dataclass(frozen=True, slots=True)
class Portion:
    """So many rows of a batch, and where they are drawn from."""

    name: SourceName
    cache: TransitionCache
    rows: int


def portions(
    own: TransitionCache, sources: Sequence[Source], batch_size: int, random: np.random.Generator
) -> tuple[Portion, ...]:
    """How a batch is made up: the run's own rows first.

    A share that makes no whole number of rows is rounded up or down at random, so that it holds on average: where one
    source's rows end is rounded by the same draw for all (systematic sampling). The shares add up to less than 1; the
    run's own rows are what is left.
    """
    beside: list[Portion] = []
    draw, share, begin = random.random(), 0.0, 0
    for source in sources:
        if source.cache.transitions:
            share += source.share
            end = math.floor(share * batch_size + draw)
            beside.append(Portion(source.name, source.cache, end - begin))
            begin = end
    return (Portion("run", own, batch_size - begin), *beside)
