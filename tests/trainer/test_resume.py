"""A checkpoint holds everything: learning goes on as if it had never stopped."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from gaitfleet.checkpoint import decode_checkpoint
from tests.trainer.toys import describe, noise_transitions, small_agent, small_experiment
from trainer.agent import Agent
from trainer.snapshot import CheckpointMismatchError, NonFiniteError, capture, restore

CATEGORICAL = {"critic_bins": 11, "reward_scaling": True}


@pytest.mark.parametrize(
    ("algorithm", "changes"),
    [("sac", {}), ("crossq", {}), ("td3", {}), ("sac", CATEGORICAL), ("td3", {"reward_scaling": True})],
)
@pytest.mark.parametrize("stopped_at", [1, 7])
def test_resumed_learning_equals_uninterrupted_learning_bit_for_bit(
    algorithm: str, changes: dict[str, object], stopped_at: int
) -> None:
    """At step 1 the actor of TD3 has not been updated: its optimiser has no moments yet."""
    uninterrupted = small_agent(algorithm, algorithm=changes)
    for number in range(15):
        uninterrupted.learn(noise_transitions(number))

    first = small_agent(algorithm, algorithm=changes)
    for number in range(stopped_at):
        first.learn(noise_transitions(number))
    second = small_agent(algorithm, algorithm=changes, seed=5)  # everything that its own seed gave it must be replaced
    second.restore(first.snapshot().encode())
    assert second.updates == stopped_at
    for number in range(stopped_at, 15):
        second.learn(noise_transitions(number))

    assert second.snapshot().encode() == uninterrupted.snapshot().encode()


def test_random_numbers_of_another_kind_of_device_go_on_with_a_stream_that_was_not_used_yet() -> None:
    """A GPU's state is its seed and an offset; the seed alone would begin the stream of the run's first update."""

    @dataclass
    class State:
        generator: torch.Generator

    def numbers(state: bytes) -> list[float]:
        restored = State(torch.Generator())
        restore(restored, "x", {"x/generator": np.frombuffer(state, np.uint8)}, {})
        return torch.randn(4, generator=restored.generator).tolist()

    seed = small_experiment().seed
    later, much_later = (np.array([seed, offset], np.int64).tobytes() for offset in (4096, 8192))
    streams = [torch.randn(4, generator=torch.Generator().manual_seed(seed)).tolist(), numbers(later)]
    assert numbers(later) == streams[1]
    assert numbers(much_later) not in streams
    assert streams[0] != streams[1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_what_a_gpu_has_learned_goes_on_on_a_cpu() -> None:
    gpu = torch.device("cuda")
    agent = Agent(describe(small_experiment()), gpu)
    for number in range(3):
        agent.learn(noise_transitions(number).to(gpu))
    successor = small_agent()
    successor.restore(agent.snapshot().encode())
    successor.learn(noise_transitions(3))
    assert successor.updates == 4


def test_a_checkpoint_of_other_networks_is_refused_by_name() -> None:
    small, large = small_agent(), small_agent(algorithm={"actor": {"kind": "simba", "hidden_size": 24, "blocks": 1}})
    small.learn(noise_transitions(0))
    with pytest.raises(CheckpointMismatchError, match=r"actor/input.weight is \[16, 3\] in the checkpoint"):
        large.restore(small.snapshot().encode())
    with pytest.raises(CheckpointMismatchError, match=r"actor/head.weight is \[2, 16\] in the checkpoint"):
        small_agent("td3").restore(small.snapshot().encode())


def test_weights_that_are_not_finite_are_never_encoded() -> None:
    """Neither in the actor, nor anywhere else: a trainer that resumed from it could not learn."""
    for name in ("actor", "target_critics"):
        agent = small_agent()
        agent.learn(noise_transitions(0))
        with torch.no_grad():
            next(getattr(agent.algorithm.state, name).parameters())[0, 0] = torch.nan
        with pytest.raises(NonFiniteError, match=r"weight holds a value that is not finite"):
            agent.snapshot().encode()


def test_a_checkpoint_names_what_it_holds() -> None:
    agent = small_agent()
    agent.learn(noise_transitions(0))
    checkpoint = decode_checkpoint(agent.snapshot().encode())
    assert (checkpoint.step, checkpoint.counters["algorithm/updates"]) == (1, 1)
    assert {
        "algorithm/critics/q1.input.weight",
        "algorithm/target_critics/q2.head.bias",
        "algorithm/log_temperature",
        "algorithm/temperature_optimizer/0/exp_avg_sq",
        "algorithm/generator",
        "normalizer/squares",
    } <= set(checkpoint.trainer_tensors)


def test_state_that_could_not_be_restored_is_refused() -> None:
    @dataclass
    class Forgetful:
        history: list[int]

    with pytest.raises(TypeError, match="x/history is a list"):
        capture(Forgetful([1]), "x")
