"""From what a simulator has recorded to an episode body."""

from __future__ import annotations

from dataclasses import dataclass

from gaitfleet.episode import Ending, EndingReason, Episode, EpisodeMetadata, encode_episode
from gaitfleet.experiment import ProstheticsTask
from gaitfleet.identity import new_episode_id
from gaitfleet.task import Task
from rollout.assignment import SimulatorSpecification
from rollout.environments.factory import simulator_settings, step_seconds
from rollout.schedule import worker_name
from rollout.simulator_slot import Play, SimulatorSlot


@dataclass(frozen=True, slots=True)
class EpisodeRecord:
    """An episode and its bytes."""

    episode: Episode
    body: bytes


class Recorder:
    """Makes episodes of one run and worker.

    Parameters
    ----------
    run
        Id of the run.
    worker
        Name of the worker, without a slot.
    stage
        Stage of the run's curriculum; empty without one.
    """

    def __init__(
        self, run: str, worker: str, specification: SimulatorSpecification, task: Task, stage: str = ""
    ) -> None:
        self._run = run
        self._worker = worker
        self._stage = stage
        self._task = task
        self._integrator, self._accuracy = "", 0.0
        if isinstance(specification.task, ProstheticsTask):
            simulator = simulator_settings(specification.task, specification.role)
            self._integrator, self._accuracy = simulator.integrator, simulator.accuracy
        self.step_seconds = step_seconds(specification.task)

    def record(
        self, slot: SimulatorSlot, play: Play, ending: Ending, reason: EndingReason, wall_seconds: float
    ) -> EpisodeRecord | None:
        """The episode in a slot's buffers; None when not one step of it is whole and finite.

        An episode that is cut because a number is not finite ends there as truncated by a simulator failure, however it
        was said to end.
        """
        plan = play.plan
        trajectory = slot.recording.trajectory(self._task.target_velocities(plan.seed))
        if trajectory is None:
            return None
        if trajectory.steps < slot.recording.steps:
            ending, reason = "truncated", "simulator_failure"
        metadata = EpisodeMetadata(
            episode_id=new_episode_id(),
            run=self._run,
            worker=worker_name(self._worker, slot.number),
            role=plan.role,
            policy_version=0 if plan.policy is None else plan.policy.version,
            seed=plan.seed,
            layout_hash=self._task.description.state_layout.hash,
            ending=ending,
            ending_reason=reason,
            exploration=plan.exploration.kind,
            integrator=self._integrator,
            accuracy=self._accuracy,
            stage=self._stage,
            initial_pose=plan.pose,
            started_at=play.started_at,
            wall_seconds=wall_seconds,
            rows_checksum=slot.recording.checksum(trajectory.steps),
        )
        episode = Episode(metadata, trajectory)
        return EpisodeRecord(episode, encode_episode(episode))
