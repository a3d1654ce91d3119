"""Each service in an environment that holds only what its own pyproject.toml asks for.

So a dependency that is used but not declared, or declared but not allowed, is found here and not in an image.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

SERVICES = {
    "rollout": ("services/rollout[opensim,gymnasium]", {"torch", "motor", "pymongo", "aioboto3", "fastapi", "trainer"}),
    "trainer": ("services/trainer", {"opensim", "osim", "motor", "pymongo", "aioboto3", "fastapi", "gymnasium"}),
    "replay_api": ("services/replay-api", {"torch", "opensim", "osim", "gymnasium", "rollout", "trainer"}),
}

IMPORT_EVERYTHING = """
import importlib, importlib.util, pkgutil, sys
package = importlib.import_module(sys.argv[1])
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
forbidden = sys.argv[2:]
print(*(name for name in forbidden if importlib.util.find_spec(name)), *(set(sys.modules) & set(forbidden)))
"""


@pytest.mark.isolation
@pytest.mark.parametrize("service", SERVICES)
def test_a_service_runs_on_its_own_dependencies_and_without_the_others(service: str, tmp_path: Path) -> None:
    requirement, forbidden = SERVICES[service]
    environment = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    python = environment / "bin" / "python"
    packages = [str(ROOT / "libs/gaitfleet"), str(ROOT / requirement)]
    install = [python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", *packages]
    subprocess.run(install, check=True, timeout=600)
    command = [python, "-c", IMPORT_EVERYTHING, service, *sorted(forbidden)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == []


def test_the_library_alone_loads_nothing_heavy() -> None:
    heavy = ["torch", "opensim", "osim", "fastapi", "motor", "aioboto3", "httpx", "gymnasium"]
    code = f"""
import sys, gaitfleet.task, gaitfleet.episode, gaitfleet.policy, gaitfleet.checkpoint, gaitfleet.batch, gaitfleet.wire
print(*sorted(set(sys.modules) & set({heavy})))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []
