"""Simulator processes that hang, die, leak and fail, and what is left of their episodes."""

from __future__ import annotations

import dataclasses
import errno
import time
from pathlib import Path

import numpy as np
import pytest
from failing_environments import AlwaysFailing, Leaking, Misbehaving, not_installed, slow, wrong_size
from scenario import Scenario, pendulum, simba_policy

from gaitfleet.identity import episode_seed
from gaitfleet.task import make_task
from rollout.schedule import EvaluationSchedule, Policy, TrainingSchedule
from rollout.simulator_slot import SlotState
from rollout.supervisor import SimulatorLimits, UnfitSimulatorError

LIMITS = SimulatorLimits(step_timeout_seconds=2.0)


def test_episodes_are_recorded_as_they_were_played() -> None:
    scenario = Scenario(pendulum(steps=20, repeat=4))
    first = scenario.play_until(lambda: len(scenario.outbox.bodies) >= 3)[0]
    assert first.metadata.seed == episode_seed(scenario.experiment.seed, "worker.0", 0)
    assert (first.metadata.role, first.metadata.policy_version, first.metadata.exploration) == ("random", 0, "uniform")
    assert (first.metadata.ending, first.metadata.ending_reason) == ("truncated", "time_limit")
    assert first.trajectory.state[:, 0].tolist() == list(range(21))
    assert np.array_equal(first.trajectory.state[1:, 2], first.trajectory.action[:, 0])
    assert first.trajectory.reward.tolist() == list(range(1, 21))
    assert first.trajectory.decision_steps.tolist() == [0, 4, 8, 12, 16]
    assert scenario.value("episodes_total", outcome="time_limit") >= 3
    assert scenario.value("sim_step_seconds_count") == scenario.value("env_steps_total") >= 60


def test_two_simulators_play_different_episodes() -> None:
    scenario = Scenario(simulators=2)
    workers = {"worker.0", "worker.1"}
    episodes = scenario.play_until(
        lambda: {episode.metadata.worker for episode in scenario.outbox.episodes()} == workers
    )
    seeds = [episode.metadata.seed for episode in episodes]
    assert len(set(seeds)) == len(seeds)


@pytest.mark.parametrize(
    ("how", "kind"),
    [
        ("hang", "step_timeout"),
        ("exit", "process_died"),
        ("raise", "integrator"),
        ("bug", "exception"),
        ("nan", "non_finite"),
        ("overflow", "non_finite"),
    ],
)
def test_a_failed_simulator_is_replaced_and_its_good_steps_are_kept(tmp_path: Path, how: str, kind: str) -> None:
    scenario = Scenario(make_environment=Misbehaving(how, tmp_path / "failed"), limits=LIMITS)
    assert scenario.begins_at_zero("sim_resets_total", reason=kind)
    episodes = scenario.play_until(lambda: len(scenario.outbox.bodies) >= 2)
    partial, following = episodes[0], episodes[1]
    assert (partial.metadata.ending, partial.metadata.ending_reason) == ("truncated", "simulator_failure")
    assert partial.trajectory.state[:, 0].tolist() == [0, 1, 2, 3, 4, 5]  # not the row that was being written
    assert following.metadata.ending_reason == "time_limit"
    assert following.trajectory.steps == 20
    assert scenario.supervisor.failures == {kind: 1}
    assert scenario.value("sim_resets_total", reason=kind) == 1
    assert scenario.value("episodes_total", outcome="simulator_failure") == 1


def test_partial_episodes_are_dropped_by_rule(tmp_path: Path) -> None:
    limits = dataclasses.replace(LIMITS, partial_episodes="drop")
    scenario = Scenario(make_environment=Misbehaving("raise", tmp_path / "failed"), limits=limits)
    episodes = scenario.play_until(lambda: len(scenario.outbox.bodies) >= 1)
    assert {episode.metadata.ending_reason for episode in episodes} == {"time_limit"}
    assert scenario.value("episodes_dropped_total", reason="partial") >= 1


def test_a_simulator_that_fails_again_and_again_is_started_less_and_less_often() -> None:
    scenario = Scenario(make_environment=AlwaysFailing())
    assert scenario.begins_at_zero("sim_resets_total", reason="reset")
    began = time.monotonic()
    assert scenario.play_until(lambda: scenario.supervisor.failures["reset"] >= 4) == []
    assert time.monotonic() - began > 1.0  # the second, third and fourth start waited half a second at least
    assert scenario.value("episodes_dropped_total", reason="empty") == 4


def test_a_process_that_cannot_be_started_is_a_failed_simulator(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the system says at a limit of processes, or without memory."""

    def refuse(*_: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr("multiprocessing.util.spawnv_passfds", refuse)
    scenario = Scenario()
    assert scenario.begins_at_zero("sim_resets_total", reason="startup")

    def done() -> bool:
        if scenario.supervisor.failures["startup"] == 2:
            monkeypatch.undo()
        return len(scenario.outbox.bodies) >= 1

    assert scenario.play_until(done)
    assert scenario.supervisor.failures == {"startup": 2}
    assert scenario.value("sim_resets_total", reason="startup") == 2


def test_a_process_is_replaced_after_its_share_of_episodes() -> None:
    scenario = Scenario(limits=dataclasses.replace(LIMITS, episodes_per_process=2))
    scenario.play_until(lambda: len(scenario.outbox.bodies) >= 3)
    assert scenario.value("sim_resets_total", reason="episodes") >= 1
    assert not scenario.supervisor.failures


def test_a_process_that_holds_too_much_memory_is_replaced_between_episodes() -> None:
    scenario = Scenario(make_environment=Leaking(), limits=dataclasses.replace(LIMITS, memory_limit_bytes=150 << 20))
    episodes = scenario.play_until(lambda: scenario.value("sim_resets_total", reason="memory") >= 1)
    assert {episode.metadata.ending_reason for episode in episodes} <= {"time_limit", "preempted"}
    assert not scenario.supervisor.failures


def test_a_process_far_above_the_limit_is_killed_within_its_episode(tmp_path: Path) -> None:
    limits = SimulatorLimits(step_timeout_seconds=60.0, memory_limit_bytes=150 << 20)
    scenario = Scenario(make_environment=Misbehaving("eat", tmp_path / "failed"), limits=limits)
    partial = scenario.play_until(lambda: len(scenario.outbox.bodies) >= 2)[0]
    assert partial.metadata.ending_reason == "simulator_failure"
    assert partial.trajectory.steps == 5
    assert scenario.supervisor.failures == {"memory": 1}


def test_a_stop_ends_the_episode_at_the_next_step() -> None:
    scenario = Scenario(pendulum(steps=10_000), make_environment=slow)
    slot = scenario.supervisor.slots[0]
    last = scenario.play_until(lambda: slot.recording.steps >= 3)[-1]
    assert (last.metadata.ending, last.metadata.ending_reason) == ("truncated", "preempted")
    assert 3 <= last.trajectory.steps < 100


def test_a_stop_does_not_wait_for_a_simulator_that_hangs(tmp_path: Path) -> None:
    scenario = Scenario(make_environment=Misbehaving("hang", tmp_path / "failed"))
    marker = tmp_path / "failed"
    episodes = scenario.play_until(marker.exists, drain=0.5)
    assert [(episode.metadata.ending_reason, episode.trajectory.steps) for episode in episodes] == [("preempted", 5)]


def test_nothing_is_begun_while_the_outbox_is_full_and_the_metrics_tell_of_the_wait() -> None:
    before = time.monotonic()
    scenario = Scenario(simulators=2)
    after = time.monotonic()
    scenario.outbox.accepting = False

    def idle() -> bool:
        loaded = all(slot.state is SlotState.IDLE for slot in scenario.supervisor.slots)
        return loaded and time.monotonic() > after + 1.5

    assert scenario.play_until(idle) == []
    assert 2 * 1.5 < scenario.value("phase_seconds_total", phase="wait") < 2 * (time.monotonic() - before)


@pytest.mark.parametrize(
    ("factory", "message"), [(wrong_size, "4 state values, the task 3"), (not_installed, "No module named 'simulator'")]
)
def test_a_simulator_that_does_not_fit_is_an_error(factory: object, message: str) -> None:
    scenario = Scenario(make_environment=factory)  # type: ignore[arg-type]
    with pytest.raises(UnfitSimulatorError, match=message):
        scenario.play_until(lambda: False)


def test_every_policy_is_evaluated_exactly_as_often_as_asked_for() -> None:
    experiment = pendulum(evaluation={"episodes": 3})
    description = make_task(experiment.task).description
    newest = [Policy(1, simba_policy(description, 1))]
    schedule = EvaluationSchedule(experiment, lambda: newest[0])
    scenario = Scenario(experiment, role="evaluate", schedule=schedule, simulators=2)

    def done() -> bool:
        if len(scenario.outbox.bodies) == 3:
            newest[0] = Policy(7, simba_policy(description, 7, seed=1))
        return len(scenario.outbox.bodies) >= 6

    episodes = scenario.play_until(done)
    played = [(episode.metadata.policy_version, episode.metadata.seed) for episode in episodes]
    seeds = [episode_seed(experiment.seed, "evaluate", k) for k in range(3)]
    assert sorted(played) == sorted((version, seed) for version in (1, 7) for seed in seeds)
    assert {(episode.metadata.role, episode.metadata.exploration) for episode in episodes} == {("evaluate", "none")}


def test_a_failed_evaluation_episode_is_played_again(tmp_path: Path) -> None:
    experiment = pendulum(evaluation={"episodes": 2})
    policy = Policy(1, simba_policy(make_task(experiment.task).description))
    schedule = EvaluationSchedule(experiment, lambda: policy)
    factory = Misbehaving("raise", tmp_path / "failed")
    scenario = Scenario(experiment, role="evaluate", schedule=schedule, make_environment=factory)
    episodes = scenario.play_until(lambda: len(scenario.outbox.bodies) >= 2)
    assert [episode.metadata.ending_reason for episode in episodes] == ["time_limit", "time_limit"]
    assert scenario.value("episodes_dropped_total", reason="repeated") == 1


def test_training_follows_the_newest_policy() -> None:
    experiment = pendulum(exploration={"mix": [{"kind": "gaussian"}, {"kind": "none"}]})
    description = make_task(experiment.task).description
    newest: list[Policy | None] = [None]
    scenario = Scenario(experiment, schedule=TrainingSchedule(experiment, "worker", lambda: newest[0]))

    def done() -> bool:
        played = len(scenario.outbox.bodies)
        if played >= 2 and newest[0] is None:
            newest[0] = Policy(3, simba_policy(description, 3))
        return played >= 30

    metadata = [episode.metadata for episode in scenario.play_until(done)]
    assert {(m.role, m.policy_version) for m in metadata} == {("random", 0), ("train", 3)}
    assert {m.exploration for m in metadata if m.role == "train"} == {"gaussian", "none"}
