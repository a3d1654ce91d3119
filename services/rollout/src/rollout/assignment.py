"""What the supervisor and a simulator process say to each other. The record itself goes through `recording`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gaitfleet.episode import Ending, EndingReason, Role
from gaitfleet.experiment import GymnasiumTask, ProstheticsTask
from gaitfleet.pose import Pose
from rollout.environments.interface import Environment
from rollout.exploration import Exploration

EnvironmentFactory = Callable[[ProstheticsTask | GymnasiumTask, Role], Environment]
"""Must be importable by name: it is called in the simulator process."""


@dataclass(frozen=True, slots=True)
class SimulatorSpecification:
    """What a simulator process plays, all its life."""

    task: ProstheticsTask | GymnasiumTask
    role: Role
    make_environment: EnvironmentFactory


@dataclass(frozen=True, slots=True)
class Assignment:
    """One episode to play.

    Parameters
    ----------
    policy_version
        The policy that acts; 0 for none.
    policy_body
        Its bytes, only where this process does not hold them from the episode before.
    pose
        Where it begins; None for the simulator's own pose.
    """

    seed: int
    exploration: Exploration
    policy_version: int
    policy_body: bytes | None
    pose: Pose | None = None


@dataclass(frozen=True, slots=True)
class Ready:
    """The simulator is loaded and waits for its first assignment."""


@dataclass(frozen=True, slots=True)
class Unfit:
    """The simulator can never play this task; trying again is of no use."""

    message: str


@dataclass(frozen=True, slots=True)
class PhaseSeconds:
    """Where the wall-clock time of an episode went."""

    simulate: float = 0.0
    policy: float = 0.0
    record: float = 0.0


@dataclass(frozen=True, slots=True)
class Finished:
    """An episode has ended; its rows are in the recording."""

    ending: Ending
    reason: EndingReason
    wall_seconds: float
    phases: PhaseSeconds


@dataclass(frozen=True, slots=True)
class Failed:
    """The simulator failed; its process must be replaced."""

    kind: str
    message: str


Report = Ready | Unfit | Finished | Failed
