"""Stored timesteps as a table: state columns, actions, rewards, and what the task derives from them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Literal

import numpy as np
import numpy.typing as npt

from gaitfleet.episode import Episode
from gaitfleet.task.interface import Task
from replay_api.errors import RejectedError

TableFormat = Literal["json", "csv", "parquet"]

MEDIA_TYPES: dict[TableFormat, str] = {
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
}

MAX_PATTERNS = 1000
"""Patterns in one request: every one is held against every column."""

Column = npt.NDArray[np.generic]
Table = dict[str, Column]


def table_of(episode: Episode, task: Task, patterns: Sequence[str], max_values: int) -> Table:
    """Columns by name, one row a simulator step: the state *before* the step, what was done, what it earned.

    Parameters
    ----------
    patterns
        Names or `fnmatch` patterns. Columns come in the order of the patterns, none twice.
    max_values
        Numbers in the table at most.

    Raises
    ------
    RejectedError
        When a pattern fits no column, or the table would be too large.
    """
    if len(patterns) > MAX_PATTERNS:
        raise RejectedError(
            f"{len(patterns)} patterns; at most {MAX_PATTERNS} are accepted", field="columns", reason="limit"
        )
    names = _names(task, episode)
    chosen: dict[str, None] = {}
    for pattern in patterns:
        fitting = [pattern] if pattern in names else [name for name in names if fnmatchcase(name, pattern)]
        if not fitting:
            raise RejectedError(f"no column fits {pattern!r}", field="columns", reason="unknown_column")
        chosen |= dict.fromkeys(fitting)
    steps = episode.trajectory.steps
    if len(chosen) * steps > max_values:
        detail = f"{len(chosen)} columns of {steps} steps; at most {max_values} numbers are sent, name fewer columns"
        raise RejectedError(detail, field="columns", reason="limit")
    sources = _Sources(episode, task)
    return {name: sources.column(name) for name in ("step", *chosen)}


def encode_table(table: Table, form: TableFormat) -> bytes:
    """A table as bytes."""
    match form:
        case "json":
            columns = {name: column.tolist() for name, column in table.items()}
            return json.dumps({"columns": list(table), "rows": list(zip(*columns.values(), strict=True))}).encode()
        case "csv":
            return _csv(table)
        case "parquet":
            return _parquet(table)


def _names(task: Task, episode: Episode) -> dict[str, None]:
    """Every column there is, in order."""
    description = task.description
    velocity = () if episode.trajectory.target_velocity is None else tuple(f"target_velocity/{axis}" for axis in "xyz")
    terms = task.reward_terms(episode.trajectory)
    return dict.fromkeys(
        (
            *(column.name for column in description.state_layout.columns),
            *(f"action/{_bare(name, 'action')}" for name in description.action_names),
            "reward",
            "learned_reward",
            "decision",
            *velocity,
            *(f"reward_term/{name}" for name in terms),
            *(f"observation/{_bare(name, 'observation')}" for name in description.observation_names),
        )
    )


def _bare(name: str, group: str) -> str:
    return name.removeprefix(f"{group}/")


class _Sources:
    """Where a column comes from; derived ones are computed when the first of them is asked for."""

    def __init__(self, episode: Episode, task: Task) -> None:
        self._trajectory = episode.trajectory
        self._task = task
        description = task.description
        self._actions = {f"action/{_bare(name, 'action')}": i for i, name in enumerate(description.action_names)}
        self._observed = {
            f"observation/{_bare(name, 'observation')}": i for i, name in enumerate(description.observation_names)
        }
        self._state = {column.name: i for i, column in enumerate(description.state_layout.columns)}
        self._observation: Column | None = None
        self._terms: dict[str, Column] | None = None

    def column(self, name: str) -> Column:
        """One column, a row for every step."""
        trajectory, steps = self._trajectory, self._trajectory.steps
        kind, _, rest = name.partition("/")
        column: Column
        if name in self._state:
            column = trajectory.state[:steps, self._state[name]]
        elif name in self._actions:
            column = trajectory.action[:, self._actions[name]]
        elif name in self._observed:
            column = self._observations()[:, self._observed[name]]
        elif kind == "target_velocity" and trajectory.target_velocity is not None:
            column = trajectory.target_velocity[:steps, "xyz".index(rest)]
        elif kind == "reward_term":
            column = self._reward_terms()[rest]
        elif name == "step":
            column = np.arange(steps)
        else:
            plain: Table = {"reward": trajectory.reward, "decision": trajectory.decision}
            column = plain[name] if name in plain else self._task.reward(trajectory)
        return column

    def _observations(self) -> Column:
        if self._observation is None:
            trajectory, steps = self._trajectory, self._trajectory.steps
            velocity = None if trajectory.target_velocity is None else trajectory.target_velocity[:steps]
            self._observation = self._task.observe(trajectory.state[:steps], velocity)
        return self._observation

    def _reward_terms(self) -> dict[str, Column]:
        if self._terms is None:
            self._terms = dict(self._task.reward_terms(self._trajectory))
        return self._terms


def _csv(table: Table) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table)
    writer.writerows(zip(*(column.tolist() for column in table.values()), strict=True))
    return text.getvalue().encode()


def _parquet(table: Table) -> bytes:
    import pyarrow
    import pyarrow.parquet

    sink = pyarrow.BufferOutputStream()
    arrays = {name: np.ascontiguousarray(column) for name, column in table.items()}
    pyarrow.parquet.write_table(pyarrow.table(arrays), sink, compression="zstd")
    return bytes(sink.getvalue())
