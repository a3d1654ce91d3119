"""The one module that knows bytes: safetensors containers, and zstd around them.

Everything that carries arrays (episodes, batches, policies, checkpoints) is one safetensors body: eight bytes of header
length, a JSON header, then the raw arrays, back to back. The format is https://github.com/huggingface/safetensors; it
is written and read here, and not by that library, because a batch must be written piecewise (`header` first, arrays
as they are gathered) and read without a copy, and because a wrong body must be refused with the name of the field.
The tests hold both directions against the library.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import zstandard

from gaitfleet.errors import CodecError

MAX_HEADER_BYTES = 1 << 20
"""Bytes of JSON header accepted: a batch of 64 needs 45 kB, a checkpoint of 200 tensors 20 kB."""

MAX_DIMENSIONS = 8
"""Dimensions of a tensor; more are refused before they are multiplied. Ours have at most three."""

ZSTD_LEVEL = 1
"""State rows are noisy floats: level 3 takes twice the time of level 1 for 1 % fewer bytes."""

Array = npt.NDArray[Any]

_DTYPES: dict[str, np.dtype[Any]] = {
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "I32": np.dtype("<i4"),
    "I64": np.dtype("<i8"),
    "U8": np.dtype("u1"),
    "U32": np.dtype("<u4"),
    "BOOL": np.dtype("?"),
}
_DTYPE_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Dtype and shape of one tensor of a body that is written piecewise."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return self.dtype.itemsize * math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Body:
    """A decoded container: its metadata and read-only views into the buffer it was read from."""

    metadata: dict[str, str]
    tensors: dict[str, Array]


def header(specs: Mapping[str, TensorSpec], metadata: Mapping[str, str]) -> bytes:
    """Length prefix and JSON header of a body whose arrays follow in the order of `specs`.

    Raises
    ------
    CodecError
        When a dtype has no safetensors name.
    """
    entries: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for name, spec in specs.items():
        if spec.dtype not in _DTYPE_NAMES:
            raise CodecError(
                f"tensor {name!r} has dtype {spec.dtype}, which cannot be written", field=name, reason="dtype"
            )
        end = offset + spec.nbytes
        entries[name] = {"dtype": _DTYPE_NAMES[spec.dtype], "shape": list(spec.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # arrays start on a multiple of eight, so that views are aligned
    return len(text).to_bytes(8, "little") + text


def write(tensors: Mapping[str, Array], metadata: Mapping[str, str]) -> bytes:
    """One whole body. Widest dtypes are placed first, so that every view of the reader is aligned."""
    ordered = dict(sorted(tensors.items(), key=lambda item: -item[1].dtype.itemsize))
    specs = {name: TensorSpec(array.dtype, array.shape) for name, array in ordered.items()}
    return b"".join([header(specs, metadata), *(np.ascontiguousarray(array).tobytes() for array in ordered.values())])


def read(buffer: bytes | bytearray | memoryview) -> Body:
    """Decode a body without copying its arrays.

    Parameters
    ----------
    buffer
        The whole body. The views in the result keep it alive; do not write to it while they are in use.

    Raises
    ------
    CodecError
        When the header is too long, is not JSON in UTF-8, says something twice, names an unknown dtype, or its offsets
        overlap, leave holes or do not match the bytes that are there.
    """
    view = memoryview(buffer)
    if len(view) < 8:
        raise CodecError(
            f"body of {len(view)} bytes is too short for a safetensors header", field="body", reason="header"
        )
    length = int.from_bytes(view[:8], "little")
    if length > MAX_HEADER_BYTES:
        message = f"header says it is {length} bytes long; at most {MAX_HEADER_BYTES} are accepted"
        raise CodecError(message, field="header", reason="header")
    if 8 + length > len(view):
        message = f"header says it is {length} bytes long but the body ends after {len(view)} bytes"
        raise CodecError(message, field="header", reason="truncated")
    entries = read_json(bytes(view[8 : 8 + length]), "header")
    if not isinstance(entries, dict):
        raise CodecError("header is not a JSON object", field="header", reason="header")
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise CodecError("__metadata__ must map text to text", field="__metadata__", reason="header")
    return Body(metadata, _views(entries, view[8 + length :]))


def read_json(text: bytes | str, field: str) -> Any:
    """JSON as the safetensors format wants it, which Python's reader does not insist on: UTF-8, no key twice, no half
    of a surrogate pair (it could be neither answered nor stored).

    Raises
    ------
    CodecError
        When it is not; `field` says what was read.
    """
    try:
        decoded = text if isinstance(text, str) else text.decode()
        value = json.loads(decoded, object_pairs_hook=_object)
        if "\\ud" in decoded.lower():
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise CodecError(f"{field} is not JSON: {error}", field=field, reason="header") from None
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"key {twice!r:.100} stands twice")
    return entries


def _views(entries: dict[str, Any], data: memoryview) -> dict[str, Array]:
    tensors: dict[str, Array] = {}
    expected = 0
    for name, begin, end, spec in sorted(map(_entry, entries.items()), key=lambda entry: (entry[1], entry[2])):
        if begin != expected:
            message = f"tensor {name!r} begins at byte {begin}, expected {expected}: tensors overlap or leave a hole"
            raise CodecError(message, field=name, reason="offsets")
        if end - begin != spec.nbytes:
            message = (
                f"tensor {name!r} has {end - begin} bytes; {spec.dtype} of shape {list(spec.shape)} needs {spec.nbytes}"
            )
            raise CodecError(message, field=name, reason="offsets")
        if end > len(data):
            message = f"tensor {name!r} ends at byte {end} but only {len(data)} bytes of data are there"
            raise CodecError(message, field=name, reason="truncated")
        flat = np.frombuffer(data, dtype=spec.dtype, count=math.prod(spec.shape), offset=begin) if end > begin else None
        array = _empty(name, spec) if flat is None else flat.reshape(spec.shape)
        array.flags.writeable = False
        tensors[name] = array
        expected = end
    if expected != len(data):
        message = f"{len(data) - expected} bytes follow the last tensor"
        raise CodecError(message, field="body", reason="offsets")
    return tensors


def _empty(name: str, spec: TensorSpec) -> Array:
    try:
        return np.empty(spec.shape, spec.dtype)
    except ValueError:  # numpy multiplies the other dimensions, whichever is 0
        message = f"tensor {name!r} of shape {list(spec.shape)} is empty, and too large"
        raise CodecError(message, field=name, reason="shape") from None


def _entry(item: tuple[str, Any]) -> tuple[str, int, int, TensorSpec]:
    name, entry = item
    try:
        dtype = _DTYPES[entry["dtype"]]
        shape = tuple(entry["shape"])
        begin, end = entry["data_offsets"]
        if len(shape) > MAX_DIMENSIONS:
            raise ValueError(shape)
    except (KeyError, TypeError, ValueError):
        raise CodecError(
            f"header entry of tensor {name!r} is not valid: {entry!r:.200}", field=name, reason="header"
        ) from None
    numbers = (*shape, begin, end)
    if not all(type(number) is int and 0 <= number < 1 << 48 for number in numbers):
        raise CodecError(f"header entry of tensor {name!r} holds a number out of range", field=name, reason="header")
    return name, begin, end, TensorSpec(dtype, shape)


def compress(body: bytes) -> bytes:
    """Body as one zstd frame that states its content size."""
    return zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(body)


def is_compressed(content: bytes) -> bool:
    """Whether these bytes are a zstd frame and not a body: as a body's header they would be too long."""
    return content.startswith(zstandard.FRAME_HEADER)


def stated_bytes(frame: bytes) -> int:
    """Size of a frame's content as its header states it; 0 where it does not, and then `decompress` refuses it."""
    try:
        size = zstandard.get_frame_parameters(frame).content_size
    except zstandard.ZstdError:
        return 0
    return 0 if size == zstandard.CONTENTSIZE_UNKNOWN else int(size)


def decompress(frame: bytes, *, limit_bytes: int) -> bytes:
    """Undo `compress`, never producing more than `limit_bytes`.

    Raises
    ------
    CodecError
        When the frame is damaged, does not state its content size, holds more than `limit_bytes` (a decompression
        bomb), or is followed by other bytes.
    """
    try:
        size = zstandard.get_frame_parameters(frame).content_size
        if size == zstandard.CONTENTSIZE_UNKNOWN:
            raise CodecError("zstd frame does not state its content size", field="body", reason="compression")
        if size > limit_bytes:
            message = f"body is {size} bytes when decompressed; at most {limit_bytes} are accepted"
            raise CodecError(message, field="body", reason="too_large")
        # decoded into a buffer of the stated size: a frame that holds more, or less, is an error
        return zstandard.ZstdDecompressor().decompress(frame, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise CodecError(f"body is not a valid zstd frame: {error}", field="body", reason="compression") from None
