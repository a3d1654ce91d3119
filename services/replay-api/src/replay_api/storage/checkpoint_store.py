"""Which checkpoint store the settings name."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path

from replay_api.metrics import Metrics
from replay_api.settings import Settings
from replay_api.storage.directory_objects import DirectoryStore
from replay_api.storage.objects import CheckpointStore
from replay_api.storage.s3_objects import open_s3


def open_store(settings: Settings, metrics: Metrics) -> AbstractAsyncContextManager[CheckpointStore]:
    """The store, open while the context lasts."""
    kind, _, rest = settings.checkpoint_store.partition(":")
    if kind == "directory":
        return DirectoryStore.open(Path(rest), metrics)
    bucket, _, prefix = rest.removeprefix("//").partition("/")
    return open_s3(bucket, prefix.strip("/"), settings, metrics)
