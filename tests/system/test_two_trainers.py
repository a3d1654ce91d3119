"""Two trainers on one run: the one that was frozen past its lease is fenced off, and stops."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import serve, settings_for
from tests.replay_api.fleet import Fleet, experiment_of

EXIT_LEASE_LOST = 3


@pytest.fixture
def fleet(mongodb_uri: str, seaweedfs: dict[str, Any], tmp_path: Path) -> Iterator[Fleet]:
    """A run with enough experience to learn from, its checkpoints on a real S3 server."""
    networks = {name: {"kind": "mlp", "hidden_size": 16, "blocks": 1} for name in ("actor", "critic")}
    experiment = experiment_of(
        algorithm={"batch_size": 16, **networks},
        replay={"samples_per_insert": 1000, "error_buffer": 1_000_000},
        checkpoints={"every_updates": 50, "every_seconds": 0.5},
    )
    with serve(settings_for(mongodb_uri, tmp_path, **seaweedfs)) as url, Fleet(url, experiment) as fleet:
        for seed in range(10):
            assert fleet.post(fleet.play(seed=seed)).status_code == 201
        yield fleet


@pytest.fixture
def trainer(fleet: Fleet, tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[bytes]]]:
    """Starts a trainer process by its holder's name."""
    started: list[subprocess.Popen[bytes]] = []

    def start(holder: str) -> subprocess.Popen[bytes]:
        settings = {"REPLAY_API_URL": fleet.url, "RUN": fleet.run, "HOLDER": holder, "LEASE_TTL_SECONDS": "8"}
        environment = {f"GAITFLEET_TRAINER_{name}": value for name, value in settings.items()}
        with (tmp_path / f"{holder}.log").open("wb") as log:
            command = [sys.executable, "-m", "trainer"]
            started.append(subprocess.Popen(command, env={**os.environ, **environment}, stderr=log))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def wait_for(condition: Callable[[], bool], logs: Path, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        said = {log.name: log.read_text()[-2000:] for log in logs.glob("*.log")}
        assert time.monotonic() < deadline, f"not in time: {said}"
        time.sleep(0.1)


def epochs_published(fleet: Fleet) -> list[int]:
    """Epoch of every checkpoint that moved the head, in order."""
    return [event["data"]["epoch"] for event in fleet.events("checkpoint_published")]


def test_a_frozen_trainer_that_wakes_up_is_refused_and_ends(
    fleet: Fleet, trainer: Callable[[str], subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    first = trainer("first")
    wait_for(lambda: epochs_published(fleet).count(1) >= 2, tmp_path)
    first.send_signal(signal.SIGSTOP)
    time.sleep(0.5)
    trainer("second")
    wait_for(lambda: 2 in epochs_published(fleet), tmp_path)
    published = len(epochs_published(fleet))
    first.send_signal(signal.SIGCONT)
    assert first.wait(60) == EXIT_LEASE_LOST
    wait_for(lambda: len(epochs_published(fleet)) > published + 1, tmp_path)

    epochs = epochs_published(fleet)
    assert epochs == sorted(epochs), "the first trainer published after the second had begun"
    steps = [event["data"]["step"] for event in fleet.events("checkpoint_published")]
    assert steps == sorted(set(steps)), "the head went back"
    assert fleet.status()["lease"]["holder"] == "second"
