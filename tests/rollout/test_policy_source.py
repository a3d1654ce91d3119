"""The newest policy that can be used."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
from fake_replay_api import FakeApi
from scenario import pendulum, simba_policy

from gaitfleet.policy import NumpyPolicy
from rollout.connection import Connection
from rollout.policy_source import PolicyMismatchError, PolicySource, check_fits
from rollout.schedule import TrainingSchedule
from rollout.settings import RolloutSettings


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with FakeApi(pendulum()).serving() as api:
        yield api


@pytest.fixture
def source(api: FakeApi) -> Iterator[PolicySource]:
    source = PolicySource(Connection(RolloutSettings(run="test", replay_api_url=api.url)), api.task.description)
    source.start()
    yield source
    source.stop()
    api.publish(99, b"ends the long poll")


def version(source: PolicySource) -> int:
    policy = source.newest()
    return 0 if policy is None else policy.version


def test_policies_arrive_as_they_are_published(api: FakeApi, source: PolicySource) -> None:
    assert source.newest() is None
    assert source.age_seconds() == 0.0
    for number in (1, 5):
        api.publish(number, simba_policy(api.task.description, number))
        api.wait_for(lambda _, number=number: version(source) == number)  # type: ignore[misc]
    assert source.age_seconds() < 60.0


def test_a_damaged_policy_is_left_out(api: FakeApi, source: PolicySource) -> None:
    api.publish(1, simba_policy(api.task.description, 1))
    api.wait_for(lambda _: version(source) == 1)
    api.publish(2, b"damaged")
    api.publish(3, simba_policy(api.task.description, 3))
    api.wait_for(lambda _: version(source) == 3)
    assert source.mismatch is None


def test_an_older_policy_of_a_replica_that_lags_is_not_taken(api: FakeApi, source: PolicySource) -> None:
    api.publish(5, simba_policy(api.task.description, 5))
    api.wait_for(lambda _: version(source) == 5)
    asked = api.policy_requests
    api.publish(4, simba_policy(api.task.description, 4))
    api.wait_for(lambda api: api.policy_requests > asked + 1)
    assert version(source) == 5
    api.publish(6, simba_policy(api.task.description, 6))
    api.wait_for(lambda _: version(source) == 6)


def test_an_older_policy_is_taken_once_the_api_has_lost_those_after_it(api: FakeApi, source: PolicySource) -> None:
    api.publish(5, simba_policy(api.task.description, 5))
    api.wait_for(lambda _: version(source) == 5)
    source.forget(6)
    assert version(source) == 5, "that another was refused says nothing of this one"
    api.publish(3, simba_policy(api.task.description, 3))
    source.forget(5)
    api.wait_for(lambda _: version(source) == 3)


def test_nothing_is_played_at_random_while_there_may_be_a_policy(api: FakeApi) -> None:
    source = PolicySource(Connection(RolloutSettings(run="test", replay_api_url=api.url)), api.task.description)
    schedule = TrainingSchedule(api.experiment, "worker", source.newest, unpublished=source.unpublished)
    api.policy_unread.set()
    source.start()
    api.wait_for(lambda api: api.policy_requests >= 2)
    assert schedule.next(0) is None
    api.policy_unread.clear()
    api.wait_for(lambda _: source.unpublished())
    random = schedule.next(0)
    api.publish(5, simba_policy(api.task.description, 5))
    api.wait_for(lambda _: version(source) == 5)
    trained = schedule.next(0)
    source.stop()
    assert random is not None
    assert trained is not None
    assert (random.role, trained.role) == ("random", "train")


def test_a_policy_of_another_task_is_a_clear_error(api: FakeApi, source: PolicySource) -> None:
    api.publish(4, simba_policy(api.task.description, 4, observation_hash="0123456789abcdef"))
    api.wait_for(lambda _: source.mismatch is not None)
    assert source.newest() is None
    assert "observation_hash of policy 4 is '0123456789abcdef', the task's" in str(source.mismatch)


def test_sizes_are_held_against_the_task(api: FakeApi) -> None:
    task = api.task.description
    check_fits(NumpyPolicy.from_bytes(simba_policy(task)), task)
    wide = NumpyPolicy.from_bytes(simba_policy(dataclasses.replace(task, action_names=("a", "b"))))
    with pytest.raises(PolicyMismatchError, match="action_size of policy 1 is 2, the task's 1"):
        check_fits(wide, task)
