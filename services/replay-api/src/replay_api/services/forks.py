"""Forking a run: a new one that learns from the stored episodes of another too, without copying them."""

from __future__ import annotations

from gaitfleet.errors import ExperimentError
from gaitfleet.task.compatibility import check_replayable
from gaitfleet.task.stages import stage_tasks
from gaitfleet.wire import ForkRequest, RunDescription, RunParent
from replay_api.errors import ExperimentConflictError, RejectedError
from replay_api.services.event_log import EventLog
from replay_api.services.opening import Stores, inherited_transitions
from replay_api.services.registry import RunRegistry


class Forks:
    """Makes forks."""

    def __init__(self, registry: RunRegistry, stores: Stores, events: EventLog) -> None:
        self._registry = registry
        self._stores = stores
        self._events = events

    async def create(self, parent: str, request: ForkRequest) -> tuple[RunDescription, bool]:
        """Fork a run; the new run's description, and whether it is new.

        The fork refers to the training episodes that the parent, and those it was forked from, hold at this moment.
        They are no insertions of the fork: the pace of the trainer follows what the fork collects itself. But they
        count towards `min_size`, and no samples are owed for it, so that the trainer begins at once;
        `samples_per_inherited` allows more.

        Raises
        ------
        RunMissingError
            When there is no such parent.
        RejectedError
            When its episodes cannot be learned from in the new task, or what the new run takes from others cannot be
            had.
        ExperimentConflictError
            When the new id is taken, and not by the same fork.
        """
        old = (await self._registry.record(parent)).description
        new = self._registry.describe(request.run, request.experiment)
        first = stage_tasks(new.experiment)[0]
        try:
            for recorded in stage_tasks(old.experiment):
                check_replayable(recorded, first)
        except ExperimentError as error:
            detail = f"run {parent!r} cannot be forked with this experiment: {error}"
            raise RejectedError(detail, field="experiment.task", reason="experiment") from None
        new = await self._registry.taking(new)
        await self._stores.clock.ask()
        moment = self._stores.clock.now()
        held = await self._stores.episodes.training_transitions(parent, until=moment)
        parents = [RunParent(run=parent, until=moment, transitions=held), *old.parents]
        new = new.model_copy(update={"parents": parents})
        inherited, replay = inherited_transitions(new), request.experiment.replay
        credit = replay.samples_per_insert * min(replay.min_size, inherited) + request.samples_per_inherited * inherited
        if await self._stores.runs.insert(new, credit=credit):
            await self._tell(new, credit, again=False)
            return new, True
        existing = await self._existing(new)
        await self._tell(existing, (await self._registry.record(new.run)).credit, again=True)
        return existing, False

    async def _tell(self, fork: RunDescription, credit: float, *, again: bool) -> None:
        """Write the first events; `again`: those that its creation did not come to."""
        await self._registry.tell_start(fork, again=again)
        parents = [parent.run for parent in fork.parents]
        inherited = {"parents": parents, "transitions": inherited_transitions(fork), "credit": credit}
        await self._events.complete(fork.run, "episodes_inherited", {}, again=again, **inherited)
        into, told = {"into": fork.run}, {"experiment_hash": fork.experiment_hash}
        await self._events.complete(parents[0], "run_forked", into, again=again, **told)

    async def _existing(self, new: RunDescription) -> RunDescription:
        """The run that has the id already: the same fork, made by an attempt whose answer was lost, or another."""
        existing = (await self._registry.record(new.run)).description
        same = [item.run for item in existing.parents] == [item.run for item in new.parents]
        if not same or existing.experiment_hash != new.experiment_hash:
            detail = f"there is a run {new.run!r} already: choose another id for the fork"
            raise ExperimentConflictError(detail, field="run", reason="experiment")
        return existing
