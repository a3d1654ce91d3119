"""Torch and numpy evaluate the same policy; layers and statistics are what they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gaitfleet.experiment import CrossqSettings, NetworkSettings
from gaitfleet.policy import NumpyPolicy, PolicyDescription
from tests.trainer.toys import CPU, noise_transitions, small_agent
from trainer import linear
from trainer.crossq.config import CrossqConfig
from trainer.crossq.networks import EPSILON, BatchRenorm, by_running_statistics, folded, renormalized
from trainer.networks import TwinCritics, describe_layers, frozen, gradient_norm, make_network, polyak_update
from trainer.normalizer import SMALLEST_STD, Normalizer, RewardScale
from trainer.squashed_gaussian import sample_action


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(["mlp", "simba"]),
    head=st.sampled_from(["deterministic", "tanh_normal"]),
    hidden=st.integers(1, 140),
    blocks=st.integers(1, 3),
    sizes=st.tuples(st.integers(1, 180), st.integers(1, 19)),
    seed=st.integers(0, 1 << 31),
)
def test_torch_and_numpy_agree_on_an_actor(
    kind: str, head: str, hidden: int, blocks: int, sizes: tuple[int, int], seed: int
) -> None:
    observation_size, action_size = sizes
    torch.manual_seed(seed)
    shape = NetworkSettings(kind=kind, hidden_size=hidden, blocks=blocks)
    network = make_network(shape, observation_size, action_size * (2 if head == "tanh_normal" else 1))
    normalizer = Normalizer.empty(observation_size, 5.0, CPU)
    normalizer.merge(torch.randn(64, observation_size) * 3 + 1)
    mean, std = normalizer.parameters()
    description = PolicyDescription(
        run="toy",
        version=1,
        observation_size=observation_size,
        action_size=action_size,
        observation_hash="",
        observation_clip=5.0,
        layers=describe_layers(network),
        head=head,
    )
    tensors = network.state_dict() | {"normalizer.mean": mean, "normalizer.std": std}
    policy = NumpyPolicy(description, {name: tensor.numpy() for name, tensor in tensors.items()})

    observation, noise = torch.randn(16, observation_size) * 5, torch.randn(16, action_size)
    with torch.no_grad():
        (normalized,) = normalizer.normalize(observation)
        if head == "tanh_normal":
            action, _ = sample_action(network, normalized, noise)
            ours = policy.sample(observation.numpy(), noise.numpy())
        else:
            action, ours = network(normalized).tanh(), policy.act(observation.numpy())
    np.testing.assert_allclose(ours, action.numpy(), atol=1e-5)


@pytest.mark.parametrize("name", ["sac", "crossq", "td3"])
def test_an_agent_exports_the_actor_that_it_learned(name: str) -> None:
    agent = small_agent(name)
    for number in range(20):
        agent.learn(noise_transitions(number))
    snapshot = agent.snapshot()
    policy = NumpyPolicy(
        snapshot.description, {name: tensor.numpy() for name, tensor in snapshot.policy_tensors.items()}
    )
    observation = noise_transitions(99).observation
    with torch.no_grad():
        (normalized,) = agent.normalizer.normalize(observation)
        output = agent.algorithm.state.actor.eval()(normalized)
    mean = output if name == "td3" else output.chunk(2, dim=-1)[0]
    assert (snapshot.step, policy.description.head) == (20, "deterministic" if name == "td3" else "tanh_normal")
    np.testing.assert_allclose(policy.act(observation.numpy()), mean.tanh().numpy(), atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(width=st.integers(1, 140), blocks=st.integers(1, 3), seed=st.integers(0, 1 << 31))
def test_a_folded_actor_computes_what_the_renormalised_one_does(width: int, blocks: int, seed: int) -> None:
    """Far from the start: every scale, shift and statistic is somewhere else, and some units never fire."""
    torch.manual_seed(seed)
    shape = NetworkSettings(kind="mlp", hidden_size=width, blocks=blocks)
    config = CrossqConfig.resolve(CrossqSettings(actor=shape), observation_size=7, action_size=2)
    network = renormalized(make_network(shape, 7, 4, output_gain=0.1), config)
    with torch.no_grad():
        for module in network:
            if isinstance(module, BatchRenorm):
                for tensor in (module.weight, module.bias, module.running_mean):
                    tensor.normal_()
                module.running_variance.exponential_().mul_(torch.rand_like(module.running_variance) > 0.2)
        observation = torch.randn(16, 7)
        with by_running_statistics(network):
            expected = network(observation)
        plain = folded(network)
        assert [layer.kind for layer in describe_layers(plain)] == ["linear", "relu"] * blocks + ["linear"]
        scale = float(expected.abs().max().clamp_min(1.0))
        torch.testing.assert_close(plain(observation) / scale, expected / scale, atol=1e-5, rtol=0)


def test_batch_renormalisation_is_that_of_its_paper_once_it_is_warm() -> None:
    """Ioffe 2017, algorithm 1, written down again in numpy: first plain, then corrected and bounded."""
    renorm, random = BatchRenorm(3, momentum=0.9, warmup_updates=2), np.random.default_rng(0)
    mean, variance = np.zeros(3), np.ones(3)
    for update in range(6):
        x = random.normal([0.0, 5.0, -40.0], [1.0, 0.01, 9.0], (64, 3)).astype(np.float32)
        std, running_std = np.sqrt(x.var(0) + EPSILON), np.sqrt(variance + EPSILON)
        r, d = np.clip(std / running_std, 1 / 3, 3), np.clip((x.mean(0) - mean) / running_std, -5, 5)
        expected = (x - x.mean(0)) / std * (r if update >= 2 else 1) + (d if update >= 2 else 0)
        np.testing.assert_allclose(renorm(torch.from_numpy(x)).detach().numpy(), expected, atol=1e-3)
        mean, variance = 0.9 * mean + 0.1 * x.mean(0), 0.9 * variance + 0.1 * x.var(0)
    np.testing.assert_allclose(renorm.running_mean.numpy(), mean, rtol=1e-4)
    np.testing.assert_allclose(renorm.running_variance.numpy(), variance, rtol=1e-3, atol=1e-6)


def test_observations_are_published_where_workers_perturb_parameters() -> None:
    mix = [{"kind": "sampled"}, {"kind": "parameter", "deviation": 0.2}]
    for agent, published in ((small_agent(exploration={"mix": mix}), True), (small_agent(), False)):
        agent.learn(noise_transitions(0, batch_size=96))
        tensors = agent.snapshot().policy_tensors
        assert ("recent.observation" in tensors) is published
        if published:
            torch.testing.assert_close(tensors["recent.observation"], noise_transitions(0, 96).observation[:64])


def test_a_snapshot_does_not_change_while_learning_goes_on() -> None:
    agent = small_agent("sac")
    agent.learn(noise_transitions(0))
    snapshot = agent.snapshot()
    body = snapshot.encode()
    agent.learn(noise_transitions(1))
    assert snapshot.encode() == body


def test_an_unknown_layer_cannot_be_exported() -> None:
    with pytest.raises(TypeError, match="'0' is a Softmax"):
        describe_layers(nn.Sequential(nn.Softmax(-1)))


def test_the_fast_linear_layer_gives_the_results_and_gradients_of_the_ordinary_one() -> None:
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        pytest.skip("this build of torch has no oneDNN")
    torch.manual_seed(0)
    inputs = [torch.randn(shape, requires_grad=True) for shape in ((64, 174), (256, 174), (256,))]
    fast, ordinary = linear._OneDnnLinear.apply(*inputs), nn.functional.linear(*inputs)
    torch.testing.assert_close(fast, ordinary, rtol=1e-5, atol=1e-4)
    gradient = torch.randn(64, 256)
    for ours, theirs in zip(
        torch.autograd.grad(fast, inputs, gradient), torch.autograd.grad(ordinary, inputs, gradient), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)


def test_frozen_critics_pass_gradients_on_without_getting_any() -> None:
    critics = TwinCritics(NetworkSettings(hidden_size=8), 3, 2)
    action = torch.zeros(4, 2, requires_grad=True)
    with frozen(critics):
        critics(torch.ones(4, 3), action).sum().backward()
    assert action.grad is not None
    assert action.grad.abs().sum() > 0
    assert gradient_norm(critics) == 0.0
    assert all(parameter.requires_grad for parameter in critics.parameters())


def test_polyak_update_moves_the_targets_by_its_rate() -> None:
    source, target = nn.Linear(2, 2), nn.Linear(2, 2)
    expected = 0.9 * target.weight.detach() + 0.1 * source.weight.detach()
    polyak_update(target, source, 0.1)
    torch.testing.assert_close(target.weight.detach(), expected)


def test_normalizer_has_the_statistics_of_everything_it_saw() -> None:
    """An offset a million times the deviation must not eat the variance."""
    random = np.random.default_rng(0)
    batches = [random.normal([0.0, 4e3, -20.0], [1.0, 0.05, 300.0], (50, 3)).astype(np.float32) for _ in range(20)]
    normalizer = Normalizer.empty(3, 5.0, CPU)
    for batch in batches:
        normalizer.merge(torch.from_numpy(batch))
    mean, std = normalizer.parameters()
    everything = np.concatenate(batches).astype(np.float64)
    np.testing.assert_allclose(mean.numpy(), everything.mean(0), rtol=1e-6)
    np.testing.assert_allclose(std.numpy(), everything.std(0), rtol=1e-6)


def test_a_constant_feature_is_normalised_to_zero() -> None:
    normalizer = Normalizer.empty(2, 5.0, CPU)
    observation = torch.stack([torch.full((32,), 0.1), torch.randn(32)], dim=-1)
    for _ in range(3):
        normalizer.merge(observation)
    (normalized,) = normalizer.normalize(observation)
    assert (normalized[:, 0] == 0.0).all()
    assert normalizer.parameters()[1][0] == SMALLEST_STD


def test_scaled_returns_have_a_deviation_of_one_and_stay_within_the_bound() -> None:
    random = np.random.default_rng(0)
    returns = random.normal(30.0, 200.0, (20, 64)).astype(np.float32)
    scale = RewardScale.empty(5.0, CPU)
    for batch in returns:
        scale.update(torch.from_numpy(batch))
    one = float(scale.scale(torch.ones(1)))
    assert one == pytest.approx(1 / returns.std(), rel=1e-4)
    scale.update(torch.tensor([-4000.0]))
    assert float(scale.scale(torch.ones(1))) == pytest.approx(5 / 4000)


def test_rewards_that_are_all_zero_stay_zero() -> None:
    scale = RewardScale.empty(5.0, CPU)
    scale.update(torch.zeros(32))
    assert (scale.scale(torch.zeros(32)) == 0.0).all()
