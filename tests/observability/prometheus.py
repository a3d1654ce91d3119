"""A Prometheus of its own for a test, and its query API."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from gaitfleet.command.processes import free_port

Series = list[dict[str, Any]]


class Prometheus:
    """The query API of a running Prometheus."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=30.0)

    def query(self, expression: str) -> Series:
        """The values of an expression now."""
        return self._ask("/api/v1/query", query=expression)

    def query_range(self, expression: str, *, seconds: float, step: float, end: float | None = None) -> Series:
        """The values of an expression over the last seconds."""
        end = end or time.time()
        return self._ask("/api/v1/query_range", query=expression, start=end - seconds, end=end, step=step)

    def rules(self) -> list[dict[str, Any]]:
        """Every rule and how its last evaluation went."""
        answer = self._client.get("/api/v1/rules").raise_for_status().json()
        return [rule for group in answer["data"]["groups"] for rule in group["rules"]]

    def ready(self) -> bool:
        """Whether it answers."""
        try:
            return self._client.get("/-/ready").is_success
        except httpx.HTTPError:
            return False

    def _ask(self, path: str, **parameters: Any) -> Series:
        answer = self._client.get(path, params=parameters)
        assert answer.is_success, f"{parameters['query']}: {answer.text}"
        result: Series = answer.json()["data"]["result"]
        return result


@contextmanager
def prometheus(directory: Path, scrape: Path, rules: list[Path]) -> Iterator[Prometheus]:
    """A Prometheus that scrapes as `scrape` says, every second, and evaluates rules every five."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.fail("no prometheus: on Debian and Ubuntu, `apt-get install prometheus`")
    configuration = yaml.safe_load(scrape.read_text(encoding="utf-8"))
    configuration["global"] = {"scrape_interval": "1s", "evaluation_interval": "5s"}
    configuration["rule_files"] = [str(path) for path in rules]
    path = directory / "prometheus.yml"
    path.write_text(yaml.safe_dump(configuration), encoding="utf-8")
    address = f"127.0.0.1:{free_port()}"
    command = [program, f"--config.file={path}", f"--storage.tsdb.path={directory / 'tsdb'}"]
    with (directory / "prometheus.log").open("wb") as log:
        process = subprocess.Popen([*command, f"--web.listen-address={address}"], stdout=log, stderr=log)
    try:
        server = Prometheus(f"http://{address}")
        deadline = time.monotonic() + 60
        while not server.ready():
            assert process.poll() is None, (directory / "prometheus.log").read_text()
            assert time.monotonic() < deadline, "Prometheus did not start"
            time.sleep(0.2)
        yield server
    finally:
        process.terminate()
        process.wait(30)
