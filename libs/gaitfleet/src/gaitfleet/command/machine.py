"""What `gaitfleet doctor` finds out about the machine itself: versions, cores, memory, disk, ports."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from gaitfleet.checkup import Finding, absent, failed, passed
from gaitfleet.command.processes import port_is_open

PYTHONS = ((3, 11), (3, 13))
"""First and last Python that OpenSim's wheels are built for."""

DISTRIBUTIONS = {
    "gaitfleet": ("numpy", "pydantic", "httpx", "pyarrow", "pillow"),
    "gaitfleet-replay-api": ("fastapi", "motor", "pymongo", "aioboto3", "pyarrow"),
    "gaitfleet-trainer": ("torch",),
    "gaitfleet-rollout": ("opensim", "osim-rl", "gymnasium"),
}
"""Our distributions, and whose versions matter to each."""

LEAST_MEMORY_BYTES = 1_500_000_000
"""Database, replay API, trainer and two simulators of a small run take 1.2 GB; the replay grows from there."""

LEAST_DISK_BYTES = 2_000_000_000
"""A thousand episodes of 300 steps take 0.3 GB, as much again before they are compacted."""


def python() -> Finding:
    """Whether this Python is one of `PYTHONS`."""
    name, running = "Python", sys.version.split()[0]
    first, last = (".".join(map(str, numbers)) for numbers in PYTHONS)
    if PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]:
        return passed(name, running)
    return failed(name, running, f"use Python {first} to {last}: OpenSim has wheels for these")


def packages() -> Iterator[Finding]:
    """Our distributions and their main dependencies; all of ours must have the same version."""
    ours = version("gaitfleet")
    for distribution, dependencies in DISTRIBUTIONS.items():
        installed = _version(distribution)
        if installed is None:
            yield absent(distribution, "not installed", f"to run it on this machine: pip install {distribution}")
            continue
        versions = [f"{name} {found}" for name in dependencies if (found := _version(name))]
        detail = f"{installed} ({', '.join(versions)})"
        if installed == ours:
            yield passed(distribution, detail)
        else:
            yield failed(distribution, detail, f"install all of gaitfleet in one version; the library is {ours}")


def cores_and_memory() -> Iterator[Finding]:
    """Cores of this process, and memory that is available."""
    cores = len(os.sched_getaffinity(0))
    yield passed("cores", f"{cores}, load average {os.getloadavg()[0]:.1f}")
    numbers = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
    whole, available = (1024 * int(numbers[name].split()[0]) for name in ("MemTotal", "MemAvailable"))
    detail = f"{available / 1e9:.1f} of {whole / 1e9:.1f} GB available"
    if available >= LEAST_MEMORY_BYTES:
        yield passed("memory", detail)
    else:
        yield failed("memory", detail, f"a small run takes {LEAST_MEMORY_BYTES / 1e9:.1f} GB: end other programs")


def data_directory(directory: Path) -> Finding:
    """Whether the data directory can be written, or made, and has space; leaves nothing there."""
    name, place = "data directory", nearest_directory(directory)
    try:
        with tempfile.NamedTemporaryFile(dir=place, prefix=".gaitfleet-doctor-") as file:
            file.write(b"x")
            file.flush()
            os.fsync(file.fileno())
        free = shutil.disk_usage(place).free
    except OSError as error:
        return failed(name, f"{directory}: {error.strerror}", "name one that this user may write to, with --data-dir")
    detail = f"{directory}: writable, {free / 1e9:.1f} GB free"
    if free >= LEAST_DISK_BYTES:
        return passed(name, detail)
    return failed(
        name, detail, f"free space, or name another with --data-dir; {LEAST_DISK_BYTES / 1e9:.0f} GB at least"
    )


def nearest_directory(path: Path) -> Path:
    """The path, or the nearest of its parents that is seen to exist."""
    # not `Path.exists`, which raises where this user may not look
    return next(parent for parent in (path.absolute(), *path.absolute().parents) if os.path.exists(parent))


def port(number: int) -> Finding:
    """Whether the replay API could listen on a loopback port."""
    if port_is_open(number):
        advice = "`gaitfleet up` may be running already; else choose another with --port"
        return failed(f"port {number}", "something listens on it", advice)
    return passed(f"port {number}", "free")


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
