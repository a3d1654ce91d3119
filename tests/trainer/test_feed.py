"""The feed against a real HTTP server."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from prometheus_client import CollectorRegistry

from gaitfleet.batch import Batch
from gaitfleet.client import ReplayClient
from gaitfleet.errors import CodecError, NotFoundError
from gaitfleet.wire import BatchRequest
from tests.trainer.stub_replay_api import StubReplayApi, numbered_batch
from tests.trainer.toys import describe, small_experiment
from trainer.feed import BatchFeed, HostBatch
from trainer.metrics import TrainerMetrics
from trainer.priorities import PrioritySender


@contextmanager
def feeding(
    batches: Callable[[int, BatchRequest], Batch] = numbered_batch, **requested: bool
) -> Iterator[tuple[BatchFeed, StubReplayApi, CollectorRegistry]]:
    registry = CollectorRegistry()
    request = BatchRequest(batch_size=64, discount=0.5, **requested)
    with StubReplayApi(describe(small_experiment()), batches).serving() as api:
        client = ReplayClient(api.url, run="toy", attempts=1)
        metrics = TrainerMetrics("toy", registry)
        feed = BatchFeed(client, request, observation_size=3, action_size=1, pinned=False, metrics=metrics)
        feed.start()
        try:
            yield feed, api, registry
        finally:
            assert feed.stop()


def take(feed: BatchFeed) -> HostBatch:
    batch = feed.take(10.0)
    assert batch is not None
    return batch


def drain(feed: BatchFeed) -> None:
    """Take and release until nothing comes."""
    while (batch := feed.take(0.5)) is not None:
        feed.release(batch)


def values_of(batch: HostBatch) -> set[float]:
    """Every number that a numbered batch should consist of, brought back to its own number."""
    transitions = batch.transitions
    arrays = [
        batch.index,
        transitions.observation.numpy(),
        transitions.next_observation.numpy() - 0.5,
        -transitions.reward.numpy(),
    ]
    return {float(value) for array in arrays for value in np.unique(array)}


def test_a_batch_never_changes_while_it_is_held() -> None:
    """Some batches are held for long while hundreds pass by; each is still wholly itself when it is released."""
    held: list[tuple[HostBatch, set[float]]] = []
    seen = []
    with feeding() as (feed, _, _):
        for _ in range(400):
            batch = take(feed)
            number = values_of(batch)
            assert len(number) == 1
            seen.append(number.pop())
            held.append((batch, {seen[-1]}))
            if len(held) == 5:
                old, expected = held.pop(len(seen) % 5)
                assert values_of(old) == expected
                feed.release(old)
    assert seen == sorted(set(seen)), "every batch once, in order"


def test_no_batch_is_handed_over_twice_and_none_beyond_the_buffers() -> None:
    """Who takes and never releases gets no more than there are buffers, and stops nobody from stopping."""
    with feeding() as (feed, _, _):
        taken = []
        while (batch := feed.take(0.5)) is not None:
            taken.append(batch)
        assert len({id(batch) for batch in taken}) == len(taken) <= 33
        assert len({values_of(batch).pop() for batch in taken}) == len(taken)


def test_the_limiter_is_waited_for() -> None:
    allowed = threading.Event()
    with feeding() as (feed, api, registry):
        api.limit = lambda request: request.batches if allowed.is_set() else 0
        drain(feed)
        allowed.set()
        take(feed)
        assert registry.get_sample_value("rl_trainer_feed_waits_total", {"run_id": "toy", "reason": "limited"})


def test_the_feed_goes_on_when_the_api_comes_back() -> None:
    with feeding() as (feed, api, registry):
        api.away.set()
        drain(feed)
        api.away.clear()
        assert feed.take(10.0) is not None
        assert registry.get_sample_value("rl_trainer_feed_waits_total", {"run_id": "toy", "reason": "unavailable"})


def test_more_batches_are_asked_for_when_the_learner_waits() -> None:
    asked = []
    with feeding() as (feed, api, _):
        api.limit = lambda request: asked.append(request.batches) or request.batches
        for _ in range(300):
            feed.release(take(feed))
    assert asked[0] == 8
    assert max(asked) == 32


def test_half_precision_batches_arrive_as_float32() -> None:
    with feeding(half_precision=True) as (feed, _, _):
        assert values_of(take(feed)) == {0.0}


def test_a_batch_of_another_task_is_an_error_and_not_broadcast() -> None:
    def narrow(number: int, request: BatchRequest) -> Batch:
        batch = numbered_batch(number, request)
        return dataclasses.replace(batch, action=batch.action[:, :0])

    with feeding(narrow) as (feed, _, _), pytest.raises(CodecError, match=r"action of a sampled batch is \[64, 0\]"):
        drain(feed)


def test_a_run_that_is_gone_is_an_error() -> None:
    with feeding() as (feed, api, _):
        api.description = None
        with pytest.raises(NotFoundError):
            drain(feed)


def test_stopping_does_not_wait_for_anyone() -> None:
    with feeding() as (feed, api, _):
        api.limit = lambda request: 0
        started = time.monotonic()
        assert feed.stop()
        assert time.monotonic() - started < 2.0


def test_priorities_reach_the_api_and_broken_ones_do_not() -> None:
    with StubReplayApi(describe(small_experiment()), numbered_batch).serving() as api:
        client = ReplayClient(api.url, run="toy", attempts=1)
        sender = PrioritySender(client, TrainerMetrics("toy", CollectorRegistry()))
        index = np.array([3, 5, 7])
        sender.send(index, torch.tensor([0.5, torch.nan, 2.0]))
        index[:] = 0  # the feed may fill its buffer again
        sender.start()
        sender.stop(5.0)
        assert [(update.index, update.priority) for update in api.priorities] == [([3, 7], [0.5, 2.0])]
