"""``python -m rollout.one_episode``: one episode of the walker by a policy, into a file; for `gaitfleet play --policy`.

Played by the official rules, without noise; the simulator is the one that the task says.
"""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

from gaitfleet.episode import Episode, EpisodeMetadata, encode_episode
from gaitfleet.errors import GaitfleetError
from gaitfleet.experiment import ProstheticsTask
from gaitfleet.identity import new_episode_id
from gaitfleet.policy import NumpyPolicy
from gaitfleet.task import make_task
from rollout.environments.factory import make_environment
from rollout.environments.interface import SimulatorFailure
from rollout.recording import Recording, RecordingShape, SharedBlock
from rollout.worker import run_episode


def main() -> int:
    """Play it; the result is the exit code, and the last line on stderr says why it is not 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policy", type=Path, required=True, help="a policy's file")
    parser.add_argument("--task", required=True, help="the task block of an experiment, as JSON")
    parser.add_argument("--seed", type=int, required=True, help="of the episode")
    parser.add_argument("--output", type=Path, required=True, help="where the episode goes")
    options = parser.parse_args()
    try:
        policy = NumpyPolicy.from_bytes(options.policy.read_bytes())
        task = ProstheticsTask.model_validate_json(options.task)
        options.output.write_bytes(encode_episode(played(policy, task, options.seed)))
    except ImportError as error:
        sys.stderr.write(f"the simulator cannot be loaded ({error}): pip install 'gaitfleet-rollout[opensim]'\n")
        return 1
    except (GaitfleetError, SimulatorFailure) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def played(policy: NumpyPolicy, settings: ProstheticsTask, seed: int) -> Episode:
    """One whole episode.

    Raises
    ------
    SimulatorFailure
        When OpenSim fails.
    """
    task = make_task(settings).for_evaluation()
    shape = RecordingShape.of(task.description)
    recording = Recording(SharedBlock(shape.nbytes), shape)
    environment = make_environment(settings, "train")  # role `evaluate` would not take the task's own integrator
    started_at = datetime.now(UTC)
    finished = run_episode(environment, task, policy.act, recording, seed=seed, stopping=lambda: False)
    environment.close()
    trajectory = recording.trajectory(task.target_velocities(seed))
    if trajectory is None:
        raise SimulatorFailure("not one step is whole", "non_finite")
    metadata = EpisodeMetadata(
        episode_id=new_episode_id(),
        run=policy.description.run,
        worker="play",
        role="evaluate",
        policy_version=policy.description.version,
        seed=seed,
        layout_hash=task.description.state_layout.hash,
        ending=finished.ending,
        ending_reason=finished.reason,
        exploration="none",
        integrator=settings.simulator.integrator,
        accuracy=settings.simulator.accuracy,
        started_at=started_at,
        wall_seconds=finished.wall_seconds,
        rows_checksum=recording.checksum(trajectory.steps),
    )
    return Episode(metadata, trajectory)


if __name__ == "__main__":
    sys.exit(main())
