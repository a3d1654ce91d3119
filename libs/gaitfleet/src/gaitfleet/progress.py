"""A sign of life in a file, for a liveness probe: its age tells whether a service's main loop still turns."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

BEAT_SECONDS = 1.0
"""How often the file is touched at most."""


class ProgressFile:
    """A file that is there and young while a loop turns.

    Parameters
    ----------
    path
        The file; None: nothing is written. What an earlier process left there is removed, so that it says nothing about
        this one while it still prepares its work.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._beaten_at = float("-inf")
        if path is not None:
            path.unlink(missing_ok=True)

    def beat(self) -> None:
        """Say that the loop turns; cheap enough for every turn."""
        now = time.monotonic()
        if self._path is None or now - self._beaten_at < BEAT_SECONDS:
            return
        self._beaten_at = now
        with contextlib.suppress(OSError):  # a full disk must not end work that goes on
            self._path.touch()
