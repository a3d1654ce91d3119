"""Bodies of arrays: held against the safetensors library in both directions, and against hostile bytes."""

import json

import numpy as np
import pytest
import safetensors.numpy
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gaitfleet import codec
from gaitfleet.errors import CodecError

DTYPES = st.sampled_from([np.dtype(name) for name in ("<f4", "<f2", "<f8", "<i8", "<i4", "u1")])
ARRAYS = DTYPES.flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5))
)
TENSORS = st.dictionaries(
    st.text(min_size=1, max_size=20).filter(lambda name: name != "__metadata__"), ARRAYS, max_size=5
)
METADATA = st.dictionaries(st.text(max_size=10), st.text(max_size=30), max_size=3)


def bits(array: np.ndarray) -> tuple[object, ...]:
    return array.dtype, array.shape, array.tobytes()


@given(TENSORS, METADATA)
def test_what_is_written_is_read_back_bit_for_bit(tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    body = codec.read(codec.write(tensors, metadata))
    assert body.metadata == metadata
    assert {name: bits(array) for name, array in body.tensors.items()} == {n: bits(a) for n, a in tensors.items()}


@given(TENSORS)
def test_the_safetensors_library_reads_what_we_write_and_we_read_what_it_writes(tensors: dict[str, np.ndarray]) -> None:
    expected = {name: bits(array) for name, array in tensors.items()}
    assert {n: bits(a) for n, a in safetensors.numpy.load(codec.write(tensors, {"a": "b"})).items()} == expected
    assert {n: bits(a) for n, a in codec.read(safetensors.numpy.save(tensors)).tensors.items()} == expected


@given(TENSORS, st.data())
def test_a_body_cut_anywhere_is_refused(tensors: dict[str, np.ndarray], data: st.DataObject) -> None:
    body = codec.write(tensors, {"key": "value"})
    with pytest.raises(CodecError):
        codec.read(body[: data.draw(st.integers(0, len(body) - 1))])


@given(st.binary(max_size=300))
def test_random_bytes_are_refused_with_a_codec_error_and_nothing_else(body: bytes) -> None:
    with pytest.raises(CodecError):
        codec.read(body)


def body_with_header(header: object, data: bytes = b"\0" * 64) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(begin: int, end: int, shape: list[int], dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("header", "field"),
    [
        ({"a": entry(0, 32, [8]), "b": entry(16, 64, [12])}, "b"),  # overlap
        ({"a": entry(0, 16, [4]), "b": entry(32, 64, [8])}, "b"),  # hole
        ({"a": entry(0, 64, [8])}, "a"),  # size does not match the shape
        ({"a": entry(0, 64, [1 << 40, 1 << 40])}, "a"),  # shape whose product overflows
        ({"a": entry(0, 128, [32])}, "a"),  # beyond the data
        ({"a": entry(0, 32, [8])}, "body"),  # bytes left over
        ({"a": entry(0, 64, [-16])}, "a"),
        ({"a": entry(0, 64, [True, 16])}, "a"),
        ({"a": entry(0, 64, [16], "F31")}, "a"),
        ({"a": "no entry"}, "a"),
        ({"__metadata__": {"a": 1}}, "__metadata__"),
        (["no object"], "header"),
    ],
)
def test_a_header_that_lies_is_refused_with_the_field_that_lies(header: object, field: str) -> None:
    with pytest.raises(CodecError) as caught:
        codec.read(body_with_header(header))
    assert caught.value.field == field


def test_a_header_that_claims_to_be_huge_is_refused_before_it_is_read() -> None:
    with pytest.raises(CodecError, match=r"9223372036854775807 bytes long"):
        codec.read((2**63 - 1).to_bytes(8, "little") + b"{}")


def test_deeply_nested_json_is_refused() -> None:
    text = b"[" * 100_000
    with pytest.raises(CodecError, match="not JSON"):
        codec.read(len(text).to_bytes(8, "little") + text)


def test_views_cannot_be_written_to() -> None:
    body = codec.read(codec.write({"a": np.zeros(3, np.float32)}, {}))
    with pytest.raises(ValueError, match="read-only"):
        body.tensors["a"][0] = 1


@given(st.binary(max_size=2000))
def test_compression_round_trips(body: bytes) -> None:
    assert codec.decompress(codec.compress(body), limit_bytes=len(body)) == body


def test_a_decompression_bomb_is_refused_at_the_limit() -> None:
    bomb = zstandard.ZstdCompressor(level=19).compress(bytes(200 << 20))
    assert len(bomb) < 20_000
    with pytest.raises(CodecError, match="is 209715200 bytes when decompressed; at most 1000"):
        codec.decompress(bomb, limit_bytes=1000)


def test_a_bomb_that_states_a_small_size_is_refused() -> None:
    bomb = bytearray(zstandard.ZstdCompressor(level=19).compress(bytes(200 << 20)))
    bomb[6:10] = (1 << 20).to_bytes(4, "little")  # content size, after magic number, descriptor and window
    assert zstandard.get_frame_parameters(bytes(bomb)).content_size == 1 << 20
    with pytest.raises(CodecError, match="not a valid zstd frame"):
        codec.decompress(bytes(bomb), limit_bytes=2 << 20)


def test_a_frame_that_does_not_state_its_size_is_refused() -> None:
    stream = zstandard.ZstdCompressor().compressobj()
    with pytest.raises(CodecError, match="does not state its content size"):
        codec.decompress(stream.compress(b"body") + stream.flush(), limit_bytes=1000)


@pytest.mark.parametrize("cut", [1, 10, 100])
def test_a_cut_frame_is_refused(cut: int) -> None:
    frame = codec.compress(np.random.default_rng(0).bytes(1000))
    with pytest.raises(CodecError):
        codec.decompress(frame[:-cut], limit_bytes=10_000)


@pytest.mark.parametrize("tail", [b"x", b"\0" * 100, codec.compress(b"second")])
def test_bytes_after_the_frame_are_refused(tail: bytes) -> None:
    with pytest.raises(CodecError):
        codec.decompress(codec.compress(b"first") + tail, limit_bytes=1000)
