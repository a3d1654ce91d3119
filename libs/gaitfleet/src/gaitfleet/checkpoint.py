"""A checkpoint as bytes: the policy that workers need, and the state that a trainer needs to go on.

One safetensors body holds both. Policy tensors are named ``policy/…``, trainer tensors ``trainer/…``; under the
metadata key ``gaitfleet.checkpoint`` stand the policy's description and the trainer's counters as JSON. The replay
API takes the body apart once, at publication, and serves the policy alone to the workers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gaitfleet import codec
from gaitfleet.codec import Array
from gaitfleet.errors import CodecError
from gaitfleet.policy import PolicyDescription, encode_policy

METADATA_KEY = "gaitfleet.checkpoint"


@dataclass(frozen=True)
class Checkpoint:
    """Everything of a trainer at one moment.

    Parameters
    ----------
    policy
        Description of the policy; its `version` is the checkpoint's step.
    policy_tensors
        float32 tensors of the policy, see `gaitfleet.policy`.
    trainer_tensors
        Networks, targets, optimisers, normaliser, generator states, by name.
    counters
        JSON-serialisable numbers and names that belong to them.
    """

    policy: PolicyDescription
    policy_tensors: Mapping[str, Array]
    trainer_tensors: Mapping[str, Array]
    counters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def step(self) -> int:
        """Updates done."""
        return self.policy.version


def encode_checkpoint(checkpoint: Checkpoint) -> bytes:
    """A checkpoint as one body.

    Raises
    ------
    PolicyError
        When its policy cannot be evaluated, for example because a weight is not finite.
    """
    encode_policy(checkpoint.policy, checkpoint.policy_tensors)
    tensors = {f"policy/{name}": tensor for name, tensor in checkpoint.policy_tensors.items()}
    tensors |= {f"trainer/{name}": tensor for name, tensor in checkpoint.trainer_tensors.items()}
    metadata = {"policy": checkpoint.policy.model_dump(mode="json"), "counters": dict(checkpoint.counters)}
    return codec.write(tensors, {METADATA_KEY: json.dumps(metadata)})


def decode_checkpoint(body: bytes | bytearray | memoryview) -> Checkpoint:
    """Read a checkpoint; its arrays are views into `body`.

    Raises
    ------
    CodecError
        When the body is not a checkpoint.
    """
    decoded = codec.read(body)
    try:
        metadata = codec.read_json(decoded.metadata[METADATA_KEY], METADATA_KEY)
        policy = PolicyDescription.model_validate(metadata["policy"])
        counters = dict(metadata["counters"])
    except (KeyError, TypeError, ValueError) as error:
        message = f"metadata {METADATA_KEY!r} is missing or wrong: {error!r:.500}"
        raise CodecError(message, field=METADATA_KEY, reason="metadata") from None
    parts: dict[str, dict[str, Array]] = {"policy": {}, "trainer": {}}
    for name, tensor in decoded.tensors.items():
        part, _, rest = name.partition("/")
        if part not in parts or not rest:
            raise CodecError(
                f"tensor {name!r:.100} is neither policy/… nor trainer/…", field=name[:100], reason="names"
            )
        parts[part][rest] = tensor
    return Checkpoint(policy, parts["policy"], parts["trainer"], counters)
