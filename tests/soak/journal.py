"""What clients were told, appended line by line: it survives SIGKILL of who writes it.

Every entry is written after the acknowledgement and before the client does anything else, so an entry is never false.
An acknowledgement whose client was killed in between has none, which makes the proof weaker and never wrong.
"""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any


class Journal:
    """One file, opened for appending; may be shared by threads and by processes.

    Parameters
    ----------
    path
        Made when it is missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644)
        self._lock = threading.Lock()

    def add(self, kind: str, **data: Any) -> None:
        """Append an entry: one write of one line."""
        line = json.dumps({"kind": kind, "at": time.time(), **data}) + "\n"
        with self._lock:
            os.write(self._descriptor, line.encode())

    def close(self) -> None:
        os.close(self._descriptor)


class JournalReader:
    """Reads what has been appended since it was last asked."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0
        self.entries: list[dict[str, Any]] = []

    def more(self) -> list[dict[str, Any]]:
        """The new whole lines, which are also added to `entries`."""
        with self._path.open("rb") as file:
            file.seek(self._read)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._read += len(whole)
        new = [json.loads(line) for line in whole.splitlines()]
        self.entries += new
        return new
