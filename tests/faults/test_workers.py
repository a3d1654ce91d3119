"""A rollout worker that is frozen, and one whose disk is full: the real process against a real API."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from replay_api.settings import Settings
from tests.conftest import serve
from tests.faults.observed import MIB, until
from tests.relay import Relay
from tests.replay_api.fleet import Fleet, experiment_of

pytestmark = pytest.mark.faults

Start = Callable[[str, str, Path], psutil.Process]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a worker for a run; its process."""
    started: list[subprocess.Popen[bytes]] = []

    def start(url: str, run: str, spool: Path) -> psutil.Process:
        settings = {"REPLAY_API_URL": url, "RUN": run, "WORKER": "worker", "SIMULATORS": "1", "SPOOL_DIR": str(spool)}
        environment = os.environ | {f"GAITFLEET_ROLLOUT_{name}": value for name, value in settings.items()}
        with (tmp_path / "worker.log").open("wb") as log:
            command = [sys.executable, "-m", "rollout"]
            started.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
        return psutil.Process(started[-1].pid)

    yield start
    for process in started:
        process.kill()
        process.wait()


def stored(fleet: Fleet) -> int:
    return int(sum(fleet.status()["episodes"].values()))


def test_a_worker_that_was_frozen_longer_than_it_is_waited_for_goes_on(
    settings: Settings, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has left and joins again; the freeze is not taken for a simulator that hangs, and nothing is there twice."""
    monkeypatch.setattr("replay_api.services.workers.WORKER_EXPIRY_SECONDS", 7.0)
    with serve(settings) as url, Fleet(url, experiment_of(replay={"capacity": 100_000})) as fleet:
        worker = start(url, fleet.run, tmp_path / "spool")
        until(lambda: stored(fleet) > 2, "the worker does not play")
        frozen = [worker, *worker.children(recursive=True)]
        for process in frozen:
            process.suspend()
        until(lambda: len(fleet.events("worker_left")) == 1, "the worker is not missed")
        assert fleet.events("worker_left")[0]["data"]["silent"]
        before = stored(fleet)
        for process in reversed(frozen):
            process.resume()
        until(lambda: stored(fleet) > before + 2, "the worker does not go on")
        until(lambda: len(fleet.events("worker_joined")) == 2, "the worker is not heard of again")
        assert [process.pid for process in worker.children(recursive=True)] == [process.pid for process in frozen[1:]]
        assert fleet.status()["failures"] == {}


def test_a_worker_whose_disk_is_full_pauses_and_delivers_everything_later(
    settings: Settings, start: Start, tiny_disk: Path, tmp_path: Path
) -> None:
    away = False
    with serve(settings) as url, Fleet(url, experiment_of(replay={"capacity": 100_000})) as fleet:
        port = int(url.rpartition(":")[2])
        with Relay(lambda: None if away else port) as relay:
            worker = start(f"http://127.0.0.1:{relay.port}", fleet.run, tiny_disk)
            until(lambda: stored(fleet) > 2, "the worker does not play")
            (tiny_disk / "filler").write_bytes(bytes(900_000))
            resident = worker.memory_info().rss
            away = True
            relay.cut()
            log = tmp_path / "worker.log"
            until(lambda: "the spool cannot be written" in log.read_text(), "the disk does not fill", seconds=120)
            time.sleep(3.0)
            assert worker.memory_info().rss - resident < 50 * MIB
            waiting = len(list(tiny_disk.rglob("*.episode.zst")))
            assert waiting > 0
            assert not list(tiny_disk.rglob("*.tmp"))
            before, away = stored(fleet), False
            until(lambda: stored(fleet) > before + waiting + 2, "the worker does not go on")
            until(lambda: not list(tiny_disk.rglob("*.episode.zst")), "the spool is not emptied")
            worker.terminate()
            worker.wait(30)
            assert "is set aside" not in log.read_text()
        ids = [episode["episode_id"] for episode in fleet.get("/episodes", params={"limit": 1000}).json()["episodes"]]
        assert len(ids) == len(set(ids))
