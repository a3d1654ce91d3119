"""The process of `reverb_contender.py`, which may take long over everything, its end included: so it is killed."""

from __future__ import annotations

import os
import select
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

TRANSITIONS = 5000
"""Held by Reverb: to be given 30,000 takes it minutes, and it samples no faster from fewer."""

READY_SECONDS = 120.0
LATE_SECONDS = 20.0
"""Time in s that it has to start and be filled, and beyond its length to end a turn; after that it is left out."""


class ReverbProcess:
    """A contender that says how many transitions per second it has sampled in a turn.

    Parameters
    ----------
    python
        Interpreter of an environment that holds dm-reverb.
    observation_size, action_size
        Of its transitions.
    """

    def __init__(self, python: str, observation_size: int, action_size: int) -> None:
        script = Path(__file__).with_name("reverb_contender.py")
        command = [python, str(script), *map(str, (observation_size, action_size, TRANSITIONS))]
        # It warns of every few items that it is given.
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(command, text=True, start_new_session=True, **pipes)
        self.ready = self._line(READY_SECONDS) == "ready\n"

    def rate(self, seconds: float) -> float | None:
        """Transitions per second of one turn; None when it does not end."""
        print(seconds, file=self._process.stdin, flush=True)
        line = self._line(seconds + LATE_SECONDS)
        return float(line) if line else None

    def stop(self) -> None:
        """End it and its server."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _line(self, seconds: float) -> str:
        stdout = self._process.stdout
        assert stdout is not None
        return stdout.readline() if select.select([stdout], [], [], seconds)[0] else ""
