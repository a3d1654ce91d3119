"""The real rollout worker or trainer, whose client notes what was acknowledged: `python -m tests.soak.clients rollout`.

The file is named by the environment variable `JOURNAL`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from gaitfleet import codec
from gaitfleet.client import ReplayClient
from gaitfleet.episode import content_digest
from gaitfleet.wire import CheckpointInfo, EpisodeReceipt
from tests.soak.journal import Journal


def keep_journal(journal: Journal, client: str) -> None:
    """Let every `ReplayClient` of this process note its acknowledgements.

    Parameters
    ----------
    client
        Who they are given to.
    """
    post_frame, publish_checkpoint = ReplayClient.post_frame, ReplayClient.publish_checkpoint

    def post(self: ReplayClient, frame: bytes) -> EpisodeReceipt:
        receipt = post_frame(self, frame)
        body = codec.decompress(frame, limit_bytes=1 << 30)
        journal.add("episode", client=client, id=str(receipt.episode_id), digest=content_digest(body))
        return receipt

    def publish(self: ReplayClient, step: int, epoch: int, body: bytes) -> CheckpointInfo:
        info = publish_checkpoint(self, step, epoch, body)
        journal.add("checkpoint", client=client, step=info.step, epoch=epoch, digest=content_digest(body))
        return info

    ReplayClient.post_frame, ReplayClient.publish_checkpoint = post, publish  # type: ignore[method-assign]


def main() -> int:
    service = sys.argv[1]
    keep_journal(Journal(Path(os.environ["JOURNAL"])), service)
    if service == "trainer":
        from trainer.main import main as serve
    else:
        from rollout.main import main as serve
    return serve()


if __name__ == "__main__":
    sys.exit(main())
