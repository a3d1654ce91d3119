"""Whether a new run can begin with another's networks, as far as that can be said before its trainer starts."""

from __future__ import annotations

from gaitfleet.errors import ExperimentError
from gaitfleet.experiment import WarmStartSettings
from gaitfleet.task.compatibility import check_networks
from gaitfleet.task.stages import stage_tasks
from gaitfleet.wire import RunDescription
from replay_api.errors import RejectedError
from replay_api.storage.checkpoint_records import CheckpointRecords
from replay_api.storage.runs import RunStore


async def check_warm_start(
    new: RunDescription, settings: WarmStartSettings, runs: RunStore, records: CheckpointRecords
) -> None:
    """Look for the other run, its observation and actions, and a checkpoint that is named by its step.

    Raises
    ------
    RejectedError
        Naming what is missing or differs.
    """
    source = await runs.get(settings.run)
    if source is None or settings.run == new.run:
        detail = f"warm_start.run is {settings.run!r}: there is no other run of this name"
        raise RejectedError(detail, field="warm_start.run", reason="experiment")
    try:
        check_networks(stage_tasks(source.description.experiment)[0], stage_tasks(new.experiment)[0])
    except ExperimentError as error:
        detail = f"the networks of run {settings.run!r} do not fit: {error}"
        raise RejectedError(detail, field="warm_start.run", reason="experiment") from None
    step = settings.checkpoint
    if isinstance(step, int) and await records.get(settings.run, step) is None:
        detail = f"warm_start.checkpoint is {step}: run {settings.run!r} keeps no checkpoint of this step"
        raise RejectedError(detail, field="warm_start.checkpoint", reason="experiment")
