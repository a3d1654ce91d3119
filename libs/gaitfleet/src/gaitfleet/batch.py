"""Sampled batches as bytes.

A response holds K batches. Its tensors are named ``{k}/{name}`` and stand batch after batch, so that the replay API
can send the header, then gather and send one batch while the client still reads the one before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gaitfleet import codec
from gaitfleet.codec import TensorSpec
from gaitfleet.errors import CodecError
from gaitfleet.trajectory import Float32

BATCHES_KEY = "gaitfleet.batches"
"""Metadata of a response whose batches are not made of the run's own transitions alone."""


class BatchesMetadata(BaseModel):
    """Where the rows of every batch of a response come from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sources: dict[str, int] = Field(description="Rows by source, in the order in which they stand; `run` is the first.")


@dataclass(frozen=True, slots=True)
class Batch:
    """Transitions for one update.

    Parameters
    ----------
    index
        int64 [B]. Names each transition for a priority update.
    observation, next_observation
        float32 [B, O] (float16 where half precision was asked for). Not normalised.
    action
        float32 [B, A] in [-1, 1], policy units.
    reward
        float32 [B]. Discounted sum over the n decisions.
    discount
        float32 [B]. gamma to the number of decisions summed; 0 where the episode terminated. Multiplies the bootstrap.
    weight
        float32 [B]. Importance weight, at most 1; all 1 for uniform sampling.
    policy_version
        int64 [B]. Policy that acted; 0 for none.
    return_so_far
        float32 [B]. Discounted sum of its episode's rewards up to this decision, by the discount of the run's
        experiment: G_t = gamma G_{t-1} + r_t. For learners that scale rewards by its deviation.
    sources
        Rows by where they come from, in this order: `run`, `former`, `demonstrations`. Empty: all from the run itself.
    """

    index: npt.NDArray[np.int64]
    policy_version: npt.NDArray[np.int64]
    observation: Float32
    next_observation: Float32
    action: Float32
    reward: Float32
    discount: Float32
    weight: Float32
    return_so_far: Float32
    sources: dict[str, int] = field(default_factory=dict)

    @property
    def own(self) -> int:
        """Rows from the run itself, which are the first."""
        return self.sources.get("run", len(self.index))

    def arrays(self) -> Iterator[npt.NDArray[np.generic]]:
        """The arrays in the order in which they travel."""
        for name in FIELDS:
            yield getattr(self, name)


FIELDS = (
    "index",
    "policy_version",
    "observation",
    "next_observation",
    "action",
    "reward",
    "discount",
    "weight",
    "return_so_far",
)
"""Order on the wire: eight-byte dtypes first, so that every view is aligned."""


def batch_specs(
    batches: int, batch_size: int, observation_size: int, action_size: int, *, half_precision: bool = False
) -> dict[str, TensorSpec]:
    """Names, dtypes and shapes of a response of `batches` batches, in order."""
    rows = (batch_size,)
    observation = TensorSpec(np.dtype("<f2" if half_precision else "<f4"), (batch_size, observation_size))
    vector = TensorSpec(np.dtype("<f4"), rows)
    integers = TensorSpec(np.dtype("<i8"), rows)
    one = {
        "index": integers,
        "policy_version": integers,
        "observation": observation,
        "next_observation": observation,
        "action": TensorSpec(np.dtype("<f4"), (batch_size, action_size)),
        "reward": vector,
        "discount": vector,
        "weight": vector,
        "return_so_far": vector,
    }
    return {f"{k}/{name}": one[name] for k in range(batches) for name in FIELDS}


def decode_batches(body: bytes | bytearray | memoryview) -> list[Batch]:
    """Batches of a response, as views into `body`.

    Raises
    ------
    CodecError
        When the body is damaged or a tensor of a batch is missing.
    """
    container = codec.read(body)
    tensors, sources = container.tensors, _sources(container.metadata)
    count, rest = divmod(len(tensors), len(FIELDS))
    try:
        batches = [Batch(**{name: tensors[f"{k}/{name}"] for name in FIELDS}, sources=sources) for k in range(count)]
    except KeyError as error:
        raise CodecError(f"tensor {error} is missing", field=str(error), reason="names") from None
    if rest:
        raise CodecError(f"{rest} tensors belong to no whole batch", field="body", reason="names")
    return batches


class BatchBuffer:
    """Memory for one answer after the other.

    Answers of as many batches of the same sizes are laid out alike; then the views of the last one hold for the next,
    and nothing is decoded.

    Attributes
    ----------
    memory
        Where answers are received. What was decoded from it changes with the next one.
    """

    def __init__(self, nbytes: int) -> None:
        self.memory = bytearray(nbytes)
        self._length = 0
        self._header = b""
        self._batches: list[Batch] = []

    def decode(self, body: memoryview) -> list[Batch]:
        """Batches of a response; views into `memory` when `body` is one.

        Raises
        ------
        CodecError
            As `decode_batches`.
        """
        header = bytes(body[: 8 + int.from_bytes(body[:8], "little")])
        if body.obj is not self.memory or len(body) != self._length or header != self._header:
            self._batches = decode_batches(body)
            self._length, self._header = len(body) if body.obj is self.memory else 0, header
        return self._batches


def _sources(metadata: Mapping[str, str]) -> dict[str, int]:
    text = metadata.get(BATCHES_KEY)
    if text is None:
        return {}
    try:
        return BatchesMetadata.model_validate_json(text).sources
    except ValidationError as error:
        raise CodecError(f"{BATCHES_KEY} is not valid: {error}", field=BATCHES_KEY, reason="metadata") from None
