"""What the images install is named with hashes, at the versions of constraints.txt. Needs no Docker."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ROOT / "docker" / "requirements"
CPU_TORCH = {"torch"}
"""Pinned but not hashed in the image for CPUs: its wheel is not on PyPI."""


def locked(name: str) -> dict[str, str]:
    """Versions in a lock; each entry must have a hash."""
    found = {}
    for entry in re.findall(r"^\w.*(?:\n .*)*", (LOCKS / f"{name}.txt").read_text(), re.MULTILINE):
        package, version = re.match(r"(\S+)==(\S+) ", entry).groups()  # type: ignore[union-attr]
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), f"{package} in {name}.txt has no hash"
        found[str(canonicalize_name(package))] = version
    return found


def pinned() -> dict[str, str]:
    lines = [line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line]
    return {str(canonicalize_name(name)): version for name, version in lines}


def needed(package: str, extras: frozenset[str] = frozenset()) -> Iterator[str]:
    """Everything that a package needs here."""
    environment = dict(default_environment())
    for text in requires(package) or []:
        requirement = Requirement(text)
        wanted = requirement.marker is None or any(
            requirement.marker.evaluate(environment | {"extra": extra}) for extra in {"", *extras}
        )
        if wanted:
            if not requirement.name.startswith("gaitfleet"):
                yield str(canonicalize_name(requirement.name))
            yield from needed(requirement.name, frozenset(requirement.extras))


@pytest.mark.parametrize("name", [path.stem for path in sorted(LOCKS.glob("*.txt"))])
def test_a_lock_has_hashes_and_the_versions_of_the_constraints(name: str) -> None:
    versions = pinned()
    found = locked(name)
    assert {package: versions.get(package, version) for package, version in found.items()} == found


@pytest.mark.parametrize(
    ("service", "extras"),
    [
        ("replay-api", frozenset[str]()),
        ("rollout", frozenset({"opensim", "gymnasium"})),
        ("trainer", frozenset[str]()),
    ],
)
def test_a_lock_names_all_that_its_service_needs(service: str, extras: frozenset[str]) -> None:
    missing = set(needed(f"gaitfleet-{service}", extras)) - locked(service).keys() - CPU_TORCH
    assert not missing, f"run `make locks`: {sorted(missing)}"


@pytest.mark.parametrize("part", ["database", "bucket", "replay-api", "rollout", "trainer"])
def test_an_image_takes_files_by_their_hashes_alone(part: str) -> None:
    """But torch for CPUs, which is not on PyPI; a service's own code comes from the working tree."""
    text = re.sub(r"\\\n", " ", (ROOT / "docker" / f"{part}.Dockerfile").read_text())
    commands = re.findall(r"pip(?: --python \S+)? (?:install|wheel) .*?(?= && |;|$)", text, re.MULTILINE)
    loose = [command for command in commands if "--require-hashes" not in command and "--no-index" not in command]
    assert [command.split()[-1] for command in loose] == (["torch"] if part == "trainer" else [])
