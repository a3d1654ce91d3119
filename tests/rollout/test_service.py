"""The whole service as a process, as Kubernetes runs it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest
from failing_environments import counting
from fake_replay_api import FakeApi
from scenario import pendulum, simba_policy

from gaitfleet.experiment import parse_experiment
from rollout.main import StopSignal, serve
from rollout.reporter import REPORTS_PER_LOOK
from rollout.settings import RolloutSettings

pytest.importorskip("gymnasium", reason="the simulator of these tests is Pendulum")

Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with FakeApi(pendulum(steps=200, evaluation={"episodes": 2})).serving() as api:
        yield api


@pytest.fixture
def start(api: FakeApi, tmp_path: Path) -> Iterator[Start]:
    started: list[subprocess.Popen[bytes]] = []

    def begin(program: str = "", **settings: object) -> subprocess.Popen[bytes]:
        values = {"replay_api_url": api.url, "run": "test", "worker": "tester", "simulators": 1} | settings
        values |= {"spool_dir": tmp_path / "spool"}
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        environment |= {f"GAITFLEET_ROLLOUT_{name.upper()}": str(value) for name, value in values.items()}
        command = [sys.executable, *(("-c", program) if program else ("-m", "rollout"))]
        started.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def stop(process: subprocess.Popen[bytes], number: signal.Signals = signal.SIGTERM) -> float:
    """Stop the service; the result is how long it took."""
    began = time.monotonic()
    process.send_signal(number)
    assert process.wait(10) == 0
    return time.monotonic() - began


def spooled(directory: Path) -> list[Path]:
    return list(directory.glob("spool/test/*/*.episode.zst"))


def played(api: FakeApi) -> set[tuple[str, int]]:
    """Role and policy version of what is stored."""
    return {(episode.metadata.role, episode.metadata.policy_version) for episode in api.episodes()}


def test_it_plays_reports_and_stops_with_what_it_has(api: FakeApi, start: Start) -> None:
    process = start(simulators=2)
    api.wait_for(lambda api: len(api.bodies) >= 6 and bool(api.reports))
    stop(process)
    endings = [episode.metadata.ending_reason for episode in api.episodes()]
    assert set(endings) <= {"time_limit", "preempted"}
    assert {episode.metadata.role for episode in api.episodes()} == {"random"}
    assert {report["role"] for report in api.reports} == {"train"}
    assert api.left == ["tester"]
    assert len(api.posts) == len(set(api.posts)) == len(api.bodies)


def test_strides_end_when_the_run_has_its_episodes(start: Start) -> None:
    """The worker hears how many with the answer to its report, every few seconds."""
    stride = {"kind": "stride", "official_share": 0.0, "anneal_episodes": 1}
    task = {"model": "2D", "time_limit_steps": 4, "initial_state": stride}
    with FakeApi(parse_experiment({"task": task})).serving() as api:
        process = start(replay_api_url=api.url)
        api.wait_for(lambda api: len({episode.metadata.initial_pose is None for episode in api.episodes()}) == 2, 60)
        stop(process)
        poses = [episode.metadata.initial_pose for episode in api.episodes()]
        first_official = poses.index(None)
        assert first_official > 0
        assert poses[first_official:] == [None] * (len(poses) - first_official)


def test_without_an_api_it_waits_and_stops_at_once(api: FakeApi, start: Start) -> None:
    with socket.socket() as unanswering:  # accepts connections, and never says a word
        unanswering.bind(("127.0.0.1", 0))
        unanswering.listen()
        unanswering.settimeout(20)
        process = start(replay_api_url=f"http://127.0.0.1:{unanswering.getsockname()[1]}")
        connection, _ = unanswering.accept()
        with connection:
            assert connection.recv(100).startswith(b"GET /v1/runs/test ")
            assert process.poll() is None
            assert stop(process) < 8.0


def test_when_the_api_is_away_at_the_stop_episodes_wait_for_the_next_start(
    api: FakeApi, start: Start, tmp_path: Path
) -> None:
    process = start()
    api.wait_for(lambda api: len(api.bodies) >= 2)
    api.away.set()
    api.wait_for(lambda _: len(spooled(tmp_path)) >= 3)
    assert stop(process, signal.SIGINT) < 10.0
    waiting = {path.name.removesuffix(".episode.zst") for path in spooled(tmp_path)}
    api.away.clear()
    process = start()
    api.wait_for(lambda api: waiting <= api.bodies.keys())
    stop(process)
    assert all(api.posts.count(episode_id) == 1 for episode_id in waiting)
    seeds = [episode.metadata.seed for episode in api.episodes()]
    assert len(set(seeds)) == len(seeds)  # the second start has played other episodes


def test_an_api_that_does_not_answer_does_not_delay_the_stop(api: FakeApi, start: Start, tmp_path: Path) -> None:
    process = start(stop_timeout_seconds=1)
    api.wait_for(lambda api: len(api.bodies) >= 2)
    api.delay_seconds = 60.0
    time.sleep(0.5)
    assert stop(process) < 8.0
    assert spooled(tmp_path)


def test_simulators_die_with_a_killed_supervisor(api: FakeApi, start: Start) -> None:
    process = start(simulators=2)
    api.wait_for(lambda api: len(api.bodies) >= 4)
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=30)
    assert alive == []


def test_it_evaluates_each_policy_as_often_as_asked_for(api: FakeApi, start: Start) -> None:
    description = api.task.description
    process = start(role="evaluate")
    for number in (10, 20):
        api.publish(number, simba_policy(description, number, seed=number))
        wanted = number // 5
        api.wait_for(lambda api, wanted=wanted: len(api.bodies) == wanted)  # type: ignore[misc]
    time.sleep(0.5)  # nothing newer: nothing more
    stop(process)
    played = [(episode.metadata.policy_version, episode.metadata.seed) for episode in api.episodes()]
    assert [version for version, _ in played] == [10, 10, 20, 20]
    first, second = ({seed for version, seed in played if version == number} for number in (10, 20))
    assert first == second
    assert len(first) == 2
    assert {episode.metadata.exploration for episode in api.episodes()} == {"none"}


def test_a_worker_plays_on_when_the_api_has_lost_the_policy_it_acts_by(
    api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise all its episodes were refused for ever, and the run would never get what it needs to learn again."""
    monkeypatch.setattr("rollout.policy_source.LONG_POLL_SECONDS", 1.0)
    settings = RolloutSettings(run="test", replay_api_url=api.url, simulators=1, spool_dir=tmp_path)
    stop_signal = StopSignal()
    worker = threading.Thread(target=serve, args=(settings, stop_signal, counting))
    api.publish(1000, simba_policy(api.task.description, 1000))
    worker.start()
    try:
        for lost in (None, (7, simba_policy(api.task.description, 7))):
            api.wait_for(lambda api: any(version >= 1000 for _, version in played(api)))
            api.lose(lost)
            expected = ("random", 0) if lost is None else ("train", 7)
            api.wait_for(lambda api, expected=expected: expected in played(api))  # type: ignore[misc]
            api.publish(1001, simba_policy(api.task.description, 1001))
    finally:
        stop_signal.set()
        worker.join(20)


def test_a_run_that_was_created_anew_ends_it_with_code_3(api: FakeApi, start: Start) -> None:
    """Kubernetes, Compose and `gaitfleet up` start it again then, for the new run."""
    process = start(
        program="import rollout.reporter as r; r.REPORT_SECONDS = 0.1; import rollout.main as m; exit(m.main())"
    )
    api.wait_for(lambda api: len(api.reports) > 2 * REPORTS_PER_LOOK and len(api.bodies) >= 1)
    assert process.poll() is None
    api.created_at = datetime.now(UTC)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 3
    assert b"start again: run 'test' was created at" in errors


def test_parts_that_do_not_fit_end_it_with_code_2(api: FakeApi, start: Start) -> None:
    api.publish(1, simba_policy(api.task.description, 1, observation_hash="0123456789abcdef"))
    process = start()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert b"policies of another task: observation_hash" in errors


def test_a_wrong_setting_ends_it_with_code_2(start: Start) -> None:
    process = start(simulators=0)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert b"GAITFLEET_ROLLOUT_SIMULATORS: " in errors


def test_authorities_that_cannot_be_read_end_it_with_code_2(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere.pem")
    process = start()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert b"cannot work: SSL_CERT_FILE is '/nowhere.pem'" in errors
    assert b"Traceback" not in errors


def test_its_metrics_and_its_sign_of_life_can_be_read(api: FakeApi, start: Start, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = start(metrics_port=port, metrics_address="127.0.0.1", progress_file=tmp_path / "progress")
    api.wait_for(lambda api: len(api.bodies) >= 2)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        text = answer.read().decode()
    stop(process)
    assert (tmp_path / "progress").exists()
    for phase in ("simulate", "policy", "record", "post", "wait"):
        seconds = re.search(
            rf'rl_rollout_phase_seconds_total{{phase="{phase}",role="train",run_id="test"}} (\S+)', text
        )
        assert seconds is not None
        assert float(seconds[1]) > 0
    assert 'rl_rollout_sim_step_seconds_bucket{le="+Inf",role="train",run_id="test"}' in text


def test_importing_it_loads_neither_torch_nor_a_simulator_nor_a_database() -> None:
    code = (
        "import sys, rollout.main, rollout.simulator_process; "
        "print([m for m in ('torch', 'motor', 'aioboto3', 'fastapi', 'opensim', 'gymnasium') if m in sys.modules])"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
