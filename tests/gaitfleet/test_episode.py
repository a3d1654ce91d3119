"""Episodes: what is refused, and with which words."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import pytest

from gaitfleet import codec
from gaitfleet.episode import (
    METADATA_KEY,
    Episode,
    EpisodeMetadata,
    EpisodeOrigin,
    check_episode,
    content_digest,
    decode_episode,
    encode_episode,
    encode_for_run,
)
from gaitfleet.errors import CodecError
from gaitfleet.experiment import ProstheticsTask
from gaitfleet.identity import new_episode_id
from gaitfleet.task import make_task
from gaitfleet.trajectory import Trajectory

TASK = make_task(ProstheticsTask()).description


def episode(steps: int = 10, **changes: object) -> Episode:
    generator = np.random.default_rng(0)
    trajectory = Trajectory(
        generator.normal(size=(steps + 1, 412)).astype(np.float32),
        np.repeat(generator.random((steps, 19)), 4, axis=0)[:steps].astype(np.float32),
        generator.normal(size=steps).astype(np.float32),
        (np.arange(steps) % 4 == 0).astype(np.uint8),
    )
    metadata = {
        "episode_id": new_episode_id(),
        "run": "walker",
        "worker": "host-0",
        "role": "train",
        "policy_version": 3,
        "seed": 1,
        "layout_hash": TASK.state_layout.hash,
        "ending": "terminated",
        "ending_reason": "fall",
        "exploration": "sampled",
        "started_at": datetime.now(UTC),
        "wall_seconds": 1.5,
    }
    return Episode(EpisodeMetadata(**(metadata | changes)), trajectory)


def test_an_episode_survives_the_wire_unchanged() -> None:
    sent = episode()
    received = decode_episode(encode_episode(sent))
    check_episode(received, "walker", TASK)
    assert received.metadata == sent.metadata
    for name in ("state", "action", "reward", "decision"):
        assert getattr(received.trajectory, name).tobytes() == getattr(sent.trajectory, name).tobytes()


def test_an_episode_that_moves_on_keeps_id_content_and_first_origin() -> None:
    body = encode_episode(episode())
    assert b"origin" not in body
    assert encode_for_run(body, "walker") == body
    moved = encode_for_run(body, "second")
    assert encode_for_run(body, "second") == moved
    first, last = decode_episode(body), decode_episode(encode_for_run(moved, "third"))
    origin = EpisodeOrigin(run="walker", policy_version=3, digest=content_digest(body))
    changes = {"run": "third", "policy_version": 0, "origin": origin}
    assert last.metadata == first.metadata.model_copy(update=changes)
    assert last.trajectory.state.tobytes() == first.trajectory.state.tobytes()


def spoil(name: str, index: tuple[int, ...] | int, value: float) -> Callable[[Trajectory], Trajectory]:
    def apply(trajectory: Trajectory) -> Trajectory:
        array = getattr(trajectory, name).copy()
        array[index] = value
        return dataclasses.replace(trajectory, **{name: array})

    return apply


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        (spoil("state", (3, 0), np.nan), "state[3,0]", "pelvis_tilt"),
        (spoil("state", (10, 411), np.inf), "state[10,411]", "mass_center_acc/z"),
        (spoil("action", (4, 7), -1.0), "action[4,7]", r"\(vasti_r\) is -1, must be within \[0, 1\]"),
        (spoil("action", (4, 0), 1.2), "action[4,0]", "1.2"),
        (spoil("action", (4, 0), np.nan), "action[4,0]", "nan"),
        (spoil("reward", 2, -np.inf), "reward[2,0]", "-inf"),
        (spoil("decision", 0, 0), "decision[0]", "step 0 must be 1"),
        (spoil("decision", 5, 7), "decision[5]", "is 7"),
        (spoil("action", (5, 0), 0.5), "decision[5]", "differs from"),
        (lambda t: dataclasses.replace(t, state=t.state[:-1]), "state", r"\[10, 412\], must be \[11, 412\]"),
        (lambda t: dataclasses.replace(t, action=t.action[:, :-1]), "action", r"\[10, 18\]"),
        (lambda t: dataclasses.replace(t, reward=t.reward[:, None]), "reward", r"\[10, 1\]"),
        (lambda t: dataclasses.replace(t, action=t.action[:0]), "action", "0 steps"),
        (
            lambda t: dataclasses.replace(t, target_velocity=np.zeros((3, 3), np.float32)),
            "target_velocity",
            "is not part of this task",
        ),
    ],
)
def test_a_broken_rule_is_named_with_field_and_value(
    change: Callable[[Trajectory], Trajectory], field: str, words: str
) -> None:
    good = episode()
    bad = Episode(good.metadata, change(good.trajectory))
    with pytest.raises(CodecError, match=words) as caught:
        check_episode(decode_episode(encode_episode(bad)), "walker", TASK)
    assert caught.value.field == field


def test_an_episode_over_the_time_limit_is_refused() -> None:
    with pytest.raises(CodecError, match="301 steps, must have 1 to 300"):
        check_episode(episode(steps=301), "walker", TASK)


def test_another_layout_is_refused() -> None:
    with pytest.raises(CodecError, match="layout_hash is 0123456789abcdef"):
        check_episode(episode(layout_hash="0123456789abcdef"), "walker", TASK)


def test_another_run_is_refused() -> None:
    with pytest.raises(CodecError, match="run is 'walker', posted to 'runner'"):
        check_episode(episode(), "runner", TASK)


@pytest.mark.parametrize(
    ("metadata", "field"),
    [('{"format": 1}', "episode_id"), ("no json", METADATA_KEY), ("[" * 10_000, METADATA_KEY)],
)
def test_metadata_that_is_not_an_episodes_is_refused(metadata: str, field: str) -> None:
    with pytest.raises(CodecError) as caught:
        decode_episode(codec.write({}, {METADATA_KEY: metadata}))
    assert caught.value.field == field


def test_a_role_that_does_not_exist_is_named() -> None:
    good = episode()
    text = good.metadata.model_dump_json().replace('"train"', '"trian"')
    with pytest.raises(CodecError, match=r"metadata role: .*'trian'"):
        decode_episode(codec.write({}, {METADATA_KEY: text}))


@pytest.mark.parametrize(("name", "array"), [("extra", np.zeros(1, np.float32)), ("state", np.zeros((11, 412)))])
def test_unknown_tensors_and_wrong_dtypes_are_refused(name: str, array: np.ndarray) -> None:
    good = episode()
    tensors = {key: getattr(good.trajectory, key) for key in ("state", "action", "reward", "decision")} | {name: array}
    with pytest.raises(CodecError) as caught:
        decode_episode(codec.write(tensors, {METADATA_KEY: good.metadata.model_dump_json()}))
    assert caught.value.field == name
