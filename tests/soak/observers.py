"""Clients of the soak that live in its own process: who posts, and who looks at the heads."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from gaitfleet.client import ReplayClient
from gaitfleet.episode import content_digest, encode_episode
from gaitfleet.errors import ApiError, ApiUnavailableError, LimitedError
from gaitfleet.task import Task
from tests.replay_api.fleet import play
from tests.soak.journal import Journal
from tests.soak.parts import Installation


class Clients:
    """Threads that run until they are stopped."""

    def __init__(self) -> None:
        self.stopping = threading.Event()
        self.refused: list[str] = []
        self._threads: list[threading.Thread] = []

    def start(self, work: Callable[..., None], *arguments: Any) -> None:
        """Let `work` run on a thread; it asks `stopping`."""
        self._threads.append(threading.Thread(target=work, args=(self, *arguments), daemon=True))
        self._threads[-1].start()

    def stop(self) -> None:
        """End all of them. Who posts sees through what it has sent."""
        self.stopping.set()
        for thread in self._threads:
            thread.join(120)
            assert not thread.is_alive(), "a client of the soak does not end"


def post(clients: Clients, installation: Installation, task: Task, number: int, pause_seconds: float) -> None:
    """Post episodes as a worker does: the same bytes again until they are answered."""
    journal, seed = Journal(installation.journal), number * 10_000_000
    with ReplayClient(installation.service.url, run=installation.run, timeout_seconds=15.0, attempts=1) as client:
        while not clients.stopping.is_set():
            seed += 1
            steps = 1 + seed % 50
            body = encode_episode(play(task, installation.run, seed=seed, steps=steps, worker=f"poster-{number}"))
            while True:
                try:
                    receipt = client.post_episode(body)
                except (ApiUnavailableError, LimitedError) as error:
                    if isinstance(error, LimitedError) and clients.stopping.is_set():
                        return  # nothing of it is kept
                    time.sleep(min(0.2, max(0.05, error.retry_after_seconds)))
                except ApiError as error:
                    clients.refused.append(str(error))
                    return
                else:
                    journal.add("episode", client="poster", id=str(receipt.episode_id), digest=content_digest(body))
                    break
            clients.stopping.wait(pause_seconds)


def watch_head(clients: Clients, installation: Installation) -> None:
    """Note the head as the database shows it."""
    journal = Journal(installation.journal)
    options: dict[str, Any] = {"serverSelectionTimeoutMS": 1000, "socketTimeoutMS": 3000}
    client: MongoClient[dict[str, Any]] = MongoClient(installation.database.uri, **options)
    with client:
        runs = client["soak"]["runs"]
        while not clients.stopping.wait(0.2):
            with contextlib.suppress(PyMongoError):
                document = runs.find_one({"_id": installation.run}, {"head": 1})
                if document is not None and (head := document["head"]) is not None:
                    journal.add("head", of="database", step=head["step"], digest=head["digest"])


def watch_policy(clients: Clients, installation: Installation, replica: int) -> None:
    """Note the policy as every process of one replica serves it."""
    journal, etag = Journal(installation.journal), None
    part = installation.parts[f"api-{replica}"]
    with ReplayClient(installation.api_url(replica), run=installation.run, timeout_seconds=5.0, attempts=1) as client:
        while not clients.stopping.is_set():
            before = part.starts
            try:
                answer = client.get_policy(etag, wait_seconds=2.0)
            except ApiError:
                clients.stopping.wait(0.5)
                continue
            if answer is not None and part.starts == before:  # else it may be of either process
                etag = answer.etag
                journal.add("policy", of=f"api-{replica}/{before}", step=answer.version, digest=etag)
