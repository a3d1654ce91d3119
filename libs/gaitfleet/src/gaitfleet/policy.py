"""A policy as data, and its forward pass in numpy.

A worker multiplies two megabytes of weights a hundred times a second; that needs no deep-learning framework. The
trainer exports its actor as a list of layers and their tensors; this module checks that list and evaluates it.
`trainer` holds the same network in torch, and a test holds the two together to 1e-5.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gaitfleet import codec
from gaitfleet.errors import CodecError, PolicyError
from gaitfleet.trajectory import Float32

METADATA_KEY = "gaitfleet.policy"

RECENT_OBSERVATION = "recent.observation"
"""Tensor of the observations by which parameter noise is measured, not normalised."""


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Linear(_Data):
    """``x @ weight.T + bias`` with tensors ``{name}.weight`` [out, in] and ``{name}.bias`` [out]."""

    kind: Literal["linear"] = "linear"
    name: str


class Activation(_Data):
    """An element-wise function."""

    kind: Literal["relu", "tanh", "elu", "silu"]


class LayerNorm(_Data):
    """Ba et al. 2016, over the last axis, with tensors ``{name}.weight`` and ``{name}.bias``."""

    kind: Literal["layer_norm"] = "layer_norm"
    name: str
    epsilon: float = 1e-5


PlainLayer = Annotated[Linear | Activation | LayerNorm, Field(discriminator="kind")]


class Residual(_Data):
    """``x + layers(x)``."""

    kind: Literal["residual"] = "residual"
    layers: tuple[PlainLayer, ...]


Layer = Annotated[Linear | Activation | LayerNorm | Residual, Field(discriminator="kind")]


class PolicyDescription(_Data):
    """Everything about a policy that is not a tensor."""

    run: str = Field(description="The run that trained it.")
    version: int = Field(ge=1, description="The checkpoint's step: updates done when it was published.")
    observation_size: int = Field(ge=1, le=100_000, description="Length of the observation vector, O.")
    action_size: int = Field(ge=1, le=10_000, description="Length of the action vector, A.")
    observation_hash: str = Field(
        description="Hash over the names of the observation, so that no other task can use it."
    )
    observation_clip: float = Field(gt=0, description="Normalised observations are clipped to plus and minus this.")
    layers: tuple[Layer, ...] = Field(max_length=100, description="The network, from normalised observation to head.")
    head: Literal["deterministic", "tanh_normal"] = Field(
        description="`deterministic`: the network ends in A values, tanh gives the action. `tanh_normal`: it ends in "
        "2 A values, mean and log standard deviation of a Gaussian; a sample goes through tanh (Haarnoja et al. 2018)."
    )
    log_std_bounds: tuple[float, float] = Field(
        default=(-10.0, 2.0), description="The log standard deviation is clipped to these (`tanh_normal` only)."
    )


Operation = Callable[[Float32], Float32]


class NumpyPolicy:
    """A policy ready to act.

    Parameters
    ----------
    description
        The layers.
    tensors
        Their parameters as float32, and ``normalizer.mean`` and ``normalizer.std`` of shape [O]; where the run
        explores by parameter noise, also ``recent.observation`` [N, O], observations that were learned from last.

    Raises
    ------
    PolicyError
        When a tensor is missing, is not finite, or does not fit its neighbours.
    """

    def __init__(self, description: PolicyDescription, tensors: Mapping[str, Float32]) -> None:
        self.description = description
        self.tensors = tensors
        size = description.observation_size
        self._mean = self._tensor("normalizer.mean", (size,))
        std = self._tensor("normalizer.std", (size,))
        if not (std > 0).all():
            raise PolicyError(f"normalizer.std[{int(np.argmin(std))}] is {std.min()}, must be positive")
        self._inverse_std = (1.0 / std).astype(np.float32)
        self._operations, size = self._build(description.layers, size)
        self.recent_observations = self._recent_observations()
        expected = description.action_size * (2 if description.head == "tanh_normal" else 1)
        if size != expected:
            raise PolicyError(f"the network ends in {size} values, the {description.head} head needs {expected}")

    @classmethod
    def from_bytes(cls, body: bytes) -> NumpyPolicy:
        """Decode a policy body.

        Raises
        ------
        CodecError
            When the bytes are not a policy body.
        PolicyError
            When they are one that cannot be evaluated.
        """
        decoded = codec.read(body)
        try:
            description = PolicyDescription.model_validate_json(decoded.metadata[METADATA_KEY])
        except KeyError:
            raise CodecError(f"metadata has no {METADATA_KEY!r}", field="__metadata__", reason="header") from None
        except ValidationError as error:
            raise CodecError(f"{METADATA_KEY}: {error}", field=METADATA_KEY, reason="header") from None
        return cls(description, decoded.tensors)

    def normalize(self, observation: Float32) -> Float32:
        """Observation [..., O] in units of its running deviation, clipped."""
        clip = self.description.observation_clip
        normalized: Float32 = observation - self._mean
        normalized *= self._inverse_std
        np.maximum(normalized, -clip, out=normalized)
        return np.minimum(normalized, clip, out=normalized)

    def distribution(self, observation: Float32) -> tuple[Float32, Float32]:
        """Mean [..., A] before the tanh, and log standard deviation [..., A] (minus infinity for a deterministic
        head)."""
        x = self.normalize(observation)
        for operation in self._operations:
            x = operation(x)
        if self.description.head == "deterministic":
            return x, np.full_like(x, -np.inf)
        size = self.description.action_size
        lowest, highest = self.description.log_std_bounds
        return x[..., :size], np.minimum(np.maximum(x[..., size:], lowest), highest)

    def act(self, observation: Float32) -> Float32:
        """The action without noise, [..., A] in [-1, 1]."""
        action: Float32 = np.tanh(self.distribution(observation)[0])
        return action

    def sample(self, observation: Float32, noise: Float32) -> Float32:
        """The policy's own sample, [..., A] in [-1, 1], from standard normal `noise` [..., A]."""
        mean, log_std = self.distribution(observation)
        action: Float32 = np.tanh(mean + np.exp(log_std) * noise)
        return action

    @property
    def linear_tensors(self) -> list[str]:
        """Names of the weights and biases of all linear layers."""
        return [f"{name}.{part}" for name in _linear_names(self.description.layers) for part in ("weight", "bias")]

    def _recent_observations(self) -> Float32 | None:
        """Float32 [N, O], where they were published."""
        if RECENT_OBSERVATION not in self.tensors:
            return None
        observations = self._tensor(RECENT_OBSERVATION)
        size = self.description.observation_size
        if observations.ndim != 2 or observations.shape[1] != size or not len(observations):
            found, wanted = list(observations.shape), f"[at least 1, {size}]"
            raise PolicyError(f"tensor {RECENT_OBSERVATION!r} is {found}, must be {wanted}")
        return observations

    def _tensor(self, name: str, shape: tuple[int, ...] | None = None) -> Float32:
        try:
            tensor = self.tensors[name]
        except KeyError:
            raise PolicyError(f"tensor {name!r} is missing") from None
        if tensor.dtype != np.float32 or (shape is not None and tensor.shape != shape):
            wanted = "float32" if shape is None else f"float32 {list(shape)}"
            raise PolicyError(f"tensor {name!r} is {tensor.dtype} {list(tensor.shape)}, must be {wanted}")
        if not np.isfinite(tensor).all():
            raise PolicyError(f"tensor {name!r} holds a value that is not finite")
        return tensor

    def _build(self, layers: tuple[Any, ...], size: int) -> tuple[list[Operation], int]:
        """Operations for `layers` on vectors of length `size`, and the length they end in."""
        operations: list[Operation] = []
        for layer in layers:
            match layer:
                case Linear(name=name):
                    weight = self._tensor(f"{name}.weight")
                    if weight.ndim != 2 or weight.shape[1] != size:
                        raise PolicyError(f"tensor '{name}.weight' is {list(weight.shape)}, must be [*, {size}]")
                    size = weight.shape[0]
                    operations.append(_linear(weight, self._tensor(f"{name}.bias", (size,))))
                case LayerNorm(name=name, epsilon=epsilon):
                    scale, shift = self._tensor(f"{name}.weight", (size,)), self._tensor(f"{name}.bias", (size,))
                    operations.append(_layer_norm(scale, shift, epsilon))
                case Residual(layers=inner):
                    branch, end = self._build(inner, size)
                    if end != size:
                        raise PolicyError(f"a residual branch turns {size} values into {end}")
                    operations.append(_residual(branch))
                case Activation(kind=kind):
                    operations.append(_ACTIVATIONS[kind])
        return operations, size


def _linear_names(layers: Iterable[Layer]) -> Iterator[str]:
    for layer in layers:
        if isinstance(layer, Linear):
            yield layer.name
        elif isinstance(layer, Residual):
            yield from _linear_names(layer.layers)


def encode_policy(description: PolicyDescription, tensors: Mapping[str, Float32]) -> bytes:
    """A policy body, checked: what cannot be evaluated is not written.

    Raises
    ------
    PolicyError
        When a tensor is missing, not finite, or does not fit.
    """
    NumpyPolicy(description, tensors)
    return codec.write(tensors, {METADATA_KEY: json.dumps(description.model_dump(mode="json"))})


def _linear(weight: Float32, bias: Float32) -> Operation:
    transposed = np.ascontiguousarray(weight.T)

    def apply(x: Float32) -> Float32:
        y: Float32 = x @ transposed
        y += bias
        return y

    return apply


def _layer_norm(scale: Float32, shift: Float32, epsilon: float) -> Operation:
    def apply(x: Float32) -> Float32:
        # not `mean`, and in place: numpy's is a longer way to the same, and this runs for every decision
        size = np.float32(x.shape[-1])
        mean: Float32 = np.add.reduce(x, axis=-1, keepdims=True)
        mean /= size
        normalized = x - mean
        variance: Float32 = np.add.reduce(normalized * normalized, axis=-1, keepdims=True)
        variance /= size
        normalized /= np.sqrt(variance + np.float32(epsilon))
        normalized *= scale
        normalized += shift
        return normalized

    return apply


def _residual(branch: list[Operation]) -> Operation:
    def apply(x: Float32) -> Float32:
        y = x
        for operation in branch:
            y = operation(y)
        return x + y

    return apply


def _elu(x: Float32) -> Float32:
    y: Float32 = np.where(x > 0, x, np.expm1(np.minimum(x, 0)))
    return y


def _silu(x: Float32) -> Float32:
    y: Float32 = x * (0.5 * (1.0 + np.tanh(0.5 * x)))  # the logistic function without overflow
    return y


_ACTIVATIONS: dict[str, Operation] = {
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
    "elu": _elu,
    "silu": _silu,
}
