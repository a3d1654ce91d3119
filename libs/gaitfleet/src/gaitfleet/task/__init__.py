"""Tasks: what is simulated, as data and pure numpy functions over whole episodes.

`make_task` turns the settings of an experiment into a `Task`. The rollout worker asks it one step at a time, the
replay API one episode at a time; both get bitwise the same numbers, because both call the same functions on the same
float32 rows.
"""

from gaitfleet.task.interface import Task, TaskDescription
from gaitfleet.task.registry import make_task

__all__ = ["Task", "TaskDescription", "make_task"]
