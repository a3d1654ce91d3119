"""`gaitfleet up` with a replay API that is slow to open the run, and with a terminal that is closed."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import StringIO
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from rich.console import Console

from gaitfleet.client import ReplayClient
from gaitfleet.command.fleet import Fleet as LocalFleet
from gaitfleet.command.fleet import FleetOptions
from gaitfleet.command.processes import MAX_DEATHS, Child, ProcessFailedError, free_port
from gaitfleet.command.up import Stop, opened_run
from gaitfleet.wire import RunStatus
from tests.relay import Relay
from tests.replay_api.fleet import Fleet

SAID = "opening the run ..."


class Opening:
    """What `gaitfleet up` does between starting the API and starting the others, with an API that does not answer."""

    def __init__(self, relay: Relay, run: str, directory: Path) -> None:
        self.stop, self.relay = Stop(), relay
        self.services = LocalFleet(FleetOptions(run, directory, relay.port, 1, 1, None, None, None, "cpu"))
        self.said = StringIO()
        self.run = run

    def work(self) -> RunStatus | None:
        with ReplayClient(self.services.api_url, run=self.run, timeout_seconds=0.3, attempts=1) as client:
            return opened_run(self.services, client, self.run, None, self.stop, Console(file=self.said, width=200))

    def wait_until_it_waits(self) -> None:
        deadline = time.monotonic() + 30
        while SAID not in self.said.getvalue():
            assert time.monotonic() < deadline
            time.sleep(0.02)


@pytest.fixture
def opening(fleet: Fleet, tmp_path: Path) -> Iterator[Opening]:
    with Relay(lambda: urlsplit(fleet.url).port) as relay:
        relay.stall()
        yield Opening(relay, fleet.run, tmp_path)


def test_a_run_that_takes_longer_to_open_than_a_request_may_is_waited_for(opening: Opening) -> None:
    with ThreadPoolExecutor(1) as thread:
        result = thread.submit(opening.work)
        opening.wait_until_it_waits()
        time.sleep(2)  # more than one request is given up
        assert not result.done()
        opening.relay.flow()
        status = result.result(30)
    assert status is not None
    assert status.run == opening.run
    assert opening.said.getvalue().count(SAID) == 1


def test_a_signal_ends_the_wait_for_a_run(opening: Opening) -> None:
    with ThreadPoolExecutor(1) as thread:
        result = thread.submit(opening.work)
        opening.wait_until_it_waits()
        opening.stop.requested = True
        assert result.result(30) is None


def test_an_api_that_dies_again_and_again_ends_the_wait_for_a_run(opening: Opening, tmp_path: Path) -> None:
    api = Child("replay-api", ["false"], {}, tmp_path / "api.log", 1.0, deaths=MAX_DEATHS - 1)
    opening.services.children.append(api)
    with ThreadPoolExecutor(1) as thread:
        result = thread.submit(opening.work)
        opening.wait_until_it_waits()
        api.start()
        with pytest.raises(ProcessFailedError, match=f"replay-api died {MAX_DEATHS} times in a row"):
            result.result(30)


def test_a_closed_terminal_stops_it_in_order(tmp_path: Path) -> None:
    """The database that it waits for is nowhere, so that the API is all there is to stop."""
    terminal, end = pty.openpty()
    nowhere = f"mongodb://127.0.0.1:{free_port()}/"
    options = ["--port", str(free_port()), "--data-dir", str(tmp_path), "--mongodb-uri", nowhere]

    def sit_at_it() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may run under nohup

    process = subprocess.Popen(
        [sys.executable, "-m", "gaitfleet", "up", *options],
        stdin=end,
        stdout=end,
        stderr=end,
        start_new_session=True,
        preexec_fn=sit_at_it,  # noqa: PLW1509 (it takes no lock)
    )
    os.close(end)
    log = tmp_path / "logs" / "replay-api.log"
    deadline = time.monotonic() + 60
    while not (log.exists() and "{" in log.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    children = psutil.Process(process.pid).children(recursive=True)
    os.close(terminal)
    assert process.wait(40) == 0
    assert not psutil.wait_procs(children, timeout=5)[1]
