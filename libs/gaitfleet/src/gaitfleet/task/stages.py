"""The tasks of a run's stages, held against each other."""

from __future__ import annotations

from gaitfleet.errors import ExperimentError
from gaitfleet.experiment import Experiment
from gaitfleet.task.compatibility import check_networks, check_replayable
from gaitfleet.task.interface import Task
from gaitfleet.task.registry import make_task


def stage_tasks(experiment: Experiment) -> tuple[Task, ...]:
    """The task of every stage; of a run without a curriculum, its only one.

    Raises
    ------
    ExperimentError
        When a task cannot be made, when networks could not be carried over to a stage, or when a stage keeps episodes
        that it cannot use; names the stage.
    """
    tasks: list[Task] = []
    for index, name in enumerate(experiment.stage_names):
        try:
            tasks.append(make_task(experiment.task_at(index)))
            _check(experiment, tasks)
        except ExperimentError as error:
            if experiment.curriculum is None:
                raise
            raise ExperimentError(f"curriculum.stages.{name}: {error}") from None
    return tuple(tasks)


def tasks_by_stage(experiment: Experiment) -> dict[str, Task]:
    """The same by the stage that an episode's metadata names."""
    return dict(zip(experiment.stage_names, stage_tasks(experiment), strict=True))


def _check(experiment: Experiment, tasks: list[Task]) -> None:
    """Hold the last of the tasks against the one before it, and its gate against its time limit."""
    stage = experiment.stage_at(len(tasks) - 1)
    if stage is None:
        return
    if len(tasks) > 1:
        check_networks(tasks[-2], tasks[-1])
        old, new = (task.description.state_layout.hash for task in tasks[-2:])
        if old != new:
            raise ExperimentError(f"the state layout was {old}, here it is {new}: a run has one")
        if stage.replay == "keep" or stage.former is not None:
            check_replayable(tasks[-2], tasks[-1])
        if stage.blend_environment_steps is not None:
            _check_blend(experiment, tasks, stage.blend_environment_steps)
    limit = tasks[-1].description.time_limit_steps
    if stage.gate is not None and stage.gate.survival is not None and stage.gate.survival.steps > limit:
        asked = stage.gate.survival.steps
        raise ExperimentError(f"gate.survival.steps is {asked}; an episode has {limit} steps at most")


def _check_blend(experiment: Experiment, tasks: list[Task], steps: int) -> None:
    """Whether the reward of the stage before can be computed in the last of the tasks, and is another."""
    index, old = len(tasks) - 1, tasks[-2].description
    before = experiment.stage_names[index - 1]
    if old.has_target_velocity and not tasks[-1].description.has_target_velocity:
        raise ExperimentError(
            f"blend_environment_steps is {steps}: the reward of {before} is for a target velocity, which episodes do "
            "not have here"
        )
    deciding = {"round", "reward", "reward_scale"}
    was, here = (experiment.task_at(at).model_dump(include=deciding) for at in (index - 1, index))
    if was == here:
        raise ExperimentError(f"blend_environment_steps is {steps}: the reward is that of {before} already")
