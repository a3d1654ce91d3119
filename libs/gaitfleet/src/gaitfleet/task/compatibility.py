"""Whether what was recorded, or learned, in one task can be used in another."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from gaitfleet.errors import EpisodeError, ExperimentError
from gaitfleet.task.interface import Task
from gaitfleet.trajectory import Float32, Trajectory


def check_replayable(recorded: Task, task: Task) -> None:
    """Whether episodes of one task can be learned from in another: their states observed, their actions mapped back.

    Round and target velocity may differ: targets do not move the walker, so an episode can be given others.

    Raises
    ------
    ExperimentError
        Naming what differs, with both values: the environment (another version of it may be), the state layout, the
        actions, an action that the new settings could not have produced, or for how long a decision is held.
    """
    old, new = recorded.description, task.description
    if _without_version(old.environment) != _without_version(new.environment):
        raise ExperimentError(f"task.environment: it was {old.environment}, here it is {new.environment}")
    if old.state_layout.hash != new.state_layout.hash:
        sizes = f"{len(old.state_layout)} columns, {old.state_layout.hash}"
        raise ExperimentError(
            f"task: the state layout was {sizes}; here it is {len(new.state_layout)} columns, {new.state_layout.hash}"
        )
    _check_action_names(recorded, task)
    _check_action_values(recorded, task)
    held = _held(recorded), _held(task)
    if held[0][0] < held[1][0] or held[0][1] > held[1][1]:
        raise ExperimentError(
            f"task.action.repeat: decisions were held for {_steps(held[0])} steps, here for {_steps(held[1])}"
        )


def check_decisions(trajectory: Trajectory, task: Task) -> None:
    """Whether the decisions of an episode that was played in another task could have been made in this one.

    Raises
    ------
    EpisodeError
        Naming the first action that no decision gives here, or the first decision that was not held as long as here.
    """
    again, wrong = _played_again(trajectory.action, task)
    if wrong.any():
        step, action = np.argwhere(wrong)[0]
        name = task.description.action_names[action]
        message = (
            f"action[{step},{action}] ({name}) is {trajectory.action[step, action]:g}; with this run's limits or bins "
            f"no decision gives that, the nearest gives {again[step, action]:g}"
        )
        raise EpisodeError(message, field=f"action[{step},{action}]", reason="bounds")
    least, most = _held(task)
    steps = np.diff(trajectory.decision_steps)
    last = trajectory.steps - trajectory.decision_steps[-1]  # the end of the episode may have cut it
    lengths = np.append(steps, max(last, least))
    strange = (lengths < least) | (lengths > most)
    if strange.any():
        step = trajectory.decision_steps[int(np.argmax(strange))]
        message = f"decision[{step}] was held for {lengths[strange][0]} steps, here it is {_steps((least, most))}"
        raise EpisodeError(message, field=f"decision[{step}]", reason="bounds")


def check_networks(learned: Task, task: Task) -> None:
    """Whether networks that were learned in one task take the observations of another and act in it.

    Raises
    ------
    ExperimentError
        Naming what differs, with both values: the observation or the actions.
    """
    old, new = learned.description, task.description
    if old.observation_hash != new.observation_hash:
        raise ExperimentError(
            f"task.observation: there were {old.observation_size} values ({old.observation_hash}), here are "
            f"{new.observation_size} ({new.observation_hash})"
        )
    _check_action_names(learned, task)


def _without_version(environment: str) -> str:
    """``gymnasium:Walker2d`` of ``gymnasium:Walker2d-v5``."""
    return re.sub(r"-v\d+$", "", environment)


def _check_action_names(old: Task, new: Task) -> None:
    before, now = old.description.action_names, new.description.action_names
    if before != now:
        raise ExperimentError(f"task: there were {len(before)} actions ({', '.join(before)}), here are {len(now)}")


def _check_action_values(recorded: Task, task: Task) -> None:
    """An action can be mapped back when the policy action that stands for it produces it again."""
    received = _possible_actions(recorded)
    again, wrong = _played_again(received, task)
    if wrong.any():
        level, action = np.argwhere(wrong)[0]
        name = recorded.description.action_names[action]
        raise ExperimentError(
            f"task.action: {name} could be {received[level, action]:.4g} when it was recorded; with the limits or bins "
            f"here no decision gives that, the nearest gives {again[level, action]:.4g}"
        )


def _played_again(received: Float32, task: Task) -> tuple[Float32, npt.NDArray[np.bool_]]:
    """What the simulator receives when recorded actions [n, A] are decided anew, and where that is something else."""
    again = task.to_simulator(task.to_policy(received))
    largest = np.maximum(np.abs(task.description.action_low), np.abs(task.description.action_high))
    return again, np.abs(again - received) > 1e-5 * largest  # many times the rounding of the way there and back


def _possible_actions(task: Task) -> Float32:
    """Every level of every action, [levels, A]; both bounds and something in between where there are none."""
    bins = task.description.action_bins
    shares = np.array([0, 1 / np.pi, 1]) if bins is None else np.linspace(0, 1, bins)
    policy = (2 * shares - 1).astype(np.float32)
    return task.to_simulator(np.repeat(policy[:, None], task.description.action_size, axis=1))


def _held(task: Task) -> tuple[int, int]:
    """Simulator steps for which a decision is held, at least and at most."""
    least = task.description.action_repeat
    return least, least + task.description.action_random_repeat


def _steps(held: tuple[int, int]) -> str:
    return str(held[0]) if held[0] == held[1] else f"{held[0]} to {held[1]}"
