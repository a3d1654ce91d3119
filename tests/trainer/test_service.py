"""The whole trainer against a small HTTP server."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from gaitfleet import codec
from gaitfleet.batch import Batch
from gaitfleet.checkpoint import Checkpoint, decode_checkpoint
from gaitfleet.policy import NumpyPolicy
from gaitfleet.wire import BatchRequest
from tests.trainer.stub_replay_api import StubReplayApi, random_batch
from tests.trainer.toys import describe, small_experiment
from trainer.main import ExitCode, run
from trainer.priorities import TELLING_UPDATES
from trainer.publisher import FIRST_AFTER_UPDATES, RETRY_SECONDS, PublicationSchedule
from trainer.settings import TrainerSettings
from trainer.startup import LOST_ATTEMPTS


class Trainer:
    """A trainer in a thread of this process."""

    def __init__(self, api: StubReplayApi, **settings: Any) -> None:
        self.stop = threading.Event()
        self.registry = CollectorRegistry()
        here = {"replay_api_url": api.url, "run": "toy", "threads": 1, "lease_ttl_seconds": 3}
        self._settings = TrainerSettings(**(here | settings))
        self._code: ExitCode | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        self._code = run(self._settings, self.stop, self.registry)

    def ended(self, seconds: float = 10.0) -> ExitCode | None:
        self._thread.join(seconds)
        assert not self._thread.is_alive(), f"still running after {seconds} s"
        return self._code

    def metric(self, name: str, /, **labels: str) -> float:
        return self.registry.get_sample_value(name, {"run_id": "toy", **labels}) or 0.0


@contextmanager
def serving(batches: Any = random_batch, *, exists: bool = True, **changes: Any) -> Iterator[StubReplayApi]:
    blocks = {"checkpoints": {"every_updates": 200}} | changes
    description = describe(small_experiment(**blocks))
    with StubReplayApi(description if exists else None, batches).serving() as api:
        yield api


def test_it_publishes_soon_and_once_more_when_it_is_stopped() -> None:
    with serving() as api:
        trainer = Trainer(api)
        api.wait_for(lambda api: len(api.checkpoints) >= 2)
        trainer.stop.set()
        assert trainer.ended() is ExitCode.CLEAN
    steps = sorted(api.checkpoints)
    assert FIRST_AFTER_UPDATES <= steps[0] < 200
    assert steps[-1] == trainer.metric("rl_trainer_updates_total") == trainer.metric("rl_trainer_published_step")
    assert trainer.metric("rl_trainer_publish_total", result="ok") == len(steps)
    assert (api.released, api.holder) == ([1], None), "the lease was given back"
    policy = decode_checkpoint(api.checkpoints[steps[-1]])
    assert NumpyPolicy(policy.policy, policy.policy_tensors).act(np.zeros(3, np.float32)).shape == (1,)


def test_it_goes_on_from_the_newest_checkpoint() -> None:
    with serving() as api:
        first = Trainer(api)
        api.wait_for(lambda api: len(api.checkpoints) >= 1)
        first.stop.set()
        first.ended()
        stopped_at = max(api.checkpoints)
        allowed, api.limit = api.limit, lambda request: 0
        second = Trainer(api)
        api.wait_for(lambda _: second.metric("rl_trainer_feed_waits_total", reason="limited") > 0)
        published_step = second.metric("rl_trainer_published_step")
        api.limit = allowed
        api.wait_for(lambda api: max(api.checkpoints) > stopped_at)
        second.stop.set()
        assert second.ended() is ExitCode.CLEAN
        assert second.metric("rl_trainer_lease_epoch") == 2
        assert published_step == stopped_at
        assert max(api.checkpoints) == stopped_at + second.metric("rl_trainer_updates_total")
        assert decode_checkpoint(api.checkpoints[max(api.checkpoints)]).counters["algorithm/updates"] > stopped_at


def test_a_lost_checkpoint_ends_it_with_code_2_and_one_that_was_just_thinned_out_does_not(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("trainer.startup.RETRY_SECONDS", 0.01)
    with serving() as api:
        api.lost = LOST_ATTEMPTS
        assert Trainer(api).ended() is ExitCode.MISCONFIGURED
        assert "the newest checkpoint cannot be had (404: told to fail): the database knows of it" in caplog.text
        assert (api.holder, api.sampled) == (None, 0)
        api.lost = LOST_ATTEMPTS - 1
        trainer = Trainer(api)
        api.wait_for(lambda api: len(api.checkpoints) >= 1)
        trainer.stop.set()
        assert trainer.ended() is ExitCode.CLEAN


def test_it_stops_with_code_3_when_another_takes_the_lease() -> None:
    with serving() as api:
        trainer = Trainer(api)
        api.wait_for(lambda api: api.sampled > 0)
        api.give_lease_to("another")
        assert trainer.ended() is ExitCode.LEASE_LOST
        assert api.holder == "another"
        assert trainer.metric("rl_trainer_lease_held") == 0


def test_a_fenced_publication_stops_it_before_the_lease_is_renewed() -> None:
    with serving(checkpoints={"every_updates": 20}) as api:
        trainer = Trainer(api, lease_ttl_seconds=600)
        api.wait_for(lambda api: len(api.checkpoints) >= 1)
        api.epoch += 1
        assert trainer.ended() is ExitCode.LEASE_LOST
        assert trainer.metric("rl_trainer_publish_total", result="fenced") == 1


@pytest.mark.parametrize(
    ("status", "code"), [(413, ExitCode.MISCONFIGURED), (422, ExitCode.MISCONFIGURED), (400, ExitCode.FAILED)]
)
def test_a_checkpoint_that_is_refused_for_what_it_is_ends_it_with_code_2(
    status: int, code: ExitCode, caplog: pytest.LogCaptureFixture
) -> None:
    with serving() as api:
        api.refuse = lambda step: status
        assert Trainer(api).ended() is code
    told = re.search(r"stopping: checkpoint \d+ of \d{4,} bytes is refused for good: .*", caplog.text)
    assert (told is not None) is (code is ExitCode.MISCONFIGURED)
    assert ("larger max_checkpoint_bytes" in caplog.text) is (status == 413)


def test_it_waits_for_another_trainer_to_leave(tmp_path: Path) -> None:
    progress = tmp_path / "progress"
    with serving() as api:
        api.give_lease_to("another")
        trainer = Trainer(api, progress_file=progress)
        time.sleep(0.3)
        assert api.sampled == 0
        assert not progress.exists(), "a sign of life that would soon be too old"
        api.give_lease_to(None)
        api.wait_for(lambda api: len(api.checkpoints) >= 1)
        assert progress.exists()
        trainer.stop.set()
        assert trainer.ended() is ExitCode.CLEAN


def test_it_waits_for_the_run_and_survives_an_absent_api() -> None:
    with serving(exists=False) as api:
        trainer = Trainer(api)
        time.sleep(0.2)
        api.description = describe(small_experiment())
        api.wait_for(lambda api: len(api.checkpoints) >= 1)
        api.away.set()
        time.sleep(0.5)
        api.away.clear()
        before = api.sampled
        api.wait_for(lambda api: api.sampled > before + 40)
        trainer.stop.set()
        assert trainer.ended() is ExitCode.CLEAN


def test_a_trainer_that_waits_can_be_stopped() -> None:
    with serving(exists=False) as api:
        trainer = Trainer(api)
        trainer.stop.set()
        assert trainer.ended(5.0) is ExitCode.CLEAN


def test_diverged_learning_is_never_published() -> None:
    def poisoned(number: int, request: BatchRequest) -> Batch:
        batch = random_batch(number, request)
        if number == 150:
            batch.reward[0] = np.inf
        return batch

    with serving(poisoned) as api:
        trainer = Trainer(api)
        assert trainer.ended() is ExitCode.NONFINITE
        assert all(step <= 150 for step in api.checkpoints), "nothing that learned from batch 150"
        assert trainer.metric("rl_trainer_nonfinite_total") >= 1
        assert api.holder is None, "a restart need not wait for the lease"


def test_priorities_are_sent_when_sampling_is_prioritized() -> None:
    with serving(replay={"sampling": "prioritized"}) as api:
        trainer = Trainer(api)
        api.wait_for(lambda api: len(api.priorities) >= 3)
        trainer.stop.set()
        assert trainer.ended() is ExitCode.CLEAN
    assert all(len(update.index) == len(update.priority) for update in api.priorities)


def test_priorities_that_never_find_their_transitions_are_counted_and_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told = f"the last {TELLING_UPDATES} updates of priorities found none of their transitions"
    with serving(replay={"sampling": "prioritized"}) as api:
        trainer = Trainer(api)
        api.wait_for(lambda api: len(api.priorities) >= TELLING_UPDATES)
        assert trainer.metric("rl_trainer_priorities_evicted_total") == 0
        assert told not in caplog.text
        before, api.held = len(api.priorities), False
        api.wait_for(lambda api: len(api.priorities) >= before + 2 * TELLING_UPDATES + 2)
        trainer.stop.set()
        assert trainer.ended() is ExitCode.CLEAN
    gone = sum(len(update.index) for update in api.priorities[before + 1 : -1])
    assert trainer.metric("rl_trainer_priorities_evicted_total") >= gone
    assert caplog.text.count(told) == 1


def test_progress_is_reported_with_the_lease() -> None:
    with serving() as api:
        trainer = Trainer(api)
        api.wait_for(lambda api: any(progress.losses for progress in api.progress))
        trainer.stop.set()
        trainer.ended()
    progress = api.progress[-1]
    assert progress.updates > 0
    assert progress.updates_per_second > 0
    assert {"critic_loss", "entropy", "critic_grad_norm"} <= set(progress.losses)
    assert trainer.metric("rl_trainer_loss", name="critic_loss") > 0
    phases = [trainer.metric("rl_trainer_phase_seconds_total", phase=phase) for phase in ("wait_batch", "compute")]
    assert all(seconds > 0 for seconds in phases)


def test_sigterm_ends_the_process_with_a_last_checkpoint() -> None:
    with serving() as api:
        environment = os.environ | {
            "GAITFLEET_TRAINER_REPLAY_API_URL": api.url,
            "GAITFLEET_TRAINER_RUN": "toy",
            "GAITFLEET_TRAINER_DEVICE": "cpu",
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        with subprocess.Popen(
            [sys.executable, "-m", "trainer"], env=environment, stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                api.wait_for(lambda api: len(api.checkpoints) >= 1, 120.0)
                process.send_signal(signal.SIGTERM)
                _, errors = process.communicate(timeout=30)
            finally:
                process.kill()  # or leaving the block would wait for it
    assert process.returncode == 0, errors
    messages = [json.loads(line)["message"] for line in errors.splitlines()]
    assert any(message.startswith("stopping at step") for message in messages)
    assert codec.read(api.checkpoints[max(api.checkpoints)]).metadata
    assert api.holder is None


def test_sigterm_while_torch_is_imported_ends_the_process_with_code_0(tmp_path: Path) -> None:
    """Not by the default action, which does not exist for the first process of a container."""
    (tmp_path / "torch.py").write_text(
        "import pathlib, time; pathlib.Path(__file__).with_name('importing').touch(); time.sleep(60)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    with subprocess.Popen([sys.executable, "-m", "trainer"], env=environment) as process:
        deadline = time.monotonic() + 30
        while not (tmp_path / "importing").exists():
            assert time.monotonic() < deadline, "torch is not imported"
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def test_the_first_checkpoint_comes_early_and_the_next_by_updates_or_time() -> None:
    schedule = PublicationSchedule(every_updates=1000, every_seconds=60.0, published_updates=0, published_at=0.0)
    assert not schedule.due(0, 100.0), "there is nothing to publish before the first update"
    assert not schedule.due(99, 1.0)
    assert schedule.due(100, 1.0)
    schedule.published(100, 1.0)
    assert not schedule.due(1099, 2.0)
    assert schedule.due(1100, 2.0)
    assert schedule.due(101, 61.0)
    assert not schedule.due(100, 1e6), "a step is published once"
    schedule.failed(61.0)
    assert not schedule.due(2000, 61.0 + RETRY_SECONDS / 2)
    assert schedule.due(2000, 61.0 + RETRY_SECONDS)


def newest(api: StubReplayApi) -> Checkpoint:
    return decode_checkpoint(api.checkpoints[max(api.checkpoints)])


def test_it_learns_of_a_new_stage_with_its_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.learner.STAGE_SETTLES_SECONDS", 0.1)
    with serving(checkpoints={"every_updates": 20}) as api:
        trainer = Trainer(api)
        api.wait_for(lambda api: len(api.checkpoints) >= 1)
        before = newest(api)
        api.stage = 1
        api.wait_for(lambda api: newest(api).counters["stage"] == 1)
        trainer.stop.set()
        assert trainer.ended() is ExitCode.CLEAN
        assert before.counters["stage"] == 0
        assert newest(api).step > before.step


def test_batches_of_the_stage_before_do_not_set_the_scale_of_the_rewards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither those that are ready already, nor those of a replica that learns of the stage a moment later."""
    monkeypatch.setattr("trainer.learner.STAGE_SETTLES_SECONDS", 2.0)
    moved = threading.Event()

    def rewarded(number: int, request: BatchRequest) -> Batch:
        batch = random_batch(number, request)
        return batch if moved.is_set() else replace(batch, return_so_far=100.0 * batch.return_so_far)

    with serving(rewarded, checkpoints={"every_updates": 20}, algorithm={"reward_scaling": True}) as api:
        trainer = Trainer(api)
        api.wait_for(lambda api: len(api.checkpoints) >= 1)
        assert newest(api).trainer_tensors["reward_scale/largest"] > 100
        api.stage, renewed = 1, len(api.progress)
        api.wait_for(lambda api: len(api.progress) > renewed)
        time.sleep(0.3)
        moved.set()
        api.wait_for(lambda api: newest(api).counters["stage"] == 1)
        trainer.stop.set()
        assert trainer.ended() is ExitCode.CLEAN
    assert newest(api).trainer_tensors["reward_scale/largest"] < 10
