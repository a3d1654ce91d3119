"""What a CUDA graph of an update asks for holds on a CPU, too; on a GPU replayed updates are those done one by one."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.trainer.toys import CPU, describe, noise_transitions, small_agent, small_experiment
from trainer.agent import Agent
from trainer.cuda_graph import StaticUpdate
from trainer.settings import TrainerSettings
from trainer.snapshot import _live_tensors

CATEGORICAL = {"critic_bins": 51, "reward_scaling": True}
ALGORITHMS = [("sac", {}), ("sac", CATEGORICAL), ("crossq", {}), ("td3", {"reward_scaling": True})]
WAITING = ("_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "equal", "unique", "_unique2")
"""Operations whose result the host must have, or whose shape depends on values: on a GPU the host waits for them."""

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")


class NobodyWaits(TorchDispatchMode):
    """Refuses what makes a host wait for its GPU, `item()` and `bool()` of a tensor among it."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert name not in WAITING, f"the host would wait for {name}"
        return func(*args, **(kwargs or {}))


def lasting_tensors(agent: Agent) -> Iterator[tuple[str, Tensor]]:
    """Everything that an update changes and the next one goes on with."""
    for part in (agent.algorithm.state, agent.normalizer, agent.reward_scale):
        for field in dataclasses.fields(part) if part is not None else ():  # type: ignore[arg-type]
            value = getattr(part, field.name)
            if isinstance(value, Tensor | torch.nn.Module | torch.optim.Optimizer):
                yield from _live_tensors(field.name, value).items()


@pytest.mark.parametrize(("name", "algorithm"), ALGORITHMS)
def test_no_update_reads_a_number_back(name: str, algorithm: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """In none of the first updates, and in none of the later ones."""
    agent = small_agent(name, algorithm=algorithm)
    batches = [noise_transitions(number) for number in range(8)]

    def refuse(*_: object) -> None:
        raise AssertionError("the host would wait")

    with monkeypatch.context() as patch, NobodyWaits():
        for reader in ("cpu", "numpy", "tolist"):
            patch.setattr(Tensor, reader, refuse)
        for batch in batches:
            agent.learn(batch)
    assert agent.updates == 8
    with NobodyWaits(), pytest.raises(AssertionError, match="the host would wait"):
        float(agent.normalizer.count)


@pytest.mark.parametrize(("name", "algorithm"), ALGORITHMS)
def test_what_lasts_longer_than_an_update_never_moves(name: str, algorithm: dict[str, Any]) -> None:
    agent = small_agent(name, algorithm=algorithm)
    for number in range(6):
        agent.learn(noise_transitions(number))
    before = {key: (tensor.data_ptr(), tensor.clone()) for key, tensor in lasting_tensors(agent)}
    for number in range(6, 12):
        agent.learn(noise_transitions(number))
    agent.enter(1)
    after = dict(lasting_tensors(agent))
    assert [key for key, tensor in after.items() if before[key][0] != tensor.data_ptr()] == []
    assert not torch.equal(before["count"][1], after["count"])


@pytest.mark.parametrize(("name", "algorithm"), ALGORITHMS)
def test_learning_from_a_buffer_that_stays_is_the_same_bit_for_bit(name: str, algorithm: dict[str, Any]) -> None:
    plain, static = small_agent(name, algorithm=algorithm), small_agent(name, algorithm=algorithm)
    update = StaticUpdate(static).learn
    for number in range(8):
        batch = noise_transitions(number)
        expected, found = plain.learn(batch), update(batch)
        assert torch.equal(expected.td_error, found.td_error)
        assert expected.diagnostics.keys() == found.diagnostics.keys()
    assert static.snapshot().encode() == plain.snapshot().encode()


def test_without_a_gpu_the_option_is_refused() -> None:
    with pytest.raises(ValueError, match="cuda_graphs is true, but the trainer computes on cpu"):
        TrainerSettings(run="toy", device="cpu", cuda_graphs=True).torch_device()


@needs_gpu
@pytest.mark.parametrize(("name", "algorithm"), ALGORITHMS)
def test_replayed_updates_are_those_done_one_by_one(name: str, algorithm: dict[str, Any]) -> None:
    gpu = torch.device("cuda")
    description = describe(small_experiment(name, algorithm=algorithm))
    plain, replayed = Agent(description, gpu), Agent(description, gpu)
    update = StaticUpdate(replayed).learn
    for number in range(30):
        batch = noise_transitions(number).to(gpu)
        expected, found = plain.learn(batch), update(batch)
        assert expected.diagnostics.keys() == found.diagnostics.keys()
        torch.testing.assert_close(found.td_error, expected.td_error, rtol=1e-3, atol=1e-3)
    assert replayed.updates == plain.updates == 30
    first, second = plain.snapshot(), replayed.snapshot()
    torch.testing.assert_close(second.trainer_tensors, first.trainer_tensors, rtol=1e-2, atol=1e-3)
    successor = Agent(description, CPU)
    successor.restore(second.encode())
    assert successor.updates == 30


@needs_gpu
@pytest.mark.parametrize(("name", "algorithm"), ALGORITHMS)
def test_cuda_itself_finds_nothing_that_waits_in_an_update(name: str, algorithm: dict[str, Any]) -> None:
    gpu = torch.device("cuda")
    agent = Agent(describe(small_experiment(name, algorithm=algorithm)), gpu)
    batches = [noise_transitions(number).to(gpu) for number in range(8)]
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in batches:
            agent.learn(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
