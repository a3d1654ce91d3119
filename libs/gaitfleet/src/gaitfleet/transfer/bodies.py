"""The lossless form of an export: every body in a file of its own, and a manifest.

Plain safetensors files, and not a Parquet table with a binary column: `gaitfleet play --file` and every safetensors
library read them, a damaged file costs one episode and has its name, copying and resuming need no tool, and nothing
beyond the core of gaitfleet is needed.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import UUID

from pydantic import ValidationError

from gaitfleet.episode import Episode, content_digest
from gaitfleet.errors import TransferError
from gaitfleet.transfer.directory import clear_unfinished, write_whole
from gaitfleet.wire import EpisodeSummary

MANIFEST = "bodies.jsonl"


class BodyExport:
    """Adds bodies to an export.

    Parameters
    ----------
    directory
        Of the export. What is in its manifest already is not written again.
    """

    def __init__(self, directory: Path) -> None:
        self._bodies = directory / "bodies"
        clear_unfinished(self._bodies, ".safetensors")
        self._held = {summary.episode_id for summary in read_manifest(directory)}
        path = directory / MANIFEST
        self._manifest = path.open("ab")
        self._manifest.truncate(_whole_lines(path))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._manifest.close()

    def __contains__(self, episode_id: UUID) -> bool:
        return episode_id in self._held

    def add(self, summary: EpisodeSummary, body: bytes, _: Episode) -> None:
        """Write a body, then its line of the manifest: what the manifest names is there."""
        write_whole(body_path(self._bodies.parent, summary.episode_id), body)
        self._manifest.write(summary.model_dump_json().encode() + b"\n")
        self._manifest.flush()
        self._held.add(summary.episode_id)


def body_path(directory: Path, episode_id: UUID) -> Path:
    """Where an export keeps the body of an episode."""
    return directory / "bodies" / f"{episode_id}.safetensors"


def read_manifest(directory: Path) -> list[EpisodeSummary]:
    """The episodes whose bodies an export holds, oldest first; a last line that was cut short does not count.

    Raises
    ------
    TransferError
        Naming the line that is not a summary.
    """
    path = directory / MANIFEST
    if not path.exists():
        return []
    summaries = []
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                break
            try:
                summaries.append(EpisodeSummary.model_validate_json(line))
            except ValidationError as error:
                raise TransferError(f"{path}, line {number}: {error.errors()[0]['msg']}") from None
    return sorted(summaries, key=lambda summary: summary.episode_id)


def read_body(directory: Path, summary: EpisodeSummary) -> bytes:
    """The body of an exported episode.

    Raises
    ------
    TransferError
        Naming the file, when it is missing or is not what was exported.
    """
    path = body_path(directory, summary.episode_id)
    try:
        body = path.read_bytes()
    except OSError as error:
        raise TransferError(f"{path}: {error.strerror}") from None
    if (digest := content_digest(body)) != summary.content_digest:
        raise TransferError(f"{path} is damaged: its SHA-256 is {digest}, that of the episode {summary.content_digest}")
    return body


def _whole_lines(path: Path) -> int:
    """Bytes up to the end of the last whole line."""
    return path.read_bytes().rfind(b"\n") + 1
