"""The connection to MongoDB, what it measures, and how its failures are told."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from datetime import UTC, datetime
from typing import Any

import pymongo
from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorDatabase
from pymongo import monitoring
from pymongo.errors import (
    ConnectionFailure,
    DuplicateKeyError,
    ExecutionTimeout,
    OperationFailure,
    PyMongoError,
    WriteConcernError,
    WTimeoutError,
)

from replay_api.constants import CLOCK_SECONDS, DATABASE_SECONDS, READINESS_SECONDS, RETRY_AFTER_SECONDS
from replay_api.errors import UnavailableError
from replay_api.metrics import Metrics
from replay_api.settings import Settings

Document = dict[str, Any]
Database = AsyncIOMotorDatabase[Document]

_log = logging.getLogger(__name__)


class _CommandMetrics(monitoring.CommandListener):
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        pass

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        self._metrics.mongo_seconds.labels(event.command_name).observe(event.duration_micros / 1e6)

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        self._metrics.mongo_seconds.labels(event.command_name).observe(event.duration_micros / 1e6)
        self._metrics.mongo_errors.labels(event.command_name).inc()


class _HeartbeatMetrics(monitoring.ServerHeartbeatListener):
    """Counts servers that do not answer: no command is sent to them that could fail."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def started(self, event: monitoring.ServerHeartbeatStartedEvent) -> None:
        pass

    def succeeded(self, event: monitoring.ServerHeartbeatSucceededEvent) -> None:
        pass

    def failed(self, event: monitoring.ServerHeartbeatFailedEvent) -> None:
        self._metrics.mongo_errors.labels("heartbeat").inc()


class _PoolMetrics(monitoring.ConnectionPoolListener):
    """Connections checked out; the other events are of no interest here."""

    def __init__(self, metrics: Metrics) -> None:
        self._gauge = metrics.mongo_checked_out

    def connection_checked_out(self, event: monitoring.ConnectionCheckedOutEvent) -> None:
        self._gauge.inc()

    def connection_checked_in(self, event: monitoring.ConnectionCheckedInEvent) -> None:
        self._gauge.dec()

    def _ignore(self, event: Any) -> None:
        pass

    pool_created = pool_ready = pool_cleared = pool_closed = _ignore
    connection_created = connection_ready = connection_closed = _ignore
    connection_check_out_started = connection_check_out_failed = _ignore


def connect(settings: Settings, metrics: Metrics) -> AsyncIOMotorClient[Document]:
    """A client whose every write is acknowledged by a majority and by its journal; connects when first used."""
    return AsyncIOMotorClient(**client_options(settings, metrics))


def client_options(settings: Settings, metrics: Metrics) -> dict[str, Any]:
    """Arguments of a client. What they name, the address of the settings cannot change."""
    return {
        "host": settings.mongodb_uri.get_secret_value(),
        "appname": "gaitfleet-replay-api",
        "tz_aware": True,
        "tzinfo": UTC,
        "w": "majority",
        "journal": True,
        "wTimeoutMS": 7000,
        "readConcernLevel": "majority",
        # A secondary may not know yet what was acknowledged a moment ago.
        "readPreference": "primary",
        "readPreferenceTags": "",
        "maxStalenessSeconds": -1,
        "retryWrites": True,
        "retryReads": True,
        "serverSelectionTimeoutMS": 3000,
        "connectTimeoutMS": 3000,
        "socketTimeoutMS": 8000,
        "waitQueueTimeoutMS": 3000,
        "maxPoolSize": 64,
        "event_listeners": [_CommandMetrics(metrics), _HeartbeatMetrics(metrics), _PoolMetrics(metrics)],
    }


@asynccontextmanager
async def asking(what: str, *, seconds: float | None = DATABASE_SECONDS) -> AsyncIterator[None]:
    """Bound a database operation in time (None: not at all) and tell its failure as `UnavailableError`.

    Raises
    ------
    UnavailableError
        When MongoDB cannot be reached, does not answer in time, or refuses for a reason that is not the request's.
    """
    # What may take longer may also be silent for longer than the client's socket timeout.
    patience = pymongo.timeout(seconds) if seconds and seconds > DATABASE_SECONDS else nullcontext()
    try:
        async with asyncio.timeout(seconds):
            with patience:
                yield
    except DuplicateKeyError:
        raise
    except (TimeoutError, ConnectionFailure, ExecutionTimeout, WriteConcernError, WTimeoutError) as error:
        _log.warning("the database did not answer", extra={"operation": what, "error": type(error).__name__})
        raise unavailable(what, error) from error
    except (OperationFailure, PyMongoError) as error:
        _log.exception("the database refused", extra={"operation": what})
        raise unavailable(what, error) from error


def unavailable(what: str, error: Exception) -> UnavailableError:
    """How a failure of the database is told."""
    detail = f"the database did not {what} ({type(error).__name__})"
    return UnavailableError(detail, reason="database", retry_after_seconds=RETRY_AFTER_SECONDS)


async def ping(database: Database) -> None:
    """Ask whether the database answers.

    Raises
    ------
    UnavailableError
        When it does not.
    """
    async with asking("answer a ping", seconds=READINESS_SECONDS):
        await database.command("ping")


class DatabaseClock:
    """The database's time, the same for all replicas whatever their own clocks say, and however these jump."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._asked_at = 0.0
        self._uncertainty = 0.0
        self._ahead: deque[float] = deque(maxlen=3)  # of the monotonic clock, by the latest answers
        self._settled: datetime | None = None

    async def ask(self) -> None:
        """Learn the time, unless that was done a moment ago.

        Raises
        ------
        UnavailableError
            When the database does not answer.
        """
        began = time.monotonic()
        if self._ahead and began < self._asked_at + CLOCK_SECONDS:
            return
        async with asking("tell the time"):
            answer = await self._database.command("hello")
        self._asked_at = time.monotonic()
        settled = answer.get("lastWrite", {}).get("majorityWriteDate")
        self._settled = None if settled is None else _utc(settled)
        told = _utc(answer["localTime"]).timestamp()  # whole milliseconds, cut off
        self._learn(told - self._asked_at, told + 0.001 - began)

    def _learn(self, least: float, most: float) -> None:
        """The database is ahead by something between these. A slow answer says little: what a quicker one said stands
        while both agree, so that the order of episodes does not hang on how busy the database was."""
        ahead = (least + most) / 2
        if self._ahead and most - least > self._uncertainty and least <= self._ahead[-1] <= most:
            ahead = self._ahead[-1]
        else:
            self._uncertainty = most - least
        self._ahead.append(ahead)

    def now(self) -> datetime:
        """This moment; by the clock of this machine as long as the database was never asked."""
        return now() if not self._ahead else _ahead_by(self._ahead[-1])

    def earliest(self) -> datetime:
        """What any replica may take for this moment: where the database's clock was set forward, or another primary
        has another clock, some have not asked since. In a replica set not later than the newest write that a majority
        has: what was written since cannot be seen yet, and may become visible however much later."""
        moment = now() if not self._ahead else _ahead_by(min(self._ahead))
        return moment if self._settled is None else min(moment, self._settled)


def _utc(told: datetime) -> datetime:
    """A moment of a command's answer; the driver leaves its time zone out."""
    return told if told.tzinfo else told.replace(tzinfo=UTC)


def _ahead_by(seconds: float) -> datetime:
    return milliseconds(datetime.fromtimestamp(time.monotonic() + seconds, UTC))


def now() -> datetime:
    """This moment by the clock of this machine, in the milliseconds that MongoDB keeps. For people to read; what was
    stored since when is asked by `DatabaseClock`."""
    return milliseconds(datetime.now(UTC))


def milliseconds(moment: datetime) -> datetime:
    """A moment as MongoDB gives it back: UTC, whole milliseconds."""
    return moment.astimezone(UTC).replace(microsecond=moment.microsecond // 1000 * 1000)
