"""A worker plays the stage that the API names in answer to its reports, from the next episode on."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from itertools import pairwise
from pathlib import Path

import pytest
from failing_environments import Misbehaving
from fake_replay_api import FakeApi
from scenario import Scenario, counting, pendulum, simba_policy

from gaitfleet.identity import episode_seed
from gaitfleet.task import make_task
from rollout.assignment import SimulatorSpecification
from rollout.episode_record import Recorder
from rollout.schedule import EvaluationSchedule, Policy
from rollout.supervisor import SimulatorLimits

pytest.importorskip("gymnasium", reason="the simulator of these tests is Pendulum")

CURRICULUM = {
    "stages": [
        {"name": "short", "gate": {"mean_return": 0}},
        {"name": "long", "task": {"time_limit_steps": 30}},
    ]
}


def test_a_new_stage_is_played_from_the_next_episode_on(tmp_path: Path) -> None:
    with FakeApi(pendulum(steps=20, curriculum=CURRICULUM)).serving() as api:
        settings = {"REPLAY_API_URL": api.url, "RUN": "test", "WORKER": "tester", "SIMULATORS": "1"}
        settings["SPOOL_DIR"] = str(tmp_path)
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        environment |= {f"GAITFLEET_ROLLOUT_{name}": value for name, value in settings.items()}
        process = subprocess.Popen([sys.executable, "-m", "rollout"], env=environment)
        try:
            api.wait_for(lambda api: len(api.bodies) >= 2, 120)
            api.stage = 1
            api.wait_for(lambda api: api.episodes()[-1].metadata.stage == "long", 120)
            process.terminate()
            assert process.wait(20) == 0
        finally:
            process.kill()
            process.wait()
        played = [episode for episode in api.episodes() if episode.metadata.ending_reason == "time_limit"]
        stages = [episode.metadata.stage for episode in played]
        assert sum(a != b for a, b in pairwise(stages)) == 1
        lengths = {episode.metadata.stage: episode.trajectory.steps for episode in played}
        assert lengths == {"short": 20, "long": 30}


def test_the_newest_policy_is_evaluated_again_in_a_new_stage() -> None:
    schedule = EvaluationSchedule(pendulum(evaluation={"episodes": 2}), lambda: Policy(7, b""))
    first = [schedule.next(0) for _ in range(3)]
    schedule.begin_stage(make_task(pendulum().task))
    assert [schedule.next(0) for _ in range(3)] == first
    assert first[2] is None


def test_an_older_policy_is_evaluated_when_the_api_has_lost_the_newer_one() -> None:
    newest = [Policy(7, b"")]
    schedule = EvaluationSchedule(pendulum(evaluation={"episodes": 1}), lambda: newest[0])
    assert [plan and plan.policy for plan in (schedule.next(0), schedule.next(0))] == [Policy(7, b""), None]
    newest[0] = Policy(3, b"")
    assert [plan and plan.policy for plan in (schedule.next(0), schedule.next(0))] == [Policy(3, b""), None]


def test_an_evaluation_episode_of_a_former_stage_is_not_played_again_in_the_new_one(tmp_path: Path) -> None:
    experiment, marker = pendulum(evaluation={"episodes": 2}), tmp_path / "failed"
    policy = Policy(1, simba_policy(make_task(experiment.task).description))
    scenario = Scenario(
        experiment,
        role="evaluate",
        schedule=EvaluationSchedule(experiment, lambda: policy),
        make_environment=Misbehaving("hang", marker),
        limits=SimulatorLimits(step_timeout_seconds=2.0),
    )
    specification = SimulatorSpecification(experiment.task, "evaluate", counting)
    changed = threading.Event()

    def done() -> bool:
        if marker.exists() and not changed.is_set():
            recorder = Recorder("test", "worker", specification, scenario.task)
            scenario.supervisor.change(specification, scenario.task, recorder)
            changed.set()
        return len(scenario.outbox.bodies) >= 2

    played = [episode.metadata.seed for episode in scenario.play_until(done)]
    assert played == [episode_seed(experiment.seed, "evaluate", k) for k in range(2)]
    assert scenario.supervisor.failures == {"step_timeout": 1}
    assert scenario.value("episodes_dropped_total", reason="preempted_evaluation") == 1
