"""Stored timesteps as bytes: JSON, CSV or Parquet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np

from gaitfleet.episode import Episode
from gaitfleet.errors import LayoutError
from gaitfleet.task.interface import Task
from gaitfleet.timesteps import Timesteps, Values
from replay_api.errors import RejectedError

TableFormat = Literal["json", "csv", "parquet"]

MEDIA_TYPES: dict[TableFormat, str] = {
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
}

MAX_PATTERNS = 1000
"""Patterns in one request: every one is held against every column."""

SLICE_VALUES = 4000
"""Numbers that are written in one call: some milliseconds."""

Table = dict[str, Values]


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
    timesteps = Timesteps(episode.trajectory, task)
    try:
        chosen = timesteps.chosen(patterns)
    except LayoutError as error:
        raise RejectedError(str(error), field="columns", reason="unknown_column") from None
    steps = episode.trajectory.steps
    if len(chosen) * steps > max_values:
        detail = f"{len(chosen)} columns of {steps} steps; at most {max_values} numbers are sent, name fewer columns"
        raise RejectedError(detail, field="columns", reason="limit")
    return {name: timesteps.column(name) for name in ("step", *chosen)}


def encode_table(table: Table, form: TableFormat) -> bytes:
    """A table as bytes."""
    match form:
        case "json":
            return _json(table)
        case "csv":
            return _csv(table)
        case "parquet":
            return _parquet(table)


def _json(table: Table) -> bytes:
    rows = ", ".join(json.dumps(slice)[1:-1] for slice in _slices(table))
    return f'{{"columns": {json.dumps(list(table))}, "rows": [{rows}]}}'.encode()


def _csv(table: Table) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table)
    for rows in _slices(table):
        writer.writerows(rows)
    return text.getvalue().encode()


def _slices(table: Table) -> Iterator[list[tuple[Any, ...]]]:
    """A few rows at a time: to write them is one call, in which no other thread has the interpreter."""
    columns = list(table.values())
    steps = max(1, SLICE_VALUES // len(columns))
    for start in range(0, len(columns[0]), steps):
        yield list(zip(*(column[start : start + steps].tolist() for column in columns), strict=True))


def _parquet(table: Table) -> bytes:
    import pyarrow
    import pyarrow.parquet

    sink = pyarrow.BufferOutputStream()
    arrays = {name: np.ascontiguousarray(column) for name, column in table.items()}
    pyarrow.parquet.write_table(pyarrow.table(arrays), sink, compression="zstd")
    return bytes(sink.getvalue())
