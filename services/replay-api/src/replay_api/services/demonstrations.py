"""Which episodes a new run is shown: the training episodes that another holds when it is created."""

from __future__ import annotations

from gaitfleet.errors import ExperimentError
from gaitfleet.experiment import DemonstrationSettings
from gaitfleet.task.compatibility import check_replayable
from gaitfleet.task.stages import stage_tasks
from gaitfleet.wire import RunDescription, RunParent
from replay_api.errors import RejectedError
from replay_api.storage.episodes import EpisodeStore
from replay_api.storage.mongo import DatabaseClock
from replay_api.storage.runs import RunStore


async def shown(
    new: RunDescription,
    settings: DemonstrationSettings,
    runs: RunStore,
    episodes: EpisodeStore,
    clock: DatabaseClock,
) -> list[RunParent]:
    """The other run and those that it was forked from, with what they hold at this moment.

    Raises
    ------
    RejectedError
        When there is no such run, its episodes cannot be learned from in every stage of the new one, or it holds none.
    """
    field = "demonstrations.run"
    source = await runs.get(settings.run)
    if source is None or settings.run == new.run:
        detail = f"{field} is {settings.run!r}: there is no other run of this name"
        raise RejectedError(detail, field=field, reason="experiment")
    try:
        for recorded in stage_tasks(source.description.experiment):
            for task in stage_tasks(new.experiment):
                check_replayable(recorded, task)
    except ExperimentError as error:
        detail = f"{field} is {settings.run!r}, and its episodes cannot be learned from here: {error}"
        raise RejectedError(detail, field=field, reason="experiment") from None
    await clock.ask()
    moment = clock.now()
    held = await episodes.training_transitions(settings.run, until=moment)
    parents = [RunParent(run=settings.run, until=moment, transitions=held), *source.description.parents]
    if not sum(parent.transitions for parent in parents):
        detail = f"{field} is {settings.run!r}: it holds no training episode"
        raise RejectedError(detail, field=field, reason="experiment")
    return parents
