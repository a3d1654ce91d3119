"""An episode of a policy, played for `gaitfleet play --policy` in a process that has the simulator."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from gaitfleet.command.inspection import connected
from gaitfleet.command.up import read_experiment
from gaitfleet.episode import Episode, decode_episode
from gaitfleet.errors import PlaybackError
from gaitfleet.experiment import OFFICIAL_SIMULATOR, GymnasiumTask, ProstheticsTask, SimulatorSettings
from gaitfleet.policy import NumpyPolicy
from gaitfleet.task import Task, make_task


@dataclass(frozen=True, slots=True)
class Chosen:
    """A policy's body, and the task that it acts in."""

    body: bytes
    task: ProstheticsTask | GymnasiumTask


def choose(name: str, experiment: str | None, url: str, run: str | None) -> Chosen:
    """A policy by what the user calls it.

    Parameters
    ----------
    name
        A shipped policy; `newest` or `best` for a head of the run; or a file.
    experiment
        The experiment of a file, or a shipped experiment's name; for the others their own unless given.

    Raises
    ------
    GaitfleetError
        When there is no such policy, or nothing says in which task it acts.
    """
    given = None if experiment is None else read_experiment(experiment).task
    if name in ("newest", "best"):
        return _head("newest" if name == "newest" else "best", given, url, run)
    if name in shipped():
        directory = files("gaitfleet") / "policies"
        body = (directory / f"{name}.safetensors").read_bytes()
        return Chosen(body, given or read_experiment(str(directory / f"{name}.yaml")).task)
    if given is None:
        known = ", ".join(shipped())
        raise PlaybackError(
            f"--policy {name} needs --experiment FILE, the task that it acts in; without one it is newest or best, of "
            f"a run, or shipped: {known}"
        )
    try:
        return Chosen(Path(name).read_bytes(), given)
    except OSError as error:
        raise PlaybackError(f"--policy {name}: {error.strerror}") from None


def shipped() -> list[str]:
    """Names of the policies that come with gaitfleet."""
    names = (entry.name for entry in (files("gaitfleet") / "policies").iterdir())
    return sorted(name.removesuffix(".safetensors") for name in names if name.endswith(".safetensors"))


def simulator(integrator: str | None, accuracy: float | None) -> SimulatorSettings:
    """osim-rl's own settings, with what is asked for instead.

    Raises
    ------
    PlaybackError
        Naming the option and the value that OpenSim would not take.
    """
    asked = {"integrator": integrator, "accuracy": accuracy}
    changes = {name: value for name, value in asked.items() if value is not None}
    try:
        return SimulatorSettings.model_validate(OFFICIAL_SIMULATOR.model_dump() | changes)
    except ValidationError as error:
        first = error.errors()[0]
        raise PlaybackError(f"--{first['loc'][0]} {first['input']}: {first['msg']}") from None


def play_policy(chosen: Chosen, settings: SimulatorSettings, seed: int) -> tuple[Episode, Task]:
    """Let a policy play one episode.

    Raises
    ------
    PlaybackError
        When it is not a walker's policy or does not fit the task, or when the simulator is missing or fails.
    """
    if isinstance(chosen.task, GymnasiumTask):
        raise PlaybackError(f"only episodes of `prosthetics` can be played, and this is {chosen.task.environment}")
    task = make_task(chosen.task)
    seen, here = NumpyPolicy.from_bytes(chosen.body).description, task.description
    if seen.observation_hash != here.observation_hash or seen.action_size != here.action_size:
        raise PlaybackError(
            f"the policy takes {seen.observation_size} values ({seen.observation_hash}) to {seen.action_size} actions, "
            f"the task has {here.observation_size} ({here.observation_hash}) and {here.action_size}"
        )
    if find_spec("rollout") is None:
        raise PlaybackError("playing a policy needs the simulator: pip install 'gaitfleet-rollout[opensim]'")
    with tempfile.TemporaryDirectory(prefix="gaitfleet-") as directory:
        policy, output = Path(directory) / "policy.safetensors", Path(directory) / "episode.safetensors"
        policy.write_bytes(chosen.body)
        played = chosen.task.model_copy(update={"simulator": settings})
        files_ = ["--policy", str(policy), "--output", str(output)]
        command = [sys.executable, "-m", "rollout.one_episode", *files_, "--seed", str(seed)]
        answer = subprocess.run(
            [*command, "--task", played.model_dump_json()],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if answer.returncode:
            said = answer.stderr.strip().rpartition("\n")[2]
            raise PlaybackError(said or f"the simulator ended with status {answer.returncode}")
        return decode_episode(output.read_bytes()), task


def _head(
    head: Literal["newest", "best"], given: ProstheticsTask | GymnasiumTask | None, url: str, run: str | None
) -> Chosen:
    with connected(url, run) as client:
        description = client.run()
        answer = client.get_policy(head=head)
    if answer is None:
        raise PlaybackError(f"run {description.run} has no {head} policy yet")
    return Chosen(answer.body, given or description.experiment.task_at(description.stage))
