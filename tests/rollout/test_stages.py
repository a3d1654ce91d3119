"""A worker plays the stage that the API names in answer to its reports, from the next episode on."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from fake_replay_api import FakeApi
from scenario import pendulum

from gaitfleet.task import make_task
from rollout.schedule import EvaluationSchedule, Policy

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
