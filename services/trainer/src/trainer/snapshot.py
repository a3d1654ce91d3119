"""A learner's state as named tensors, and back.

Works on the dataclasses that hold the state, field by field, so that a new field cannot be forgotten: what is neither a
network, an optimiser, a tensor, a generator nor a number is refused.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gaitfleet.codec import Array
from gaitfleet.errors import GaitfleetError

logger = logging.getLogger(__name__)

Tensors = dict[str, Tensor]
Counters = dict[str, int | float]


class CheckpointMismatchError(GaitfleetError):
    """A checkpoint that belongs to other networks than these."""


class NonFiniteError(GaitfleetError):
    """Learning has diverged: a weight or a loss is not a finite number."""


def capture(state: Any, prefix: str) -> tuple[Tensors, Counters]:
    """Copies of everything that the dataclass `state` holds, on its device, under names that begin with `prefix`."""
    tensors: Tensors = {}
    counters: Counters = {}
    for field in dataclasses.fields(state):
        name, value = f"{prefix}/{field.name}", getattr(state, field.name)
        match value:
            case nn.Module() | torch.optim.Optimizer() | Tensor():
                tensors |= {key: tensor.detach().clone() for key, tensor in _live_tensors(name, value).items()}
            case torch.Generator():
                tensors[name] = value.get_state()
            case int() | float():
                counters[name] = value
            case _:
                raise TypeError(f"{name} is a {type(value).__name__}, which a checkpoint cannot hold")
    return tensors, counters


def restore(state: Any, prefix: str, tensors: Mapping[str, Array], counters: Mapping[str, Any]) -> None:
    """Set everything in the dataclass `state` to what `capture` took.

    Raises
    ------
    CheckpointMismatchError
        When a tensor or a counter is missing, or has another shape.
    """
    for field in dataclasses.fields(state):
        name, value = f"{prefix}/{field.name}", getattr(state, field.name)
        match value:
            case torch.optim.Optimizer():
                _restore_optimizer(value, name, tensors)
            case nn.Module() | Tensor():
                for key, tensor in _live_tensors(name, value).items():
                    _fill(tensor, key, tensors)
            case torch.Generator():
                _restore_generator(value, name, tensors)
            case _:
                if name not in counters:
                    raise CheckpointMismatchError(f"the checkpoint has no counter {name!r}")
                setattr(state, field.name, type(value)(counters[name]))


def adopt(state: Any, prefix: str, tensors: Mapping[str, Array], *, optimizers: bool) -> None:
    """Take the networks and tensors of another run's state, and its optimisers' moments if asked for.

    Counters, numbers and generators stay as they are.

    Raises
    ------
    CheckpointMismatchError
        When a tensor is missing, or has another shape.
    """
    for field in dataclasses.fields(state):
        name, value = f"{prefix}/{field.name}", getattr(state, field.name)
        if isinstance(value, torch.optim.Optimizer):
            if optimizers:
                _restore_optimizer(value, name, tensors)
        elif isinstance(value, nn.Module | Tensor):
            for key, tensor in _live_tensors(name, value).items():
                _fill(tensor, key, tensors)


def to_arrays(tensors: Tensors) -> dict[str, Array]:
    """Captured tensors in numpy, checked.

    Raises
    ------
    NonFiniteError
        When one holds a value that is not finite.
    """
    arrays: dict[str, Array] = {name: tensor.cpu().numpy() for name, tensor in tensors.items()}
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise NonFiniteError(f"{name} holds a value that is not finite")
    return arrays


def _live_tensors(name: str, value: nn.Module | torch.optim.Optimizer | Tensor) -> Tensors:
    """The tensors themselves, not copies, by name."""
    if isinstance(value, Tensor):
        return {name: value.detach()}
    if isinstance(value, nn.Module):
        return {f"{name}/{key}": tensor for key, tensor in value.state_dict().items()}
    return {
        f"{name}/{index}/{key}": tensor
        for index, parameter in enumerate(_parameters(value))
        for key, tensor in value.state.get(parameter, {}).items()
    }


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _fill(tensor: Tensor, name: str, tensors: Mapping[str, Array]) -> None:
    if name not in tensors:
        raise CheckpointMismatchError(f"the checkpoint has no tensor {name!r}")
    array = tensors[name]
    if array.shape != tuple(tensor.shape):
        raise CheckpointMismatchError(f"{name} is {list(array.shape)} in the checkpoint, here {list(tensor.shape)}")
    with torch.no_grad():
        tensor.copy_(torch.from_numpy(np.array(array)))


def _restore_optimizer(optimizer: torch.optim.Optimizer, name: str, tensors: Mapping[str, Array]) -> None:
    """Adam's moments; an optimiser that had not stepped yet has none."""
    optimizer.state.clear()
    for index, parameter in enumerate(_parameters(optimizer)):
        if f"{name}/{index}/step" not in tensors:
            continue
        entry = {
            "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
        for key, tensor in entry.items():
            _fill(tensor, f"{name}/{index}/{key}", tensors)
        optimizer.state[parameter] = entry


def _restore_generator(generator: torch.Generator, name: str, tensors: Mapping[str, Array]) -> None:
    if name not in tensors:
        raise CheckpointMismatchError(f"the checkpoint has no tensor {name!r}")
    array = np.array(tensors[name])
    if array.shape != tuple(generator.get_state().shape):
        # another kind of device: the stream cannot go on, and any other is as good, but none that was used already. The
        # whole state makes the seed, as parts of it, the first seed among them, are the same in every checkpoint
        generator.manual_seed(int.from_bytes(hashlib.blake2b(array.tobytes(), digest_size=8).digest(), "little"))
        logger.warning("the checkpoint comes from another kind of device; its random numbers go on with a new seed")
        return
    generator.set_state(torch.from_numpy(array))
