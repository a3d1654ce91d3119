"""Names of things: runs, episodes, seeds."""

from __future__ import annotations

import hashlib
import os
import time
import uuid

RUN_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
"""A run's id is a DNS label, because it becomes part of object keys, metric labels and Kubernetes names."""


def new_episode_id() -> uuid.UUID:
    """A UUIDv7 (RFC 9562): 48 bits of milliseconds, then random bits; ids sort by time of creation."""
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds & ((1 << 48) - 1)) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 7 << 76
    value = value & ~(0x3 << 62) | 2 << 62
    return uuid.UUID(int=value)


def episode_seed(run_seed: int, worker: str, episode: int) -> int:
    """Seed of one episode, in [0, 2**31): the same run, worker and episode number give the same episode again."""
    digest = hashlib.sha256(f"{run_seed}/{worker}/{episode}".encode()).digest()
    return int.from_bytes(digest[:4], "little") >> 1
