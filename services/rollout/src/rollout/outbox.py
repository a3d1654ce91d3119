"""Finished episodes on their way to the replay API: posted in the background, spooled to disk while it is away.

An episode leaves the outbox in one of three ways: it was acknowledged, it was refused (and set aside with the reason),
or it stays in the spool for the next start. It is always sent under its own id with the same bytes, so that sending it
twice does no harm.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from gaitfleet import codec
from gaitfleet.client import Backoff
from gaitfleet.episode import decode_episode
from gaitfleet.errors import ApiError, CodecError, ConflictError, ForbiddenError, LimitedError, RejectedError
from rollout.connection import Connection, asked_wait_seconds, reason_of
from rollout.metrics import Metrics
from rollout.spool import MAX_EPISODE_BYTES, Spool

logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Parcel:
    """An episode that waits, compressed; `frame` is None while only the spool has it."""

    episode_id: str
    frame: bytes | None
    spooled: bool
    done: bool = False


class Outbox:
    """A bounded queue, threads that empty it, and the spool behind it.

    Parameters
    ----------
    connect
        Makes a connection for each thread.
    spool
        Where episodes go while the API is away.
    memory_episodes
        Episodes held in memory before `accepting` says no.
    posters
        Threads that post.
    future_policy
        Told the policy version of an episode that was refused because the API's newest policy is before it.

    Attributes
    ----------
    failure
        What ended a poster that should go on; the worker must not go on then, or it would idle for ever.
    """

    def __init__(
        self,
        connect: Callable[[], Connection],
        spool: Spool,
        metrics: Metrics,
        *,
        memory_episodes: int = 16,
        posters: int = 2,
        future_policy: Callable[[int], None] = lambda version: None,
    ) -> None:
        self.failure: Exception | None = None
        self._connect = connect
        self._spool = spool
        self._metrics = metrics
        self._future_policy = future_policy
        self._memory_episodes = memory_episodes
        self._changed = threading.Condition()
        self._queue = deque(_Parcel(episode_id, None, spooled=True) for episode_id in spool.ids())
        self._in_flight: list[_Parcel] = []
        self._backoff = Backoff()
        self._try_again_at = 0.0
        self._away = False
        self._closing = self._withheld = False
        self._threads = [threading.Thread(target=self._post, name=f"poster-{i}", daemon=True) for i in range(posters)]

    def start(self) -> None:
        """Begin to post, first what an earlier start has left in the spool."""
        if self._queue:
            logger.info("%d episodes wait in the spool", len(self._queue))
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Episodes that are not acknowledged."""
        with self._changed:
            return len(self._queue) + len(self._in_flight)

    @property
    def accepting(self) -> bool:
        """Whether another episode may be begun. While it is false the simulators pause; nothing is thrown away."""
        with self._changed:
            in_memory = sum(not parcel.spooled for parcel in (*self._queue, *self._in_flight))
        return in_memory < self._memory_episodes and not self._spool.full

    def submit(self, episode_id: str, body: bytes) -> None:
        """Take an episode. Never refused, and waits for nothing but the disk: whoever plays asks `accepting` before."""
        parcel = _Parcel(episode_id, codec.compress(body), spooled=False)
        if self._away:
            self._to_spool(parcel)
        with self._changed:
            self._queue.append(parcel)
            self._changed.notify()

    def withhold(self) -> None:
        """Begin no post any more, because whoever would get it must not; `close` leaves all in the spool then."""
        with self._changed:
            self._withheld = True
            self._changed.notify_all()

    def close(self, timeout_seconds: float) -> None:
        """Post what can be posted in this time, trying each episode once, and leave the rest in the spool."""
        with self._changed:
            deadline = time.monotonic() + (0.0 if self._withheld else timeout_seconds)
            self._closing = True
            self._try_again_at = 0.0
            self._changed.notify_all()
            while (self._queue or self._in_flight) and any(thread.is_alive() for thread in self._threads):
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    break
                self._changed.wait(min(0.1, remaining))
            rest = [parcel for parcel in (*self._in_flight, *self._queue) if not parcel.spooled]
        for parcel in rest:
            # one that is in flight right now may be sent twice: under the same id, with the same bytes
            if not self._to_spool(parcel):
                self._metrics.dropped("spool_failed")
        self._metrics.spooled(len(self._spool))
        if len(self._spool):
            logger.warning("%d episodes stay in the spool", len(self._spool))

    def _post(self) -> None:
        try:
            self._deliver_all()
        except Exception as error:
            logger.exception("a poster ended")
            self.failure = error

    def _deliver_all(self) -> None:
        connection = self._connect()
        while True:
            parcel = self._take()
            if parcel is None:
                return
            try:
                self._deliver(parcel, connection)
            except Exception as error:
                # the episode is tried again
                if not isinstance(error, ApiError | OSError):
                    logger.exception("posting failed")
                if isinstance(error, ForbiddenError):
                    connection.renew()
                self._put_back(parcel, error)
            self._metrics.spooled(len(self._spool))

    def _take(self) -> _Parcel | None:
        """The next episode, once it may be tried; None when nothing may be tried any more."""
        with self._changed:
            while not self._withheld:
                pause = self._try_again_at - time.monotonic()
                if self._queue and pause <= 0:
                    parcel = self._queue.popleft()
                    self._in_flight.append(parcel)
                    return parcel
                if self._closing:
                    return None
                self._changed.wait(pause if self._queue else None)
            return None

    def _deliver(self, parcel: _Parcel, connection: Connection) -> None:
        frame = parcel.frame
        try:
            if frame is None:
                frame = self._spool.read(parcel.episode_id)
        except FileNotFoundError:
            self._done(parcel)  # another worker that shares the spool has delivered it
            return
        except CodecError as error:
            self._set_aside(parcel, error, "damaged")
            return
        began = time.monotonic()
        try:
            connection.client.post_frame(frame)
        except RejectedError as error:
            self._set_aside(parcel, error, "rejected")
            if error.problem.get("reason") == "future_policy":
                body = codec.decompress(frame, limit_bytes=MAX_EPISODE_BYTES)
                self._future_policy(decode_episode(body).metadata.policy_version)
        except ConflictError as error:
            self._set_aside(parcel, error, "conflict")
        else:
            self._done(parcel)
            self._away = False
            self._backoff.reset()
        finally:
            self._metrics.phase("post", time.monotonic() - began)

    def _done(self, parcel: _Parcel) -> None:
        with self._changed:
            self._in_flight.remove(parcel)
            parcel.done = True
            if parcel.spooled:
                self._remove_file(parcel)
            self._changed.notify_all()

    def _remove_file(self, parcel: _Parcel) -> None:
        """The API has the episode, so a file that cannot be removed does no harm: the next start sends it once more."""
        try:
            self._spool.remove(parcel.episode_id)
        except OSError as error:
            logger.error("episode %s is delivered, but stays in the spool: %s", parcel.episode_id, error)

    def _put_back(self, parcel: _Parcel, error: Exception) -> None:
        """The API did not take it now: it goes to disk unless the API only says wait, and to the end of the queue.

        At the head, as many episodes as there are posters that fail each time would keep all others back for ever.
        """
        self._metrics.post_retry(reason_of(error))
        limited = isinstance(error, LimitedError)
        asked = asked_wait_seconds(error) if isinstance(error, ApiError) else 0.1
        with self._changed:
            if parcel.done:
                return  # what failed came after the delivery
            if not limited and not self._away:
                logger.warning("episodes go to the spool: %s", error)
            self._away = not limited
            self._in_flight.remove(parcel)
            self._queue.append(parcel)
            self._try_again_at = time.monotonic() + self._backoff.next_seconds(at_least=asked)
            to_spool = [] if limited else [waiting for waiting in self._queue if not waiting.spooled]
            self._changed.notify_all()
        for waiting in to_spool:
            self._to_spool(waiting)

    def _to_spool(self, parcel: _Parcel) -> bool:
        """Whether the episode is on disk now, or need not be."""
        frame = parcel.frame
        try:
            if frame is not None:
                self._spool.put(parcel.episode_id, frame)
        except OSError as error:
            logger.error("the spool cannot be written: %s", error)
            return False  # it stays in memory, where it counts against the limit
        with self._changed:
            parcel.spooled, parcel.frame = True, None
            if parcel.done:  # another poster has delivered it meanwhile
                self._remove_file(parcel)
        return True

    def _set_aside(self, parcel: _Parcel, error: Exception, reason: str) -> None:
        problem = error.problem if isinstance(error, ApiError) else {}
        logger.error("episode %s is set aside: %s", parcel.episode_id, error, extra={"problem": problem})
        self._metrics.dropped(reason)
        why = {"reason": reason, "message": str(error), "problem": problem}
        try:
            self._spool.set_aside(parcel.episode_id, parcel.frame, why)
        except OSError as failure:
            logger.error("the refused episode %s cannot be kept: %s", parcel.episode_id, failure)
        self._done(parcel)
