"""Multi-step returns and priorities, from the real replay API to the update and back, for every algorithm."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from prometheus_client import CollectorRegistry

from gaitfleet.client import ReplayClient
from gaitfleet.episode import Episode
from tests.replay_api.fleet import Fleet
from tests.trainer.toys import noise_transitions, small_agent, small_experiment
from trainer.feed import BatchFeed
from trainer.main import ExitCode, batch_request, run
from trainer.metrics import TrainerMetrics
from trainer.settings import TrainerSettings

ALGORITHMS = ("sac", "crossq", "td3")
DISCOUNT = 0.5


@pytest.fixture
def fleet(api: str, request: pytest.FixtureRequest) -> Iterator[Fleet]:
    """A run of the algorithm that the test is parametrised with: three-step returns, priorities."""
    replay = {"min_size": 10, "samples_per_insert": 100_000, "sampling": "prioritized", "priority_exponent": 1.0}
    # a critic that hardly learns: what surprises it still does after however many updates
    algorithm = {"n_step": 3, "discount": DISCOUNT, "critic_learning_rate": 1e-9}
    experiment = small_experiment(request.param, algorithm=algorithm, replay=replay)
    with Fleet(api, experiment) as fleet:
        yield fleet


def post(fleet: Fleet, *, seed: int, surprise: float = 0.0) -> Episode:
    """An episode of 40 steps that ends in a fall, with `surprise` added to the reward of one in its middle."""
    episode = fleet.play(seed=seed, steps=40, ending="terminated", ending_reason="environment")
    episode.trajectory.reward[20] += np.float32(surprise)
    assert fleet.post(episode).status_code == 201
    return episode


@pytest.mark.parametrize("fleet", ["sac"], indirect=True)
def test_a_batch_of_the_feed_sums_three_rewards_within_the_episode(fleet: Fleet) -> None:
    reward = fleet.task.reward(post(fleet, seed=1).trajectory)
    with ReplayClient(fleet.url, run=fleet.run) as client:
        request = batch_request(client.run(), half_precision=False)
    feed = BatchFeed(
        ReplayClient(fleet.url, run=fleet.run, attempts=1),
        request,
        observation_size=3,
        action_size=1,
        pinned=False,
        metrics=TrainerMetrics("toy", CollectorRegistry()),
    )
    feed.start()
    batch = feed.take(20.0)
    assert feed.stop()
    assert batch is not None
    expected = {}
    for step in range(40):
        rewards = reward[step : step + 3]
        total = float(sum(DISCOUNT**j * float(r) for j, r in enumerate(rewards)))
        fell = step + 3 >= 40
        expected[np.float32(total).round(3)] = 0.0 if fell else DISCOUNT**3
    for total, discount in zip(batch.transitions.reward.tolist(), batch.transitions.discount.tolist(), strict=True):
        assert discount == expected[np.float32(total).round(3)]


@pytest.mark.parametrize("fleet", ALGORITHMS, indirect=True)
def test_errors_come_back_as_priorities(fleet: Fleet) -> None:
    """Before any update all transitions weigh the same; then the one reward that nothing predicts is drawn most."""
    for seed in range(3):
        post(fleet, seed=seed, surprise=1000.0 if seed == 1 else 0.0)
    assert (fleet.batches(sampling="prioritized", batch_size=256)[0].weight == 1.0).all()
    stop, codes = threading.Event(), []
    settings = TrainerSettings(replay_api_url=fleet.url, run=fleet.run, threads=1, device="cpu")
    registry = CollectorRegistry()
    trainer = threading.Thread(target=lambda: codes.append(run(settings, stop, registry)))
    trainer.start()
    deadline = time.monotonic() + 180
    while np.ptp(fleet.batches(sampling="prioritized", batch_size=256)[0].weight) < 0.5:
        assert time.monotonic() < deadline, "no priority arrived"
        time.sleep(0.1)
    stop.set()
    trainer.join(20)
    assert codes == [ExitCode.CLEAN]
    drawn = fleet.batches(sampling="prioritized", batch_size=4096, n_step=3, discount=DISCOUNT)[0]
    surprising = np.abs(drawn.reward) > 100
    assert surprising.mean() > 0.5, "three of 120 transitions, with almost all of the error"
    assert drawn.weight[surprising].mean() < 0.5 * drawn.weight[~surprising].mean()


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_transition_of_weight_zero_teaches_the_critics_nothing(name: str) -> None:
    weight = torch.ones(32)
    weight[::2] = 0.0
    batch = dataclasses.replace(noise_transitions(0), weight=weight)
    absurd = dataclasses.replace(batch, reward=torch.where(weight > 0, batch.reward, 1e3))
    critics = []
    for transitions in (batch, absurd):
        agent = small_agent(name)
        agent.learn(transitions)
        critics.append(list(agent.algorithm.state.critics.parameters()))
    for one, other in zip(*critics, strict=True):
        torch.testing.assert_close(one, other)
