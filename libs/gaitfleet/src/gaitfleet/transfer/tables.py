"""The tables of an export: Parquet files that pandas, polars and DuckDB read as one.

Episodes are collected until they fill a row group, and row groups until they fill a file, so that memory holds one row
group whatever the size of the run. `episodes/part-N` is written after `timesteps/part-N`: an episode that it names is
there.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import AwareDatetime, BaseModel

from gaitfleet.episode import Episode
from gaitfleet.errors import GaitfleetError
from gaitfleet.task.stages import tasks_by_stage
from gaitfleet.timesteps import Timesteps
from gaitfleet.transfer.directory import clear_unfinished, finish, unfinished
from gaitfleet.wire import EpisodeSummary, RunDescription

ROW_GROUP_STEPS = 8192
"""Simulator steps in a row group: 15 MB of the walker's columns."""

ID_COLUMN = "episode_id"

_TYPES = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), AwareDatetime: pa.timestamp("ms", tz="UTC")}


class ParquetExport:
    """Adds episodes to the tables of an export.

    Parameters
    ----------
    directory
        Of the export. What is in its tables already is not written again.
    run
        Whose episodes they are; its hashes are noted in every file.
    patterns
        Columns of `gaitfleet.timesteps` that are wanted; None for all but the observation.
    file_bytes
        A file of `timesteps` is closed when it has grown to this size.
    """

    def __init__(self, directory: Path, run: RunDescription, patterns: Sequence[str] | None, file_bytes: int) -> None:
        self._timesteps, self._episodes = directory / "timesteps", directory / "episodes"
        for folder in (self._timesteps, self._episodes):
            clear_unfinished(folder, ".parquet")
        self._notes = {"run": run.run, "experiment_hash": run.experiment_hash, "layout_hash": run.layout_hash}
        self._tasks = tasks_by_stage(run.experiment)
        self._patterns = patterns
        self._file_bytes = file_bytes
        self._held: set[UUID] = set()
        parts = sorted(self._episodes.glob("part-*.parquet"))
        for part in parts:
            self._held |= {UUID(value) for value in pq.read_table(part, columns=[ID_COLUMN])[ID_COLUMN].to_pylist()}
        self._next_part = 1 + int(parts[-1].stem.removeprefix("part-")) if parts else 0
        self._waiting: list[pa.Table] = []
        self._summaries: list[EpisodeSummary] = []
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # gaitfleet's own errors come between two episodes. Ctrl-C, or any other, may come while rows are written, which
        # must not be written twice: the part stays unfinished, and the next export removes it.
        if error is None or isinstance(error, GaitfleetError):
            self._finish_part()

    def __contains__(self, episode_id: UUID) -> bool:
        return episode_id in self._held

    def add(self, summary: EpisodeSummary, _: bytes, episode: Episode) -> None:
        """Add an episode.

        Raises
        ------
        LayoutError
            When a pattern fits no column.
        """
        table = self._table(summary.episode_id, episode)
        first = self._waiting[0].schema if self._waiting else self._writer and self._writer.schema
        if first is not None and not table.schema.equals(first):
            self._finish_part()  # of another stage, with other reward terms: every file has one set of columns
        self._waiting.append(table)
        self._summaries.append(summary)
        self._held.add(summary.episode_id)
        if sum(len(waiting) for waiting in self._waiting) >= ROW_GROUP_STEPS:
            self._write_row_group()

    def _table(self, episode_id: UUID, episode: Episode) -> pa.Table:
        timesteps = Timesteps(episode.trajectory, self._tasks[episode.metadata.stage])
        names = timesteps.default_names if self._patterns is None else timesteps.chosen(self._patterns)
        steps = episode.trajectory.steps
        arrays = [pa.array([str(episode_id)] * steps), pa.array(np.arange(steps, dtype=np.int32))]
        fields = [_field(ID_COLUMN, pa.string(), {}), _field("step", pa.int32(), {})]
        for name in names:
            arrays.append(pa.array(np.ascontiguousarray(timesteps.column(name))))
            fields.append(_field(name, arrays[-1].type, timesteps.meaning(name)))
        return pa.table(arrays, schema=pa.schema(fields, metadata=self._notes))

    def _write_row_group(self) -> None:
        table = pa.concat_tables(self._waiting)
        path = unfinished(self._part(self._timesteps))
        if self._writer is None:
            floats = [field.name for field in table.schema if pa.types.is_floating(field.type)]
            self._writer = pq.ParquetWriter(
                path, table.schema, compression="zstd", use_dictionary=[ID_COLUMN], use_byte_stream_split=floats
            )
        self._writer.write_table(table, row_group_size=len(table))
        self._waiting.clear()
        if path.stat().st_size >= self._file_bytes:
            self._finish_part()

    def _finish_part(self) -> None:
        if self._waiting:
            self._write_row_group()
        if self._writer is None:
            return
        self._writer.close()
        self._writer = None
        timesteps, episodes = self._part(self._timesteps), self._part(self._episodes)
        finish(unfinished(timesteps), timesteps)
        pq.write_table(episode_table(self._summaries, self._notes), unfinished(episodes), compression="zstd")
        finish(unfinished(episodes), episodes)
        self._summaries.clear()
        self._next_part += 1

    def _part(self, folder: Path) -> Path:
        return folder / f"part-{self._next_part:05d}.parquet"


def episode_table(summaries: Sequence[EpisodeSummary], notes: dict[str, str]) -> pa.Table:
    """One row an episode: the fields of `EpisodeSummary`, with `total_reward_term/…` for its `reward_terms`."""
    rows = [_flat(summary) for summary in summaries]
    fields = []
    for name, info in EpisodeSummary.model_fields.items():
        if name not in ("reward_terms", "origin"):
            fields.append(_field(name, _arrow_type(info.annotation), {"description": info.description or ""}))
    fields += [
        _field(name, pa.float64(), {"unit": "1"})
        for name in dict.fromkeys(t for row in rows for t in row)
        if "/" in name
    ]
    origin = {"origin_run": pa.string(), "origin_policy_version": pa.int64(), "origin_digest": pa.string()}
    fields += [_field(name, kind, {}) for name, kind in origin.items()]
    return pa.Table.from_pylist(rows, schema=pa.schema(fields, metadata=notes))


def _flat(summary: EpisodeSummary) -> dict[str, Any]:
    row = summary.model_dump(mode="python", exclude={"reward_terms", "origin"}) | {ID_COLUMN: str(summary.episode_id)}
    origin = {} if summary.origin is None else summary.origin.model_dump()
    terms = {f"total_reward_term/{name}": value for name, value in summary.reward_terms.items()}
    return row | terms | {f"origin_{name}": value for name, value in origin.items()}


def _arrow_type(annotation: Any) -> pa.DataType:
    if typing.get_origin(annotation) is types.UnionType:
        annotation = next(choice for choice in typing.get_args(annotation) if choice is not types.NoneType)
    if typing.get_origin(annotation) is list:
        return pa.list_(_arrow_type(typing.get_args(annotation)[0]))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return pa.struct([(name, _arrow_type(info.annotation)) for name, info in annotation.model_fields.items()])
    return _TYPES.get(annotation, pa.string())


def _field(name: str, kind: pa.DataType, notes: dict[str, str]) -> pa.Field:
    return pa.field(name, kind, metadata=notes)
