"""Promises about what a trainer's image need not hold."""

from __future__ import annotations

import os
import subprocess
import sys


def test_the_trainer_imports_no_simulator_no_database_and_no_server() -> None:
    code = (
        "import sys, trainer.main; "
        "print([name for name in ('opensim', 'osim', 'motor', 'pymongo', 'aioboto3', 'boto3', 'fastapi', 'gymnasium', "
        "'rollout', 'replay_api') if name in sys.modules])"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert answer.stdout.strip() == "[]"
