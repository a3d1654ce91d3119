"""The directory of an export.

::

    run.json                         the run: its experiment and hashes
    bodies.jsonl                     one line an episode: its summary with the digest of its body
    bodies/ID.safetensors            the body as it was posted, uncompressed
    timesteps/part-00000.parquet     one row a simulator step, some hundred episodes a file
    episodes/part-00000.parquet      one row an episode: the summaries of the same part of `timesteps`

A file gets its name when it is whole and synced; what an interrupted export leaves begins with a dot and is removed by
the next one.
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import ValidationError

from gaitfleet.errors import TransferError
from gaitfleet.wire import RunDescription

RUN_FILE = "run.json"


def open_export(directory: Path, description: RunDescription) -> None:
    """Make the directory of an export, or find one of the same run there.

    Raises
    ------
    TransferError
        When it holds another run, or cannot be written.
    """
    path = directory / RUN_FILE
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if path.exists():
            there = read_run(directory)
            if (there.run, there.experiment.hash) != (description.run, description.experiment_hash):
                raise TransferError(f"{directory} holds run {there.run!r} ({there.experiment.hash}); choose another")
        else:
            write_whole(path, description.model_dump_json(indent=2).encode())
    except OSError as error:
        raise TransferError(f"{directory}: {error.strerror}") from None


def read_run(directory: Path) -> RunDescription:
    """The run that an export was taken from.

    Raises
    ------
    TransferError
        When the directory is no export.
    """
    path = directory / RUN_FILE
    try:
        return RunDescription.model_validate_json(path.read_bytes())
    except OSError as error:
        raise TransferError(f"{path}: {error.strerror}; is this the directory of an export?") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise TransferError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that is there whole or not at all, whatever happens meanwhile."""
    temporary = unfinished(path)
    temporary.write_bytes(content)
    finish(temporary, path)


def unfinished(path: Path) -> Path:
    """Where a file is written until it is whole."""
    return path.with_name(f".{path.name}")


def finish(temporary: Path, path: Path) -> None:
    """Sync a file and give it its name."""
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def clear_unfinished(directory: Path, suffix: str) -> None:
    """Make a directory, and remove what an interrupted export left of files with this suffix."""
    directory.mkdir(parents=True, exist_ok=True)
    for left_over in directory.glob(f".*{suffix}"):
        left_over.unlink()
