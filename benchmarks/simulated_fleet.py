"""Rollout workers without simulators, many to a process: the real client, a recorded episode."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field
from multiprocessing.queues import Queue
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event

import httpx
from recorded import Copies

from gaitfleet import codec
from gaitfleet.client import Backoff, ReplayClient
from gaitfleet.errors import ApiError, ApiUnavailableError, LimitedError

LONG_POLL_SECONDS = 20.0
"""As the rollout service asks."""

POLLS_PER_SECOND = 40
"""Polls that do not wait, to see how long one takes."""

SLOW_POLL_SECONDS = 0.05
"""Most of them must be quicker."""


@dataclass(frozen=True, slots=True)
class Post:
    """An episode that was acknowledged: when, how long the request took, and how often it was told to wait before."""

    episode_id: str
    at: float
    seconds: float
    refusals: int


@dataclass
class Journal:
    """What the workers of one process have seen; times are the machine's monotonic clock.

    Parameters
    ----------
    polls
        When a poll that does not wait was answered, and after how long.
    arrivals
        Version of a policy, and when a worker had it.
    """

    posts: list[Post] = field(default_factory=list)
    polls: list[tuple[float, float]] = field(default_factory=list)
    arrivals: list[tuple[int, float]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Orders:
    """What all processes of a fleet share.

    Parameters
    ----------
    workers
        Of the whole fleet.
    pace
        Episodes a second of the whole fleet; a worker that is behind posts as fast as it is answered.
    due
        Episodes that were to be posted so far.
    polls, slow_polls
        Polls that did not wait so far, and those that took longer than `SLOW_POLL_SECONDS`.
    """

    url: str
    run: str
    copies: Copies
    workers: int
    pace: Synchronized[float]
    due: Synchronized[int]
    polls: Synchronized[int]
    slow_polls: Synchronized[int]
    stop: Event


def play(orders: Orders, numbers: range, journals: Queue[Journal]) -> None:
    """The workers of one process, until they are stopped; a journal at the end."""
    journal = Journal()
    threads = [
        threading.Thread(target=work, args=(orders, number, journal), daemon=True)
        for number in numbers
        for work in (_post, _follow)
    ]
    for thread in threads:
        thread.start()
    orders.stop.wait()
    for thread in threads:
        thread.join(LONG_POLL_SECONDS + 10)
    journals.put(journal)


def probe(orders: Orders, journals: Queue[Journal]) -> None:
    """Poll again and again, in a process of its own: hundreds of workers to a process wait for its interpreter, too."""
    journal, client, etag = Journal(), _client(orders), None
    due = time.monotonic()
    while not orders.stop.wait(max(0.0, due - time.monotonic())):
        due = max(due + 1 / POLLS_PER_SECOND, time.monotonic())
        began = time.monotonic()
        try:
            answer = client.get_policy(etag)
        except ApiError as error:
            journal.failures.append(repr(error))
            continue
        if answer is not None:  # what brings a policy is not counted
            etag = answer.etag
            continue
        now = time.monotonic()
        journal.polls.append((now, now - began))
        orders.polls.value += 1
        orders.slow_polls.value += now - began > SLOW_POLL_SECONDS
    journals.put(journal)


def _client(orders: Orders) -> ReplayClient:
    # a thousand clients in few processes: certificates, which this address does not need, are not read by each of them
    return ReplayClient(orders.url, run=orders.run, attempts=1, transport=httpx.HTTPTransport(verify=False))


def _post(orders: Orders, number: int, journal: Journal) -> None:
    """Episodes at the worker's pace."""
    client, backoff = _client(orders), Backoff()
    since = time.monotonic()
    while _due(orders, since):
        since = time.monotonic()
        frame = codec.compress(orders.copies.body(worker=f"worker-{number}"))
        refusals = 0
        while not orders.stop.is_set():
            began = time.monotonic()
            try:
                receipt = client.post_frame(frame)
            except (LimitedError, ApiUnavailableError) as error:
                refusals += 1
                orders.stop.wait(backoff.next_seconds(at_least=error.retry_after_seconds))
            except ApiError as error:
                journal.failures.append(repr(error))
                break
            else:
                now = time.monotonic()
                journal.posts.append(Post(str(receipt.episode_id), now, now - began, refusals))
                backoff.reset()
                break


def _due(orders: Orders, since: float) -> bool:
    """Wait for the next episode of a worker that began the last one at `since`; False when the fleet stops.

    Episodes come as in a Poisson process, so that the pace of the fleet is the same at every moment, whatever it was
    before.
    """
    left = random.expovariate(1.0)  # in intervals of the mean length, which may change meanwhile
    while True:
        interval = orders.workers / orders.pace.value
        left -= (time.monotonic() - since) / interval
        since = time.monotonic()
        if left <= 0:
            break
        orders.stop.wait(min(left * interval, 1.0))
        if orders.stop.is_set():
            return False
    with orders.due.get_lock():
        orders.due.value += 1
    return True


def _follow(orders: Orders, number: int, journal: Journal) -> None:
    """Wait for policies, as the rollout service does."""
    client, backoff, etag = _client(orders), Backoff(), None
    orders.stop.wait(random.random() * 5)
    while not orders.stop.is_set():
        try:
            answer = client.get_policy(etag, wait_seconds=LONG_POLL_SECONDS)
        except ApiError as error:
            journal.failures.append(repr(error))
            orders.stop.wait(backoff.next_seconds(at_least=0.1))
            continue
        if answer is not None:
            etag = answer.etag
            journal.arrivals.append((answer.version, time.monotonic()))
        backoff.reset()
