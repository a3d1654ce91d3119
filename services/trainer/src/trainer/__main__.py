"""``python -m trainer``."""

import signal
import sys
from types import FrameType


def main() -> int:
    """Run the service; the result is its exit code."""
    # Importing torch takes seconds, and there is nothing to save yet. Without a handler the first process of a
    # container, which ours is, does not even hear of SIGTERM: it would take the lease and then be killed.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    from trainer.main import main as run

    return run()


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(0)


if __name__ == "__main__":
    sys.exit(main())
