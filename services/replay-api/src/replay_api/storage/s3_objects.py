"""Checkpoints as objects of an S3 bucket."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aioboto3
import aiohttp
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from pydantic import SecretStr

from replay_api.constants import READINESS_SECONDS, RETRY_AFTER_SECONDS
from replay_api.errors import UnavailableError
from replay_api.metrics import Metrics
from replay_api.settings import Settings
from replay_api.storage.objects import ObjectExistsError, ObjectMissingError, extend, time_limit
from replay_api.storage.shared_check import SharedCheck

_log = logging.getLogger(__name__)

_EXISTS = frozenset({"PreconditionFailed", "412"})  # 409 is a conflict with another upload, to be tried again
_MISSING = frozenset({"NoSuchKey", "404", "NotFound"})


class S3Store:
    """Objects of a bucket below a prefix; ``If-None-Match: *`` keeps them immutable."""

    def __init__(self, client: Any, bucket: str, prefix: str, metrics: Metrics) -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._metrics = metrics
        self._checking = SharedCheck(self._check)  # every list has a price, and takes a connection

    async def put_new(self, key: str, body: bytes | bytearray | memoryview) -> None:
        async with self._asking("put", key) as limit:
            extend(limit, len(body))
            await self._client.put_object(
                Bucket=self._bucket,
                Key=self._prefix + key,
                Body=bytes(body) if isinstance(body, memoryview) else body,
                IfNoneMatch="*",
                ContentType="application/x-safetensors",
            )
        self._metrics.s3_bytes.labels("out").inc(len(body))

    async def get(self, key: str) -> bytes:
        async with self._asking("get", key) as limit:
            answer = await self._client.get_object(Bucket=self._bucket, Key=self._prefix + key)
            extend(limit, answer.get("ContentLength", 0))
            body: bytes = await answer["Body"].read()
        self._metrics.s3_bytes.labels("in").inc(len(body))
        return body

    async def delete(self, key: str) -> None:
        async with self._asking("delete", key):
            await self._client.delete_object(Bucket=self._bucket, Key=self._prefix + key)

    async def find(self, prefix: str) -> AsyncIterator[str]:
        arguments: dict[str, Any] = {"Bucket": self._bucket, "Prefix": self._prefix + prefix}
        while True:
            async with self._asking("list", prefix):
                page = await self._client.list_objects_v2(**arguments)
            for entry in page.get("Contents", ()):
                yield str(entry["Key"]).removeprefix(self._prefix)
            if not page.get("IsTruncated"):
                return
            arguments["ContinuationToken"] = page["NextContinuationToken"]

    async def check(self) -> None:
        await self._checking()

    def stop_checking(self) -> None:
        """Give up a check that is under way: the client is about to be closed."""
        self._checking.cancel()

    async def _check(self) -> None:
        async with self._asking("check", self._prefix) as limit:
            # Who asks waits no longer either; the next check is to find out whether the store is back.
            limit.reschedule(asyncio.get_running_loop().time() + READINESS_SECONDS)
            await self._client.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix, MaxKeys=1)

    @asynccontextmanager
    async def _asking(self, operation: str, key: str) -> AsyncIterator[asyncio.Timeout]:
        began = time.monotonic()
        try:
            async with time_limit() as limit:
                yield limit
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", "unknown"))
            if operation == "put" and code in _EXISTS:
                raise ObjectExistsError(key) from None
            if operation == "get" and code in _MISSING:
                raise ObjectMissingError(key) from None
            raise self._unavailable(operation, code) from error
        except (BotoCoreError, aiohttp.ClientError, OSError, TimeoutError) as error:  # a body may break off
            raise self._unavailable(operation, type(error).__name__) from error
        finally:
            self._metrics.s3_seconds.labels(operation).observe(time.monotonic() - began)

    def _unavailable(self, operation: str, code: str) -> UnavailableError:
        self._metrics.s3_errors.labels(operation, code).inc()
        _log.warning("the checkpoint store did not answer", extra={"operation": operation, "error": code})
        detail = f"the checkpoint store did not {operation} ({code})"
        return UnavailableError(detail, reason="checkpoint_store", retry_after_seconds=RETRY_AFTER_SECONDS)


@asynccontextmanager
async def open_s3(bucket: str, prefix: str, settings: Settings, metrics: Metrics) -> AsyncIterator[S3Store]:
    """The store in `bucket`; without a key in the settings, credentials come from where every AWS client looks."""
    config = Config(
        connect_timeout=3,
        read_timeout=30,
        retries={"max_attempts": 3, "mode": "standard"},
        s3={"addressing_style": "path" if settings.s3_path_style else "auto"},
        max_pool_connections=20,
    )
    session = aioboto3.Session(
        aws_access_key_id=_revealed(settings.s3_access_key_id),
        aws_secret_access_key=_revealed(settings.s3_secret_access_key),
    )
    async with session.client(
        "s3", endpoint_url=settings.s3_endpoint_url, region_name=settings.s3_region, config=config
    ) as client:
        store = S3Store(client, bucket, prefix, metrics)
        try:
            yield store
        finally:
            store.stop_checking()


def _revealed(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret else None
