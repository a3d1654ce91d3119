"""The steps of an episode as named columns: what was recorded, and what the task derives from it.

One row is one simulator step: the state *before* the step, what was done, what it earned. The replay API and
`gaitfleet export` take their tables from here, so that a column means the same in both.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import translate
from functools import cached_property

import numpy as np
import numpy.typing as npt

from gaitfleet.errors import LayoutError
from gaitfleet.task.interface import Task
from gaitfleet.trajectory import Float32, Float64, Trajectory

Values = npt.NDArray[np.generic]

MAX_PATTERN_CHARACTERS = 200
"""Of a pattern for columns, whose names have a quarter of that; what is made of it grows with its length."""

VELOCITY_DIRECTIONS = {"x": "forward", "y": "up", "z": "right"}


class Timesteps:
    """Columns of an episode under a task; derived ones are computed when the first of them is asked for.

    Parameters
    ----------
    trajectory
        What was recorded, T steps.
    task
        Whose reward terms and observation are derived.

    Attributes
    ----------
    names
        Every column there is, in order: state columns, ``action/…``, ``reward`` (the simulator's), ``learned_reward``,
        ``decision``, ``target_velocity/…``, ``reward_term/…``, ``observation/…``.
    default_names
        All of them but the observation, which the others and the task give at any time.
    """

    def __init__(self, trajectory: Trajectory, task: Task) -> None:
        self._trajectory = trajectory
        self._task = task
        description = task.description
        self._state = {column.name: i for i, column in enumerate(description.state_layout.columns)}
        self._actions = {_within("action", name): i for i, name in enumerate(description.action_names)}
        self._observed = {_within("observation", name): i for i, name in enumerate(description.observation_names)}
        velocity = () if trajectory.target_velocity is None else tuple(f"target_velocity/{axis}" for axis in "xyz")
        terms = tuple(f"reward_term/{name}" for name in self._terms)
        plain = ("reward", "learned_reward", "decision")
        self.default_names = tuple(dict.fromkeys((*self._state, *self._actions, *plain, *velocity, *terms)))
        self.names = tuple(dict.fromkeys((*self.default_names, *self._observed)))

    def chosen(self, patterns: Sequence[str]) -> list[str]:
        """Columns in the order of names or `fnmatch` patterns, none twice.

        Raises
        ------
        LayoutError
            When a pattern fits no column.
        """
        known = frozenset(self.names)
        chosen: dict[str, None] = {}
        for pattern in patterns:
            fitting = [pattern] if pattern in known else self._fitting(pattern)
            if not fitting:
                raise LayoutError(f"no column fits {pattern!r:.300}")
            chosen |= dict.fromkeys(fitting)
        return list(chosen)

    def _fitting(self, pattern: str) -> list[str]:
        if len(pattern) > MAX_PATTERN_CHARACTERS:
            raise LayoutError(f"a pattern has {len(pattern)} characters, at most {MAX_PATTERN_CHARACTERS} are accepted")
        # not `fnmatchcase`, which keeps the last 32,768 patterns that anybody asked for
        fits = re.compile(translate(pattern)).match
        return [name for name in self.names if fits(name)]

    def column(self, name: str) -> Values:
        """The values of one of `names`, or of ``step``, [T]."""
        trajectory, steps = self._trajectory, self._trajectory.steps
        kind, _, rest = name.partition("/")
        column: Values
        if name in self._state:
            column = trajectory.state[:steps, self._state[name]]
        elif name in self._actions:
            column = trajectory.action[:, self._actions[name]]
        elif name in self._observed:
            column = self._observation[:, self._observed[name]]
        elif kind == "target_velocity" and trajectory.target_velocity is not None:
            column = trajectory.target_velocity[:steps, "xyz".index(rest)]
        elif kind == "reward_term":
            column = self._terms[rest]
        elif name == "step":
            column = np.arange(steps)
        else:
            plain: dict[str, Values] = {"reward": trajectory.reward, "decision": trajectory.decision}
            column = plain[name] if name in plain else self._task.reward(trajectory)
        return column

    def meaning(self, name: str) -> dict[str, str]:
        """What is known of a column: ``unit``, ``positive`` (what a positive value means), ``low`` and ``high``."""
        description = self._task.description
        if name in self._state:
            column = description.state_layout.columns[self._state[name]]
            return {"unit": column.unit} | ({"positive": column.positive} if column.positive else {})
        if name in self._actions:
            i = self._actions[name]
            return {"low": f"{description.action_low[i]:g}", "high": f"{description.action_high[i]:g}"}
        kind, _, rest = name.partition("/")
        if kind == "target_velocity":
            return {"unit": "m/s", "positive": VELOCITY_DIRECTIONS[rest]}
        return {} if kind == "observation" else {"unit": "1"}

    @cached_property
    def _observation(self) -> Float32:
        trajectory, steps = self._trajectory, self._trajectory.steps
        velocity = None if trajectory.target_velocity is None else trajectory.target_velocity[:steps]
        return self._task.observe(trajectory.state[:steps], velocity)

    @cached_property
    def _terms(self) -> dict[str, Float64]:
        return dict(self._task.reward_terms(self._trajectory))


def _within(group: str, name: str) -> str:
    return f"{group}/{name.removeprefix(f'{group}/')}"
