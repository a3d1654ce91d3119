"""What an operator sees of a replay API: its memory, its metrics, its log."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from tests.servers import ApiServer

MIB = 1 << 20


def until(condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


class Observed:
    """Compares an API's process with how it was at the beginning.

    Parameters
    ----------
    api
        The process; it must not end meanwhile.
    """

    def __init__(self, api: ApiServer) -> None:
        assert api.process is not None
        self._api = api
        self._process = psutil.Process(api.process.pid)
        self._resident = self._process.memory_info().rss
        self._lines = len(api.said())
        self._metrics = self._read()

    def counted(self, name: str, **labels: str) -> float:
        """How much the samples of a counter with these labels have grown."""
        before = _sum(self._metrics, name, labels)
        return _sum(self._read(), name, labels) - before

    def logged(self, message: str, **extra: Any) -> bool:
        """Whether a line with this message and these fields was logged."""
        new = self._api.said()[self._lines :]
        return any(line["message"] == message and extra.items() <= line.items() for line in new)

    @property
    def growth_mib(self) -> float:
        """Of the resident memory."""
        return (self._process.memory_info().rss - self._resident) / MIB

    @property
    def restarted(self) -> bool:
        with suppress(psutil.NoSuchProcess):
            return not self._process.is_running() or self._process.status() == psutil.STATUS_ZOMBIE
        return True

    def _read(self) -> list[tuple[str, dict[str, str], float]]:
        text = httpx.get(f"{self._api.url}/metrics", timeout=30).text
        families = text_string_to_metric_families(text)
        return [(sample.name, sample.labels, sample.value) for family in families for sample in family.samples]


def _sum(samples: list[tuple[str, dict[str, str], float]], name: str, labels: dict[str, str]) -> float:
    return sum(value for found, given, value in samples if found == name and labels.items() <= given.items())
