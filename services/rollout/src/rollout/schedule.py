"""Which episode is played next: by which policy, with which noise, from which seed and pose."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from gaitfleet.episode import Role
from gaitfleet.experiment import Experiment
from gaitfleet.identity import episode_seed
from gaitfleet.pose import Pose
from gaitfleet.task import Task, make_task
from rollout.exploration import NO_EXPLORATION, UNIFORM, Exploration, draw_exploration


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy that was checked."""

    version: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Plan:
    """An episode to be played.

    Parameters
    ----------
    role
        As the episode is labelled.
    attempt
        0, or how often it has failed before.
    pose
        Where it begins; None for the simulator's own pose.
    """

    seed: int
    role: Role
    exploration: Exploration
    policy: Policy | None
    attempt: int = 0
    pose: Pose | None = None


NewestPolicy = Callable[[], Policy | None]


class Schedule(Protocol):
    """Gives out episodes."""

    def next(self, slot: int) -> Plan | None:
        """The next episode for a simulator; None while there is nothing to play."""

    def begin_stage(self, task: Task) -> None:
        """Another stage of the curriculum begins."""

    def failed(self, plan: Plan) -> bool:
        """The simulator failed under this episode. True when it will be given out again, and must not be posted."""


class TrainingSchedule:
    """Episodes without end, by the newest policy with the run's mix of exploration, or uniformly random without one.

    Parameters
    ----------
    newest_policy
        None for role `random`.
    unpublished
        Whether it is known that there is no policy yet. Nothing is played while there may be one that did not arrive.
    stage
        Of the run's curriculum.
    training_episodes
        Of the run so far, which initial states depend on; None while it is not known, when they are the simulator's.
    first_episode
        Number of each slot's first episode. It grows with every start, or a restarted worker would play the same
        again.
    """

    def __init__(
        self,
        experiment: Experiment,
        worker: str,
        newest_policy: NewestPolicy | None,
        *,
        unpublished: Callable[[], bool] = lambda: True,
        stage: int = 0,
        training_episodes: Callable[[], int | None] = lambda: None,
        first_episode: int = 0,
    ) -> None:
        self._experiment = experiment
        self._task = make_task(experiment.task_at(stage))
        self._training_episodes = training_episodes
        self._worker = worker
        self._newest_policy = newest_policy
        self._unpublished = unpublished
        self._first_episode = first_episode
        self._played: dict[int, int] = {}

    def next(self, slot: int) -> Plan | None:
        policy = None
        if self._newest_policy is not None:
            policy = self._newest_policy()
            if policy is None and not self._unpublished():
                return None
        number = self._played.get(slot, self._first_episode)
        self._played[slot] = number + 1
        seed = episode_seed(self._experiment.seed, worker_name(self._worker, slot), number)
        episodes = self._training_episodes()
        pose = None if episodes is None else self._task.initial_pose(seed, episodes)
        if policy is None:
            return Plan(seed, "random", UNIFORM, None, pose=pose)
        return Plan(seed, "train", draw_exploration(self._experiment.exploration_mix, seed), policy, pose=pose)

    def begin_stage(self, task: Task) -> None:
        self._task = task

    def failed(self, plan: Plan) -> bool:
        return False  # the next episode is as good


class EvaluationSchedule:
    """The same seeds for every policy, without noise; then it waits for another policy.

    A policy that is superseded while it is being evaluated is evaluated to the end: half an evaluation says little.
    Those published meanwhile, but for the newest, are left out.
    """

    ATTEMPTS = 2
    """A failed evaluation episode is played again once, in a new process; if it fails again, its part is posted."""

    def __init__(self, experiment: Experiment, newest_policy: NewestPolicy) -> None:
        self._seeds = tuple(episode_seed(experiment.seed, "evaluate", k) for k in range(experiment.evaluation.episodes))
        self._newest_policy = newest_policy
        self._evaluated = 0
        self._pending: deque[Plan] = deque()

    def next(self, slot: int) -> Plan | None:
        if not self._pending:
            policy = self._newest_policy()
            if policy is not None and policy.version != self._evaluated:
                self._evaluated = policy.version
                self._pending.extend(Plan(seed, "evaluate", NO_EXPLORATION, policy) for seed in self._seeds)
        return self._pending.popleft() if self._pending else None

    def begin_stage(self, task: Task) -> None:
        """Evaluate the newest policy again: it has not been judged in this stage."""
        self._evaluated = 0
        self._pending.clear()

    def failed(self, plan: Plan) -> bool:
        if plan.attempt + 1 >= self.ATTEMPTS:
            return False
        self._pending.appendleft(Plan(plan.seed, plan.role, plan.exploration, plan.policy, plan.attempt + 1))
        return True


def worker_name(worker: str, slot: int) -> str:
    """Who played an episode: host and simulator slot."""
    return f"{worker}.{slot}"
