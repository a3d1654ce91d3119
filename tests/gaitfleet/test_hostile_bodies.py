"""Bodies made to hurt: each is refused with the error that its reader promises, in little time and memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from typing import Any

import hypothesis
import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from tests.replay_api.fleet import checkpoint_of, experiment_of, play

from gaitfleet import codec
from gaitfleet.checkpoint import METADATA_KEY as CHECKPOINT_KEY
from gaitfleet.checkpoint import decode_checkpoint
from gaitfleet.episode import METADATA_KEY as EPISODE_KEY
from gaitfleet.episode import check_episode, decode_episode, encode_episode
from gaitfleet.errors import CodecError, EpisodeError
from gaitfleet.policy import METADATA_KEY as POLICY_KEY
from gaitfleet.policy import NumpyPolicy
from gaitfleet.task import make_task

pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module")
"""Hypothesis believes that the server's thread, which draws numbers meanwhile, is the strategy."""

TASK = make_task(experiment_of().task)
EPISODE = encode_episode(play(TASK, "run", steps=5))
CHECKPOINT = checkpoint_of(TASK, "run", 1)
fuzz = hypothesis.settings(max_examples=int(os.environ.get("GAITFLEET_TEST_FUZZ_EXAMPLES", "60")), deadline=None)

NUMBERS = st.one_of(
    st.sampled_from([-1, 0, 1, 8, 1 << 31, 1 << 47, 1 << 48, 1 << 63, 1 << 64, True, 0.5, float("nan"), None]),
    st.integers(),
)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
SHAPES = st.lists(NUMBERS, max_size=70) | JSON
ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "U8", "F99", ["F32"]]),
        "shape": SHAPES,
        "data_offsets": st.lists(NUMBERS, min_size=2, max_size=2) | JSON,
    }
)
NAMES = st.sampled_from(["state", "policy/out.weight", "trainer/x", "__metadata__", "\ud800", "\0", ""])


def body_with(header: bytes, data: bytes = bytes(64)) -> bytes:
    return len(header).to_bytes(8, "little") + header + data


def dumped(header: Any) -> bytes:
    return json.dumps(header).encode()


def read_as_anything(body: bytes) -> None:
    """Every reader takes the body or refuses it with its own error and nothing else."""
    for reader in (codec.read, decode_episode, decode_checkpoint, NumpyPolicy.from_bytes):
        with suppress(CodecError):
            reader(body)


@fuzz
@given(st.dictionaries(NAMES, ENTRIES | JSON, max_size=4), st.binary(max_size=64))
def test_no_header_brings_a_reader_down(header: dict[str, Any], data: bytes) -> None:
    read_as_anything(body_with(dumped(header), data))


@fuzz
@given(st.sampled_from([EPISODE_KEY, CHECKPOINT_KEY, POLICY_KEY]), JSON.map(dumped) | st.binary(max_size=50))
def test_no_metadata_brings_a_reader_down(key: str, text: bytes) -> None:
    read_as_anything(body_with(dumped({"__metadata__": {key: text.decode(errors="replace")}}), b""))


@fuzz
@given(st.sampled_from([EPISODE, CHECKPOINT]), st.data())
def test_no_changed_bytes_bring_a_reader_down(body: bytes, data: st.DataObject) -> None:
    changed = bytearray(body)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, min(len(body), 1500) - 1))
        changed[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    read_as_anything(bytes(changed))
    with suppress(CodecError):
        check_episode(decode_episode(bytes(changed)), "run", TASK.description)


@fuzz
@given(
    st.binary(max_size=200)
    | st.binary(max_size=40).map(lambda rest: zstandard.MAGIC_NUMBER.to_bytes(4, "little") + rest)
)
def test_no_frame_brings_the_decompressor_down(frame: bytes) -> None:
    with suppress(CodecError):
        assert len(codec.decompress(frame, limit_bytes=1000)) <= 1000


ENTRY = '{"dtype":"F32","shape":%s,"data_offsets":[0,%d]}'


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        ('{"a":' + ENTRY % ("[16]", 64) + ',"a":' + ENTRY % ("[16]", 64) + "}", 64, "key 'a' stands twice"),
        ('{"__metadata__":{"k":"1","k":"2"}}', 0, "key 'k' stands twice"),
        ('{"\\ud800":' + ENTRY % ("[0]", 0) + "}", 0, "surrogates not allowed"),
        ('{"a":' + ENTRY % ([1] * 65, 4) + "}", 4, "is not valid"),
        ('{"a":' + ENTRY % ([1 << 47] * 60_000, 4) + "}", 4, "is not valid"),
        ('{"a":' + ENTRY % ("[0,140737488355327,140737488355327]", 0) + "}", 0, "is empty, and too large"),
        ('{"a":' + ENTRY % (f"[{'9' * 10_000}]", 64) + "}", 64, "is not JSON"),
        ("[" * 500_000, 0, "is not JSON"),
    ],
    ids=[
        "key-twice",
        "metadata-twice",
        "half-a-surrogate",
        "dimensions",
        "product",
        "empty-but-huge",
        "digits",
        "deep",
    ],
)
def test_a_header_that_python_would_take_or_choke_on_is_refused(header: str, data: int, message: str) -> None:
    with pytest.raises(CodecError, match=message):
        codec.read(body_with(header.encode(), bytes(data)))


def test_a_header_in_another_encoding_than_utf8_is_refused() -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}})
    with pytest.raises(CodecError, match="is not JSON"):
        codec.read(body_with(header.encode("utf-16-le"), bytes(4)))


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "1969-01-01T00:00:00Z"])
def test_an_episode_from_a_time_that_cannot_be_is_refused(moment: str) -> None:
    body = codec.read(EPISODE)
    metadata = json.loads(body.metadata[EPISODE_KEY]) | {"started_at": moment}
    with pytest.raises(CodecError, match="started_at"):
        decode_episode(codec.write(body.tensors, {EPISODE_KEY: json.dumps(metadata)}))


def test_the_fields_of_an_episode_are_not_looked_at_where_they_are_too_many() -> None:
    body = codec.read(EPISODE)
    metadata = json.loads(body.metadata[EPISODE_KEY]) | {str(field): 0 for field in range(8000)}
    with pytest.raises(EpisodeError, match=r"has \d+ characters, may have 65536"):
        decode_episode(codec.write(body.tensors, {EPISODE_KEY: json.dumps(metadata)}))


MEMORY = """
import resource, sys
from gaitfleet import codec
from gaitfleet.errors import CodecError

bomb, limit = open(sys.argv[1], "rb").read(), int(sys.argv[2])
lies = [b'{"a":{"dtype":"F64","shape":[%d],"data_offsets":[0,%d]}}' % (1 << 40, 1 << 43)]
lies += [b'{"a":{"dtype":"F64","shape":[%d,0],"data_offsets":[0,0]}}' % (1 << 40), b'{"a":[' + b"1," * 400_000]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for attempt in range(20):
    for read in (lambda: codec.decompress(bomb, limit_bytes=limit), *(lambda lie=lie: codec.read(
        len(lie).to_bytes(8, "little") + lie) for lie in lies)):
        try:
            read()
        except CodecError:
            pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize("stated_bytes", [400 << 20, 8 << 20])
def test_bombs_and_lies_cost_no_more_memory_than_the_limit(tmp_path: Any, stated_bytes: int) -> None:
    """A frame of 400 MiB of zeros, once honest and once stating 8 MiB, against a limit of 16 MiB."""
    bomb = bytearray(zstandard.ZstdCompressor(level=1).compress(np.zeros(400 << 20, np.uint8)))
    bomb[6:10] = stated_bytes.to_bytes(4, "little")  # content size, after magic number, descriptor and window
    assert zstandard.get_frame_parameters(bytes(bomb)).content_size == stated_bytes
    (tmp_path / "bomb").write_bytes(bomb)
    command = [sys.executable, "-c", MEMORY, str(tmp_path / "bomb"), str(16 << 20)]
    grown_kib = int(subprocess.run(command, capture_output=True, check=True, timeout=120).stdout)
    assert grown_kib < 48 << 10
