"""``python -m rollout``.

What is imported at the top of this file is imported again by every simulator process (multiprocessing runs the main
module of a console script anew), so the service itself is imported by `main` only.
"""

import signal
import sys
from types import FrameType


def main() -> int:
    """Run the service; the result is its exit code."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)  # importing takes seconds on a busy node; there is nothing to save yet
    from rollout.main import main as run

    return run()


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(0)


if __name__ == "__main__":
    sys.exit(main())
