"""Products in bfloat16 change the third digit of an update, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tests.trainer.test_service import Trainer, serving
from tests.trainer.toys import CPU, describe, noise_transitions, small_experiment
from trainer.agent import Agent
from trainer.main import ExitCode

CATEGORICAL = {"critic_bins": 51, "reward_scaling": True}


def agents(name: str, algorithm: dict[str, Any] | None = None) -> tuple[Agent, Agent]:
    """The same agent in float32 and with products in bfloat16."""
    description = describe(small_experiment(name, algorithm=algorithm))
    return Agent(description, CPU), Agent(description, CPU, bf16=True)


@pytest.mark.parametrize(("name", "algorithm"), [("sac", {}), ("sac", CATEGORICAL), ("crossq", {}), ("td3", {})])
def test_losses_differ_by_the_rounding_of_the_products_alone(name: str, algorithm: dict[str, Any]) -> None:
    plain, narrow = agents(name, algorithm)
    same = True
    for number in range(6):
        batch = noise_transitions(number)
        expected, found = plain.learn(batch), narrow.learn(batch)
        assert found.td_error.dtype == torch.float32
        for loss, value in expected.diagnostics.items():
            assert float(found.diagnostics[loss]) == pytest.approx(float(value), rel=0.05, abs=0.05), loss
            same &= bool(found.diagnostics[loss] == value)
    assert not same, "nothing was multiplied in bfloat16"


@pytest.mark.parametrize("name", ["sac", "crossq", "td3"])
def test_what_is_kept_stays_float32_and_goes_on_bit_for_bit(name: str) -> None:
    """A checkpoint of it is one of float32, which an agent without the option takes too."""
    plain, narrow = agents(name)
    for number in range(3):
        narrow.learn(noise_transitions(number))
    snapshot = narrow.snapshot()
    assert not [key for key, tensor in snapshot.trainer_tensors.items() if tensor.dtype == torch.bfloat16]
    assert not [key for key, tensor in snapshot.policy_tensors.items() if tensor.dtype == torch.bfloat16]
    again = Agent(describe(small_experiment(name)), CPU, bf16=True)
    again.restore(snapshot.encode())
    plain.restore(snapshot.encode())
    for number in range(3, 5):
        first, second = narrow.learn(noise_transitions(number)), again.learn(noise_transitions(number))
        assert torch.equal(first.td_error, second.td_error)
    networks: list[nn.Module] = [narrow.algorithm.state.actor, narrow.algorithm.state.critics]
    for parameter in (parameter for network in networks for parameter in network.parameters()):
        assert parameter.dtype == torch.float32
        assert parameter.grad is None or parameter.grad.dtype == torch.float32


def test_the_service_trains_with_it() -> None:
    with serving() as api:
        trainer = Trainer(api, bf16=True)
        api.wait_for(lambda api: len(api.checkpoints) >= 1, 60.0)
        trainer.stop.set()
        assert trainer.ended(30.0) is ExitCode.CLEAN
