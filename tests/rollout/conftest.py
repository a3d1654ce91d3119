"""What the tests of the rollout service share."""

from __future__ import annotations

import sys
from pathlib import Path

# simulator processes import the environments of failing_environments.py by name
sys.path.insert(0, str(Path(__file__).parent))
