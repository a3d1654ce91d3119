"""The memory of a run that is opened: empty caches, and which stored episodes fill them."""

from __future__ import annotations

from dataclasses import replace

from gaitfleet.course_settings import StageSettings
from gaitfleet.task.interface import TaskDescription
from gaitfleet.wire import RunDescription
from replay_api.services import loading
from replay_api.services.cache import Row, TransitionCache
from replay_api.services.mixture import Source
from replay_api.storage.episodes import EpisodeStore


class Memory:
    """Makes the caches of a run in the stage that it is in.

    Parameters
    ----------
    task
        Of that stage.
    stage_steps
        Simulator steps of training that are stored in it.
    """

    def __init__(self, description: RunDescription, task: TaskDescription, stage_steps: int) -> None:
        self._description = description
        self._task = task
        self._stage_steps = stage_steps

    def cache(self, place: int = 0) -> TransitionCache:
        """An empty cache; caches of different places share no serial."""
        experiment, stage = self._description.experiment, self._stage
        prioritized = experiment.replay.sampling == "prioritized"
        return TransitionCache(
            experiment.replay.capacity,
            Row(self._task.observation_size, self._task.action_size),
            discount=experiment.algorithm.discount,
            priority_exponent=experiment.replay.priority_exponent if prioritized else None,
            blended=stage is not None and stage.reward_weight(self._stage_steps) < 1.0,
            place=place,
        )

    async def sources(self, plan: loading.LoadPlan, episodes: EpisodeStore) -> tuple[Source, ...]:
        """What is sampled beside the run's own transitions, which `plan` says."""
        return (*await self._former(plan, episodes), *await self._demonstrations(episodes))

    async def _demonstrations(self, episodes: EpisodeStore) -> tuple[Source, ...]:
        run, settings = self._description, self._description.experiment.demonstrations
        if settings is None:
            return ()
        capacity = run.experiment.replay.capacity
        planned = await loading.plan_of_others(run.run, run.demonstrations, capacity, episodes)
        return (Source("demonstrations", self.cache(place=2), settings.share, planned),)

    async def _former(self, plan: loading.LoadPlan, episodes: EpisodeStore) -> tuple[Source, ...]:
        """What was learned from in the stage before, while the stage asks for a share of it.

        What was stored after `plan` is left out: it is followed, and would be in memory twice.
        """
        stage = self._stage
        if stage is None or stage.former is None or self._stage_steps >= stage.former.environment_steps:
            return ()
        before = self._description.model_copy(update={"stage": self._description.stage - 1})
        former = await loading.plan_of(before, episodes)
        former = replace(former, own=plan.known(former.own))
        source = Source(
            name="former",
            cache=self.cache(place=1),
            share=stage.former.share,
            planned=former.episodes,
            stages=former.stages,
            environment_steps=stage.former.environment_steps,
        )
        return (source,)

    @property
    def _stage(self) -> StageSettings | None:
        return self._description.experiment.stage_at(self._description.stage)
