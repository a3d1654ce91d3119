"""What is read back from the shared buffers."""

from __future__ import annotations

import numpy as np
import pytest

from gaitfleet.checksum import trajectory_checksum
from rollout.recording import Recording, RecordingShape, SharedBlock

SHAPE = RecordingShape(time_limit_steps=10, state_size=4, action_size=2)


@pytest.fixture
def recording() -> Recording:
    """Five steps, and a sixth that is being written."""
    recording = Recording(SharedBlock(SHAPE.nbytes), SHAPE)
    recording.begin()
    recording.commit(0)
    for step in range(5):
        recording.state[step + 1] = step + 1
        recording.decision[step] = 1
        recording.commit(step + 1)
    recording.state[6] = 6
    return recording


def test_only_whole_steps_are_read(recording: Recording) -> None:
    trajectory = recording.trajectory(np.zeros((11, 3), np.float32))
    assert trajectory is not None
    assert trajectory.state[:, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert trajectory.steps == 5
    assert trajectory.target_velocity is not None
    assert trajectory.target_velocity.shape == (6, 3)


@pytest.mark.parametrize(
    ("name", "row", "steps"), [("state", 3, 2), ("state", 5, 4), ("action", 3, 3), ("reward", 1, 1), ("reward", 4, 4)]
)
def test_everything_from_the_first_number_on_that_is_not_finite_is_cut(
    recording: Recording, name: str, row: int, steps: int
) -> None:
    getattr(recording, name)[row] = np.inf
    trajectory = recording.trajectory(None)
    assert trajectory is not None
    assert trajectory.steps == steps
    assert len(trajectory.state) == steps + 1


def test_nothing_is_left_when_the_first_row_is_not_finite_or_no_step_was_made(recording: Recording) -> None:
    recording.state[0, 2] = np.nan
    assert recording.trajectory(None) is None
    recording.state[0, 2] = 0
    recording.begin()
    assert recording.trajectory(None) is None


def test_what_is_read_is_a_copy(recording: Recording) -> None:
    trajectory = recording.trajectory(None)
    recording.state[:] = -1
    assert trajectory is not None
    assert trajectory.state.min() == 0


def test_a_second_recording_on_the_same_block_sees_the_same(recording: Recording) -> None:
    block = SharedBlock(SHAPE.nbytes)
    one, other = Recording(block, SHAPE), Recording(block, SHAPE)
    one.state[2, 1] = 7
    one.commit(3)
    one.stop = True
    assert (other.state[2, 1], other.steps, other.stop) == (7, 3, True)


@pytest.mark.parametrize(("name", "row"), [("state", 0), ("state", 5), ("action", 2), ("reward", 4), ("decision", 1)])
def test_the_checksum_is_of_what_was_committed_and_not_of_what_became_of_it(
    recording: Recording, name: str, row: int
) -> None:
    trajectory = recording.trajectory(None)
    assert trajectory is not None
    assert recording.checksum(5) == trajectory_checksum(trajectory)
    getattr(recording, name)[row] += 1
    trajectory = recording.trajectory(None)
    assert trajectory is not None
    assert recording.checksum(5) != trajectory_checksum(trajectory)


def test_an_episode_that_is_cut_has_the_checksum_of_what_is_left(recording: Recording) -> None:
    recording.state[4, 1] = np.nan
    trajectory = recording.trajectory(None)
    assert trajectory is not None
    assert recording.checksum(trajectory.steps) == trajectory_checksum(trajectory)
