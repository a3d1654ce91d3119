"""A trainer that is killed with SIGKILL and started again learns what it would have learned."""

from __future__ import annotations

import multiprocessing
import threading

import numpy as np
import pytest
import torch
from prometheus_client import CollectorRegistry

from gaitfleet.checkpoint import decode_checkpoint
from gaitfleet.wire import RunDescription
from tests.trainer.stub_replay_api import StubReplayApi, random_batch
from tests.trainer.toys import CPU, as_transitions, describe, small_experiment
from trainer.agent import Agent
from trainer.main import batch_request, run
from trainer.settings import TrainerSettings

# A fork has torch loaded already; what it runs is the whole trainer with its own threads and connections.
FORK = multiprocessing.get_context("fork")


def train_until(api: StubReplayApi, step: int) -> int:
    """A trainer process that is killed once it has published `step` or later; the newest step."""
    settings = TrainerSettings(replay_api_url=api.url, run="toy", threads=1, device="cpu")
    process = FORK.Process(target=run, args=(settings, threading.Event(), CollectorRegistry()))
    process.start()
    try:
        api.wait_for(lambda api: max(api.checkpoints, default=0) >= step, 60.0)
    finally:
        process.kill()
        process.join()
    api.give_lease_to(None)
    return max(api.checkpoints)


def learned_without_a_break(description: RunDescription, updates: int) -> bytes:
    """The checkpoint of an agent that learned from the first so many batches."""
    agent, request = Agent(description, CPU), batch_request(description, half_precision=False)
    torch.set_flush_denormal(True)  # as the trainer does
    try:
        for number in range(updates):
            agent.learn(as_transitions(random_batch(number, request)))
    finally:
        torch.set_flush_denormal(False)
    return agent.snapshot().encode()


@pytest.mark.parametrize(
    ("name", "algorithm"),
    [("sac", {"critic_bins": 11, "reward_scaling": True}), ("crossq", {"renorm_warmup_updates": 10}), ("td3", {})],
)
def test_a_killed_trainer_goes_on_bit_for_bit(name: str, algorithm: dict[str, object]) -> None:
    """The same batches in the same order: the second process is given those that follow its checkpoint's."""
    mix = [{"kind": "none"}, {"kind": "parameter", "deviation": 0.1}]
    description = describe(
        small_experiment(name, algorithm=algorithm, checkpoints={"every_updates": 15}, exploration={"mix": mix})
    )
    with StubReplayApi(description, random_batch).serving() as api:
        killed_at = train_until(api, 30)
        api.sampled = killed_at
        ended_at = train_until(api, killed_at + 30)
        body = api.checkpoints[ended_at]
    resumed, whole = decode_checkpoint(body), decode_checkpoint(learned_without_a_break(description, ended_at))
    assert resumed.counters == whole.counters
    assert resumed.policy == whole.policy
    for ours, expected in (
        (resumed.policy_tensors, whole.policy_tensors),
        (resumed.trainer_tensors, whole.trainer_tensors),
    ):
        assert ours.keys() == expected.keys()
        for key, tensor in ours.items():
            np.testing.assert_array_equal(tensor, expected[key], err_msg=key)
