"""The loop rollout -> replay-api -> trainer -> checkpoint -> rollout, every process and protocol real."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from gaitfleet.command.processes import free_port
from gaitfleet.wire import RunStatus

from .conftest import RunningFleet

Start = Callable[..., RunningFleet]

SHORT_PENDULUM = """
task: {environment: "gymnasium:Pendulum-v1"}
algorithm:
  name: sac
  batch_size: 32
  actor: {kind: mlp, hidden_size: 16, blocks: 1}
  critic: {kind: mlp, hidden_size: 16, blocks: 1}
replay: {min_size: 400, samples_per_insert: 32, limit_inserts: true}
evaluation: {episodes: 1}
checkpoints: {every_updates: 200, every_seconds: 3}
"""

SHORT_WALKER = """
task: {environment: prosthetics, model: 2D, reward: {preset: walk}}
algorithm:
  name: td3
  batch_size: 32
  actor: {kind: mlp, hidden_size: 32, blocks: 2}
  critic: {kind: mlp, hidden_size: 32, blocks: 2}
replay: {min_size: 60, samples_per_insert: 64}
evaluation: {episodes: 1}
checkpoints: {every_updates: 50, every_seconds: 5}
"""


@pytest.fixture
def pendulum(tmp_path: Path) -> str:
    path = tmp_path / "pendulum.yaml"
    path.write_text(SHORT_PENDULUM)
    return str(path)


def a_checkpoint_went_round(status: RunStatus) -> bool:
    """Two checkpoints were published, and an episode was played with one of them."""
    played = status.returns.get("train")
    return status.checkpoints_published >= 2 and played is not None and played.policy_version > 0


def command(fleet: RunningFleet, *arguments: str) -> str:
    """What `gaitfleet` prints, asked of a running fleet; the run is found by itself."""
    options = [*arguments, "--url", f"http://127.0.0.1:{fleet.port}"]
    result = subprocess.run([sys.executable, "-m", "gaitfleet", *options], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def the_commands_show_it(fleet: RunningFleet) -> None:
    status = RunStatus.model_validate_json(command(fleet, "status", "--json"))
    assert status.checkpoints_published >= 2
    assert "samples per insert" in command(fleet, "status")
    episodes = json.loads(command(fleet, "episodes", "--role", "train", "--limit", "3", "--json"))["episodes"]
    assert episodes[0]["policy_version"] > 0
    assert "time_limit" in command(fleet, "episodes", "--limit", "3")
    kinds = [event["kind"] for event in json.loads(command(fleet, "events", "--limit", "1000", "--json"))["events"]]
    assert kinds[0] == "run_started"
    assert {"worker_joined", "lease_acquired", "checkpoint_published"} <= set(kinds)
    assert "checkpoint_published" in command(fleet, "events", "--kind", "checkpoint_published")


def test_a_checkpoint_goes_round_and_the_same_command_continues_the_run(start: Start, pendulum: str) -> None:
    first = start("pendulum", "--experiment", pendulum, "--workers", "1")
    first.wait_for(lambda s: a_checkpoint_went_round(s) and "evaluate" in s.returns, 300)
    the_commands_show_it(first)
    processes = first.children()
    assert first.stop() == 0, first.said()
    assert not [process for process in processes if process.is_running()]
    said = first.said()
    assert "run pendulum: new" in said
    last = RunStatus.model_validate(json.loads([line for line in said.splitlines() if line.startswith("{")][-1]))
    assert last.checkpoint is not None

    again = start("pendulum", "--workers", "1", "--stop-after-episodes", str(sum(last.episodes.values()) + 5))
    status = again.wait_for(lambda s: s.trainer is not None and s.trainer.updates > last.checkpoint.step, 120)
    assert status.checkpoint is not None
    assert status.checkpoint.step >= last.checkpoint.step
    assert again.process.wait(120) == 0, again.said()
    continued = re.search(r"pendulum: continuing from [\d,]+ episodes, .* checkpoint at update ([\d,]+)", again.said())
    assert continued is not None, again.said()
    assert int(continued[1].replace(",", "")) >= last.checkpoint.step


def test_the_prosthetic_walker_goes_round_in_real_opensim(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "walker.yaml"
    path.write_text(SHORT_WALKER)
    fleet = start("walker", "--experiment", str(path), "--workers", "1", "--evaluators", "0")
    fleet.wait_for(a_checkpoint_went_round, 180)
    newest = fleet.client.episodes(limit=1, role="train").episodes[0]
    assert newest.policy_version > 0
    assert newest.steps >= 20
    assert 0 <= newest.action_minimum <= newest.action_maximum <= 1
    assert newest.distance_m is not None
    assert newest.lowest_pelvis_m is not None
    assert 0 < newest.lowest_pelvis_m < 1
    assert fleet.stop() == 0, fleet.said()


def test_every_service_can_be_killed_and_the_run_goes_on(start: Start, pendulum: str) -> None:
    fleet = start("pendulum", "--experiment", pendulum, "--workers", "1", "--evaluators", "0")
    before = fleet.wait_for(a_checkpoint_went_round, 120)
    for module in ("trainer", "rollout", "replay_api", "secantusd-py"):
        fleet.service(module).kill()
        stored, updates = sum(before.episodes.values()), before.limits.sampled

        def goes_on(status: RunStatus, stored: int = stored, updates: int = updates) -> bool:
            return sum(status.episodes.values()) > stored + 3 and status.limits.sampled > updates + 320

        after = fleet.wait_for(goes_on, 120)
        assert after.checkpoint is not None
        assert before.checkpoint is not None
        assert after.checkpoint.step >= before.checkpoint.step, module
        before = after
    limits = before.limits
    ahead = limits.sampled - (limits.inserted - limits.min_size) * limits.samples_per_insert
    assert ahead <= limits.error_buffer, "after the kills the trainer took more than the limiter allows"
    assert fleet.stop() == 0, fleet.said()


def test_ctrl_c_ends_it_while_the_api_still_waits_for_its_database(start: Start, pendulum: str) -> None:
    nowhere = f"mongodb://127.0.0.1:{free_port()}/"
    fleet = start("pendulum", "--experiment", pendulum, "--mongodb-uri", nowhere)
    deadline = time.monotonic() + 60
    while not (processes := fleet.children()):
        assert time.monotonic() < deadline, fleet.said()
        time.sleep(0.1)
    assert fleet.stop(seconds=40) == 0, fleet.said()
    assert not psutil.wait_procs(processes, timeout=5)[1]


def test_nothing_is_left_when_the_parent_is_killed(start: Start, pendulum: str) -> None:
    fleet = start("pendulum", "--experiment", pendulum, "--workers", "1")
    fleet.wait_for(lambda status: status.episodes.get("random", 0) > 0, 60)
    processes = fleet.children()
    assert len(processes) >= 5
    fleet.process.kill()
    fleet.process.wait()
    _, alive = psutil.wait_procs(processes, timeout=30)
    assert not alive, [process.cmdline() for process in alive]


def test_a_mistake_in_the_experiment_is_named_before_anything_starts(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text("task: {environment: prosthetics, modle: 2D}")
    fleet = start("walker", "--experiment", str(path))
    assert fleet.process.wait(30) == 1
    assert "unknown key 'modle'; did you mean 'model'?" in fleet.said()


def test_another_experiment_under_the_same_run_is_refused(start: Start, pendulum: str, tmp_path: Path) -> None:
    first = start("pendulum", "--experiment", pendulum, "--workers", "1", "--evaluators", "0")
    first.wait_for(lambda status: status.episodes.get("random", 0) > 0, 60)
    assert first.stop(signal.SIGTERM) == 0
    other = tmp_path / "other.yaml"
    other.write_text(SHORT_PENDULUM + "seed: 1\n")
    second = start("pendulum", "--experiment", str(other))
    assert second.process.wait(60) == 1
    assert "choose another --run than 'pendulum'" in " ".join(second.said().split())
    time.sleep(0.1)
    assert not [line for line in second.said().splitlines() if line.startswith("{")]
