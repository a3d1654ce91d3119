"""Episodes on disk: those that could not be posted yet, and those that were refused."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from gaitfleet import codec

logger = logging.getLogger(__name__)

SUFFIX = ".episode.zst"

MAX_EPISODE_BYTES = 1 << 30
"""Uncompressed size accepted when a file is read back: far above any episode, far below what ends a process."""

REJECTED_KEPT = 50
"""Refused episodes that are kept to be looked at; the oldest go first."""

STALE_SECONDS = 600.0
"""Unfinished files older than this belong to a process that was killed."""

NUMBERS_PER_START = 1_000_000
"""Episode numbers set aside for each start of a worker: more than a slot plays in a month."""


class Spool:
    """A directory of compressed episodes, each written whole or not at all. Other workers of the run may share it.

    Parameters
    ----------
    directory
        Made when it is missing, and again when it is removed meanwhile.
    max_bytes
        Compressed bytes beyond which the spool is `full`. It still takes what is given to it: the simulators must stop
        before, not lose what they have.

    Raises
    ------
    OSError
        When the directory cannot be made or read.
    """

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self._directory = directory
        self._rejected = directory / "rejected"
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        directory.mkdir(parents=True, exist_ok=True)
        for stale, status in _files(directory, "*.tmp"):
            if time.time() - status.st_mtime > STALE_SECONDS:
                stale.unlink(missing_ok=True)
        files = _files(directory, f"*{SUFFIX}")
        self._sizes = {path.name.removesuffix(SUFFIX): status.st_size for path, status in files}

    def ids(self) -> list[str]:
        """Episodes that are here, oldest first: their ids sort by time."""
        with self._lock:
            return sorted(self._sizes)

    def __len__(self) -> int:
        return len(self._sizes)

    @property
    def full(self) -> bool:
        """Whether no further episode should be begun."""
        with self._lock:
            return sum(self._sizes.values()) >= self._max_bytes

    def put(self, episode_id: str, frame: bytes) -> None:
        """Keep an episode that `gaitfleet.codec.compress` has compressed.

        Raises
        ------
        OSError
            When it cannot be written. Nothing of it remains then.
        """
        _write(self._path(episode_id), frame)
        with self._lock:
            self._sizes[episode_id] = len(frame)

    def read(self, episode_id: str) -> bytes:
        """The same frame again, looked through.

        Raises
        ------
        FileNotFoundError
            When another worker has delivered it.
        CodecError
            When the file is damaged.
        """
        frame = self._path(episode_id).read_bytes()
        codec.decompress(frame, limit_bytes=MAX_EPISODE_BYTES)
        return frame

    def remove(self, episode_id: str) -> None:
        """It is delivered, and counts no more, even where its file cannot be removed.

        Raises
        ------
        OSError
            When the file stays.
        """
        with self._lock:
            self._sizes.pop(episode_id, None)
        self._path(episode_id).unlink(missing_ok=True)

    def set_aside(self, episode_id: str, frame: bytes | None, why: dict[str, Any]) -> None:
        """Keep an episode that was refused, with the reason, where nobody tries again.

        Parameters
        ----------
        frame
            None when only the file has it (and it may be damaged).
        """
        self._rejected.mkdir(parents=True, exist_ok=True)
        if frame is None:
            self._path(episode_id).replace(self._rejected / f"{episode_id}{SUFFIX}")
        else:
            _write(self._rejected / f"{episode_id}{SUFFIX}", frame)
        _write(self._rejected / f"{episode_id}.json", json.dumps(why, indent=2, default=str).encode())
        for old in sorted(self._rejected.glob(f"*{SUFFIX}"))[:-REJECTED_KEPT]:
            old.unlink(missing_ok=True)
            old.with_name(old.name.removesuffix(SUFFIX) + ".json").unlink(missing_ok=True)
        self.remove(episode_id)

    def _path(self, episode_id: str) -> Path:
        return self._directory / f"{episode_id}{SUFFIX}"


def _files(directory: Path, pattern: str) -> Iterator[tuple[Path, os.stat_result]]:
    """Files and what they are, but for those that another worker removes meanwhile."""
    for path in directory.glob(pattern):
        with suppress(FileNotFoundError):
            yield path, path.stat()


def reserve_episode_numbers(directory: Path, worker: str) -> int:
    """The first episode number of this start; every start of a worker gets others.

    A worker that is started again under its name would otherwise derive the same seeds and play the same again.
    """
    path = directory / f"{worker}.next-episode"
    try:
        first = int(path.read_text(encoding="ascii")) if path.exists() else 0
        _write(path, str(first + NUMBERS_PER_START).encode())
    except (OSError, ValueError) as error:
        logger.warning("episode numbers start at the clock: %s", error)
        return time.time_ns() // 1000
    return first


def _write(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole, on disk, or not at all."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)  # whatever clears temporary files may have removed it
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
