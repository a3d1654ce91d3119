"""One episode as bytes, and the rules it must keep.

An episode is one safetensors body: the arrays of its `Trajectory` and, under the metadata key ``gaitfleet.episode``,
one JSON object (`EpisodeMetadata`). `decode_episode` checks the form; `check_episode` holds it against the task of
its run. Both name the field and the value: the 2018 system was ruined by -1 excitations and negative heights that
nobody looked at.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Literal
from uuid import UUID

import numpy as np
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from gaitfleet import codec
from gaitfleet.checksum import trajectory_checksum
from gaitfleet.errors import EpisodeError
from gaitfleet.identity import RUN_PATTERN
from gaitfleet.pose import Pose
from gaitfleet.task.interface import TaskDescription
from gaitfleet.trajectory import Float32, Trajectory

METADATA_KEY = "gaitfleet.episode"

MAX_METADATA_CHARACTERS = 1 << 16
"""Length of that object; a pose of 50 coordinates makes it some kilobytes. In a header of 1 MiB there is room for
100,000 unknown fields, and an error is built for each before the first is told."""

Role = Literal["train", "random", "evaluate"]
Ending = Literal["terminated", "truncated", "aborted"]
EndingReason = Literal["fall", "environment", "time_limit", "preempted", "simulator_failure", "rule"]

_DTYPES = {
    "state": np.dtype("<f4"),
    "action": np.dtype("<f4"),
    "reward": np.dtype("<f4"),
    "decision": np.dtype("u1"),
    "target_velocity": np.dtype("<f4"),
}
_REQUIRED = frozenset({"state", "action", "reward", "decision"})


class EpisodeOrigin(BaseModel):
    """Where an imported episode was played."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: str = Field(pattern=RUN_PATTERN, description="The run it was played for.")
    policy_version: int = Field(ge=0, lt=1 << 53, description="Step of that run's checkpoint that acted; 0 for none.")
    digest: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the body as it was posted to that run.")


class EpisodeMetadata(BaseModel):
    """What is known of an episode besides its arrays."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = Field(default=1, description="Version of this format.")
    episode_id: UUID = Field(description="UUIDv7, made by the worker; posting is idempotent by it.")
    run: str = Field(pattern=RUN_PATTERN, description="The run it belongs to.")
    worker: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9._-]+$")] = Field(
        description="Who played it: host and simulator slot."
    )
    role: Role = Field(description="`train`; `random`: without a policy; `evaluate`: without noise, official rules.")
    policy_version: int = Field(ge=0, lt=1 << 53, description="Step of the checkpoint that acted; 0 for none.")
    seed: int = Field(ge=0, lt=1 << 31, description="Seed of the episode; plays it again.")
    layout_hash: str = Field(pattern=r"^[0-9a-f]{16}$", description="Hash of the state layout of its rows.")
    ending: Ending = Field(
        description="`terminated`: a fall, no future reward. `truncated`: cut off, the future would have gone on. "
        "`aborted`: stopped by a rule."
    )
    ending_reason: EndingReason = Field(description="Why it ended.")
    exploration: Literal["none", "sampled", "gaussian", "correlated", "pink", "parameter", "uniform"] = Field(
        description="Noise used."
    )
    integrator: str = Field(default="", max_length=50, description="OpenSim's integration method; empty elsewhere.")
    accuracy: float = Field(default=0.0, ge=0, lt=1, description="Integrator accuracy; 0 where there is none.")
    stage: str = Field(
        default="",
        pattern=r"^([a-z0-9][a-z0-9-]{0,31})?$",
        description="Stage of the run's curriculum in which it was played; empty without one.",
    )
    initial_pose: Pose | None = Field(
        default=None, description="Where it began, as it was drawn; null: in the simulator's own pose."
    )
    started_at: AwareDatetime = Field(
        ge=datetime(1970, 1, 1, tzinfo=UTC), lt=datetime(3000, 1, 1, tzinfo=UTC), description="When, with time zone."
    )
    wall_seconds: float = Field(ge=0, le=1e7, description="Wall-clock time it took.")
    origin: EpisodeOrigin | None = Field(
        default=None, description="For an episode imported from another run: which. Left out elsewhere."
    )
    rows_checksum: int | None = Field(
        default=None,
        ge=0,
        lt=1 << 32,
        description="CRC-32 that the simulator took of every row as it was recorded (`checksum.py`); the store takes "
        "it again and refuses the episode when they differ.",
    )


@dataclass(frozen=True)
class Episode:
    """An episode: its metadata and its arrays."""

    metadata: EpisodeMetadata
    trajectory: Trajectory


def encode_episode(episode: Episode) -> bytes:
    """An episode as a safetensors body."""
    trajectory = episode.trajectory
    tensors: dict[str, codec.Array] = {
        "state": trajectory.state,
        "action": trajectory.action,
        "reward": trajectory.reward,
        "decision": trajectory.decision,
    }
    if trajectory.target_velocity is not None:
        tensors["target_velocity"] = trajectory.target_velocity
    return codec.write(tensors, {METADATA_KEY: episode.metadata.model_dump_json(exclude_none=True)})


def decode_episode(body: bytes) -> Episode:
    """Read an episode and check its form: names, dtypes, shapes, metadata.

    Raises
    ------
    CodecError
        When the body is not a safetensors container.
    EpisodeError
        When it is one, but not an episode.
    """
    decoded = codec.read(body)
    if METADATA_KEY not in decoded.metadata:
        raise EpisodeError(f"metadata has no {METADATA_KEY!r}", field="__metadata__", reason="metadata")
    text = decoded.metadata[METADATA_KEY]
    if len(text) > MAX_METADATA_CHARACTERS:
        message = f"metadata {METADATA_KEY!r} has {len(text)} characters, may have {MAX_METADATA_CHARACTERS}"
        raise EpisodeError(message, field=METADATA_KEY, reason="metadata")
    try:
        metadata = EpisodeMetadata.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or METADATA_KEY
        value = first["input"] if first["type"] != "missing" else "nothing"
        raise EpisodeError(
            f"metadata {field}: {first['msg']} (got {value!r:.100})", field=field, reason="metadata"
        ) from None
    tensors = decoded.tensors
    for name in sorted(_REQUIRED - tensors.keys()):
        raise EpisodeError(f"tensor {name!r} is missing", field=name, reason="names")
    for name in sorted(tensors.keys() - _DTYPES.keys()):
        raise EpisodeError(f"tensor {name!r:.100} is not part of an episode", field=name[:100], reason="names")
    for name, tensor in tensors.items():
        if tensor.dtype != _DTYPES[name]:
            message = f"{name} has dtype {tensor.dtype}, must be {_DTYPES[name]}"
            raise EpisodeError(message, field=name, reason="dtype")
    return Episode(metadata, Trajectory(**tensors))


def check_episode(episode: Episode, run: str, task: TaskDescription) -> None:
    """Hold an episode against the task of its run: layout, shapes, finiteness, bounds, decisions, length, first pose.

    Raises
    ------
    EpisodeError
        Naming the first field that is wrong, and its value.
    """
    metadata, trajectory = episode.metadata, episode.trajectory
    if metadata.run != run:
        raise EpisodeError(f"run is {metadata.run!r}, posted to {run!r}", field="run", reason="metadata")
    layout = task.state_layout
    if metadata.layout_hash != layout.hash:
        message = f"layout_hash is {metadata.layout_hash}, this run's layout is {layout.hash}"
        raise EpisodeError(message, field="layout_hash", reason="layout")
    _check_shapes(trajectory, task)
    _check_finite("state", trajectory.state, lambda column: layout.columns[column].name)
    _check_finite("action", trajectory.action, lambda column: task.action_names[column])
    _check_finite("reward", trajectory.reward[:, None], lambda _: "reward")
    if trajectory.target_velocity is not None:
        _check_finite("target_velocity", trajectory.target_velocity, lambda column: "xyz"[column])
    if metadata.initial_pose is not None:
        _check_initial_pose(metadata, metadata.initial_pose, trajectory.state[0], task)
    outside = (trajectory.action < task.action_low) | (trajectory.action > task.action_high)
    if outside.any():
        step, column = np.argwhere(outside)[0]
        low, high = task.action_low[column], task.action_high[column]
        value = trajectory.action[step, column]
        message = (
            f"action[{step},{column}] ({task.action_names[column]}) is {value:g}, must be within [{low:g}, {high:g}]"
        )
        raise EpisodeError(message, field=f"action[{step},{column}]", reason="bounds")
    if trajectory.decision[0] != 1 or (trajectory.decision > 1).any():
        step = 0 if trajectory.decision[0] != 1 else int(np.argmax(trajectory.decision > 1))
        message = f"decision[{step}] is {trajectory.decision[step]}; step 0 must be 1, every other 0 or 1"
        raise EpisodeError(message, field=f"decision[{step}]", reason="bounds")
    _check_rows_unchanged(metadata, trajectory)
    held = (trajectory.action[1:] != trajectory.action[:-1]).any(axis=1) & (trajectory.decision[1:] == 0)
    if held.any():
        step = int(np.argmax(held)) + 1
        message = f"action[{step}] differs from action[{step - 1}] although decision[{step}] is 0"
        raise EpisodeError(message, field=f"decision[{step}]", reason="bounds")


def _check_rows_unchanged(metadata: EpisodeMetadata, trajectory: Trajectory) -> None:
    if metadata.rows_checksum is None:
        return
    checksum = trajectory_checksum(trajectory)
    if checksum != metadata.rows_checksum:
        message = (
            f"rows_checksum is {metadata.rows_checksum:08x} where the simulator recorded the rows, {checksum:08x} as "
            "they arrived: something has changed them in between"
        )
        raise EpisodeError(message, field="rows_checksum", reason="checksum")


def _check_shapes(trajectory: Trajectory, task: TaskDescription) -> None:
    steps = trajectory.action.shape[0] if trajectory.action.ndim else 0
    if not 1 <= steps <= task.time_limit_steps:
        message = f"action has {steps} steps, must have 1 to {task.time_limit_steps}"
        raise EpisodeError(message, field="action", reason="shape")
    expected = {
        "state": (steps + 1, len(task.state_layout)),
        "action": (steps, task.action_size),
        "reward": (steps,),
        "decision": (steps,),
    }
    given = trajectory.target_velocity is not None
    if given != task.has_target_velocity:
        what = "is not part of this task" if given else "is missing"
        raise EpisodeError(f"target_velocity {what}", field="target_velocity", reason="names")
    if given:
        expected["target_velocity"] = (steps + 1, 3)
    for name, shape in expected.items():
        actual = getattr(trajectory, name).shape
        if actual != shape:
            message = f"{name} has shape {list(actual)}, must be {list(shape)} for {steps} steps"
            raise EpisodeError(message, field=name, reason="shape")


def _check_finite(name: str, array: Float32, column_name: Callable[[int], str]) -> None:
    finite = np.isfinite(array)
    if not finite.all():
        step, column = np.argwhere(~finite)[0]
        message = f"{name}[{step},{column}] ({column_name(column)}) is {array[step, column]}, must be finite"
        raise EpisodeError(message, field=f"{name}[{step},{column}]", reason="not_finite")


def encode_for_run(body: bytes, run: str, *, curriculum: bool = False) -> bytes:
    """An episode's body as it is posted to a run: unchanged to its own; to another run under the same id, with its
    origin, and as of no policy, because that run's checkpoints are not those that acted.

    The same body gives the same bytes, so that importing an episode twice stores it once. An episode that was imported
    before keeps its first origin.

    Parameters
    ----------
    curriculum
        Whether that run has one. Its episodes name their stage; those of a run without one name none.

    Raises
    ------
    CodecError
        When the body is not an episode.
    """
    episode = decode_episode(body)
    metadata = episode.metadata
    if metadata.run == run:
        return body
    origin = metadata.origin or EpisodeOrigin(
        run=metadata.run, policy_version=metadata.policy_version, digest=content_digest(body)
    )
    stage = metadata.stage if curriculum else ""
    changes = {"run": run, "policy_version": 0, "origin": origin, "stage": stage}
    return encode_episode(Episode(metadata.model_copy(update=changes), episode.trajectory))


def _check_initial_pose(metadata: EpisodeMetadata, pose: Pose, row: Float32, task: TaskDescription) -> None:
    """The first row must show the pose that the metadata tells, to the last bit of its float32."""
    imported = metadata.origin is not None and metadata.role != "evaluate"
    if not (task.has_initial_pose or imported):
        message = "initial_pose is given, but these episodes begin in the simulator's own pose"
        raise EpisodeError(message, field="initial_pose", reason="metadata")
    for kind, group, told in (("value", "joint_pos", pose.value), ("speed", "joint_vel", pose.speed)):
        columns = {c.name.rpartition("/")[2]: i for i, c in enumerate(task.state_layout.columns) if c.group == group}
        for name, number in told.items():
            field = f"initial_pose.{kind}.{name}"
            if name not in columns:
                raise EpisodeError(f"{field}: there is no such coordinate", field=field, reason="metadata")
            if row[columns[name]] != np.float32(number):
                message = f"{field} is {number:g}, but the first row says {row[columns[name]]:g}"
                raise EpisodeError(message, field=field, reason="metadata")


def content_digest(body: bytes) -> str:
    """SHA-256 of an uncompressed body, in hexadecimal: equal bytes, equal digest, however they were compressed."""
    return hashlib.sha256(body).hexdigest()
