"""A run begins with what another has learned: networks, targets, temperature, normaliser; nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from gaitfleet.checkpoint import Checkpoint, decode_checkpoint, encode_checkpoint
from gaitfleet.policy import RECENT_OBSERVATION, NumpyPolicy
from gaitfleet.wire import BatchRequest
from tests.trainer.stub_replay_api import StubReplayApi
from tests.trainer.test_service import Trainer, serving
from tests.trainer.toys import noise_transitions, small_agent
from trainer.agent import REMEMBERED_BATCHES, Agent
from trainer.main import ExitCode
from trainer.snapshot import CheckpointMismatchError

WARM = {"warm_start": {"run": "elder"}}


def learned(name: str = "sac", **changes: Any) -> Agent:
    agent = small_agent(name, **changes)
    agent.run = "elder"
    for number in range(5):
        agent.learn(noise_transitions(number))
    return agent


def snapshot(agent: Agent) -> Checkpoint:
    return decode_checkpoint(agent.snapshot().encode())


def without(checkpoint: Checkpoint, missing: str) -> dict[str, Any]:
    return {name: tensor for name, tensor in checkpoint.trainer_tensors.items() if name != missing}


@pytest.mark.parametrize("algorithm", ["sac", "td3"])
@pytest.mark.parametrize("optimizers", [False, True])
def test_networks_are_taken_and_counters_and_random_numbers_are_not(algorithm: str, optimizers: bool) -> None:
    elder, agent = learned(algorithm), small_agent(algorithm, seed=5)
    generator = agent.algorithm.state.generator.get_state().numpy().copy()
    agent.warm_start(elder.snapshot().encode(), optimizers=optimizers)
    old, new = snapshot(elder), snapshot(agent)
    assert new.counters["warm_start"] == {"run": "elder", "step": 5}
    assert new.step == 1
    for name, tensor in old.trainer_tensors.items():
        if "generator" in name:
            assert new.trainer_tensors[name].tobytes() == generator.tobytes()
        elif "optimizer" in name:
            assert (name in new.trainer_tensors) is optimizers
        else:
            assert new.trainer_tensors[name].tobytes() == tensor.tobytes(), name
    observation = np.array([0.3, -0.2, 1.0], np.float32)
    acts = [NumpyPolicy(c.policy, c.policy_tensors).act(observation).tobytes() for c in (old, new)]
    assert acts[0] == acts[1]

    successor = small_agent(algorithm)
    successor.restore(agent.snapshot().encode())  # the origin is not forgotten
    assert snapshot(successor).counters["warm_start"] == {"run": "elder", "step": 5}


def test_a_policy_for_parameter_noise_is_published_at_once_only_with_what_the_noise_is_measured_on() -> None:
    exploration = {"exploration": {"mix": [{"kind": "parameter", "deviation": 0.2}]}}
    agent = small_agent(**exploration)
    agent.warm_start(learned().snapshot().encode(), optimizers=False)
    assert not agent.publishable
    agent.learn(noise_transitions(0))
    assert agent.publishable

    elder, heir = learned(**exploration), small_agent(**exploration)
    heir.warm_start(elder.snapshot().encode(), optimizers=False)
    assert heir.publishable
    old, new = (snapshot(one).policy_tensors[RECENT_OBSERVATION] for one in (elder, heir))
    assert new.tobytes() == old.tobytes()


def test_other_shapes_are_refused_with_both() -> None:
    wide = learned(algorithm={"critic": {"kind": "simba", "hidden_size": 24, "blocks": 1}})
    with pytest.raises(CheckpointMismatchError, match=r"critics/.* is \[24, 4\] in the checkpoint, here \[16, 4\]"):
        small_agent().warm_start(wide.snapshot().encode(), optimizers=False)


def test_statistics_of_rewards_are_taken_and_begin_anew_where_the_other_run_did_not_scale_them() -> None:
    scaling = {"algorithm": {"reward_scaling": True}}
    elder, heir, beginner = learned(**scaling), small_agent(**scaling), small_agent(**scaling)
    heir.warm_start(elder.snapshot().encode(), optimizers=False)
    beginner.warm_start(learned().snapshot().encode(), optimizers=False)
    counts = [float(agent.reward_scale.count) for agent in (elder, heir, beginner) if agent.reward_scale is not None]
    assert counts == [5 * 32, 5 * 32, 0]
    beginner.learn(noise_transitions(0))
    beginner.snapshot().encode()  # everything is finite

    body = encode_checkpoint(replace(snapshot(elder), trainer_tensors=without(snapshot(elder), "reward_scale/mean")))
    with pytest.raises(CheckpointMismatchError, match="no tensor 'reward_scale/mean'"):
        small_agent(**scaling).warm_start(body, optimizers=False)


def test_observations_of_another_task_fade_from_the_normaliser() -> None:
    """A value that never moved has a deviation soon after it begins to, and not after as many batches again."""
    agent = small_agent(algorithm={"batch_size": 2})
    agent.learn(noise_transitions(0, batch_size=32))
    agent.normalizer.count += 1e9
    agent.enter(1)
    assert float(agent.normalizer.count) == pytest.approx(2 * REMEMBERED_BATCHES)


def test_returns_of_another_task_fade_from_the_scale_of_the_rewards() -> None:
    """After a stage in which returns were twenty times as large, the new ones are spread again.

    In place: a CUDA graph goes on with the tensors that it was recorded with.
    """
    agent = small_agent(algorithm={"reward_scaling": True, "batch_size": 2})
    scale, returns = agent.reward_scale, torch.randn(64, generator=torch.Generator().manual_seed(0))
    assert scale is not None
    addresses = [tensor.data_ptr() for tensor in (scale.count, scale.squares, scale.largest)]
    for _ in range(1000):
        scale.update(100.0 * returns)
    agent.enter(1)
    scale.update(5.0 * returns)
    assert float(scale.scale(5.0 * returns).std()) < 0.06, "the scale has not jumped"
    for _ in range(5000):
        scale.update(5.0 * returns)
    assert float(scale.scale(5.0 * returns).std()) > 0.5
    assert [tensor.data_ptr() for tensor in (scale.count, scale.squares, scale.largest)] == addresses


def test_the_trainer_publishes_it_before_it_learns_and_then_resumes_its_own() -> None:
    elder = learned().snapshot().encode()
    with serving(**WARM) as api:
        api.others["elder"] = elder
        trainer = Trainer(api)
        api.wait_for(lambda api: len(api.checkpoints) >= 2)
        trainer.stop.set()
        assert trainer.ended() is ExitCode.CLEAN
        first, stopped_at = decode_checkpoint(api.checkpoints[1]), max(api.checkpoints)
        tensors = decode_checkpoint(elder).policy_tensors
        assert all(first.policy_tensors[name].tobytes() == tensor.tobytes() for name, tensor in tensors.items())
        del api.others["elder"]
        again = Trainer(api)
        api.wait_for(lambda api: max(api.checkpoints) > stopped_at)
        again.stop.set()
        assert again.ended() is ExitCode.CLEAN
        assert decode_checkpoint(api.checkpoints[max(api.checkpoints)]).counters["warm_start"]["run"] == "elder"


def test_a_trainer_that_waits_for_it_keeps_its_lease_and_leaves_when_another_holds_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("trainer.startup.RETRY_SECONDS", 0.1)
    with serving(**WARM) as api:
        trainer = Trainer(api)
        api.wait_for(lambda api: api.leased >= 3, 10.0)
        assert api.sampled == 0
        api.give_lease_to("another")
        assert trainer.ended() is ExitCode.LEASE_LOST
        assert api.holder == "another"


def test_its_publication_is_tried_again_while_there_is_nothing_to_learn_from_and_never_by_a_successor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("trainer.publisher.RETRY_SECONDS", 0.1)
    asked: list[int] = []

    def refuse_twice(step: int) -> int | None:
        asked.append(step)
        return 429 if len(asked) <= 2 else None

    with serving(**WARM) as api:
        api.refuse = refuse_twice
        train_without_experience(api)
        assert asked == [1, 1, 1]
        train_without_experience(api)
        assert asked == [1, 1, 1]


def test_what_cannot_be_explored_by_is_not_published_before_it_has_learned() -> None:
    with serving(**WARM, exploration={"mix": [{"kind": "parameter", "deviation": 0.2}]}) as api:
        train_without_experience(api)
        assert api.checkpoints == {}


def train_without_experience(api: StubReplayApi) -> None:
    """A trainer that begins, finds nothing to learn from for some time, and is stopped."""
    requests: list[BatchRequest] = []
    api.others["elder"] = learned().snapshot().encode()
    api.limit = lambda request: requests.append(request) or 0  # type: ignore[func-returns-value]
    trainer = Trainer(api)
    api.wait_for(lambda _: len(requests) >= 20)
    trainer.stop.set()
    assert trainer.ended() is ExitCode.CLEAN


def test_a_checkpoint_that_does_not_fit_ends_the_trainer_for_good() -> None:
    wide = learned(algorithm={"actor": {"kind": "simba", "hidden_size": 24, "blocks": 1}})
    with serving(**WARM) as api:
        api.others["elder"] = wide.snapshot().encode()
        assert Trainer(api).ended() is ExitCode.MISCONFIGURED
        assert api.checkpoints == {}
