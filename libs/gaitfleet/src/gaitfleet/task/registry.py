"""From settings to task."""

from __future__ import annotations

from gaitfleet.experiment import GymnasiumTask, ProstheticsTask
from gaitfleet.task.gymnasium_task import GymnasiumTaskFunctions
from gaitfleet.task.interface import Task
from gaitfleet.task.prosthetics import ProstheticsTaskFunctions


def make_task(settings: ProstheticsTask | GymnasiumTask) -> Task:
    """The functions of the task that `settings` describe.

    Raises
    ------
    ExperimentError
        When a Gymnasium id is not known by name and the settings do not state its spaces.
    """
    if isinstance(settings, GymnasiumTask):
        return GymnasiumTaskFunctions(settings)
    return ProstheticsTaskFunctions(settings)
