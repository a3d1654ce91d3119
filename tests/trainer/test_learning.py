"""Every algorithm learns what can be checked, and computes what its paper says."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gaitfleet.experiment import CrossqSettings, NetworkSettings, SacSettings, Td3Settings
from tests.trainer.toys import CPU, noise_transitions, small_agent
from trainer.algorithms import Algorithm, make_algorithm
from trainer.sac import losses as sac_losses
from trainer.squashed_gaussian import log_tanh_derivative, sample_action
from trainer.td3 import losses as td3_losses
from trainer.transitions import Transitions

ALGORITHMS = {"sac": SacSettings, "crossq": CrossqSettings, "td3": Td3Settings}
LEARNERS = (*ALGORITHMS, "categorical sac")
MLP = NetworkSettings(kind="mlp", hidden_size=32, blocks=2)


def make(name: str, *, observation_size: int, action_size: int, seed: int = 0) -> Algorithm:
    targets = {} if name == "crossq" else {"target_update_rate": 0.02}
    rates = {"actor_learning_rate": 3e-3, "critic_learning_rate": 3e-3, **targets}
    if name == "categorical sac":
        name, rates = "sac", rates | {"critic_bins": 51, "reward_scaling": True, "value_bound": 10.0}
    settings = ALGORITHMS[name](actor=MLP, critic=MLP, **rates)
    return make_algorithm(settings, observation_size=observation_size, action_size=action_size, seed=seed, device=CPU)


def best_action(algorithm: Algorithm, observation: Tensor) -> Tensor:
    with torch.no_grad():
        output: Tensor = algorithm.published_actor()(observation)
    mean = output.chunk(2, dim=-1)[0] if algorithm.head == "tanh_normal" else output
    return mean.tanh()


def bandit(generator: torch.Generator, act: Callable[[Tensor], Tensor]) -> Transitions:
    """One step: the reward is highest where the action equals the observation."""
    observation = torch.rand((128, 2), generator=generator) * 1.6 - 0.8
    action = act(observation)
    reward = -(action - observation).square().sum(-1)
    return Transitions(observation, action, reward, torch.zeros(128), observation, torch.ones(128), reward)


def point_on_a_line(generator: torch.Generator, act: Callable[[Tensor], Tensor]) -> Transitions:
    """A point that is moved by at most 0.2 and should be at the origin: the best first move depends on what follows."""
    position = torch.rand((128, 1), generator=generator) * 4 - 2
    action = act(position)
    after = (position + 0.2 * action).clamp(-2, 2)
    reward = -(after.abs() >= 0.15).squeeze(-1).float()
    return Transitions(position, action, reward, torch.full((128,), 0.9), after, torch.ones(128), reward)


@pytest.mark.parametrize("name", LEARNERS)
def test_learns_the_best_action_of_every_context(name: str) -> None:
    algorithm, generator = make(name, observation_size=2, action_size=2), torch.Generator().manual_seed(0)
    for _ in range(500):
        algorithm.learn(bandit(generator, lambda o: torch.rand(o.shape, generator=generator) * 2 - 1))
    reward = bandit(generator, lambda o: best_action(algorithm, o)).reward.mean()
    assert reward > -0.06, f"a random policy gets -1.1, the best 0; this one gets {reward:.3f}"


@pytest.mark.parametrize("name", LEARNERS)
def test_learns_to_move_to_a_reward_that_comes_later(name: str) -> None:
    algorithm, generator = make(name, observation_size=1, action_size=1), torch.Generator().manual_seed(0)
    for _ in range(700):
        algorithm.learn(point_on_a_line(generator, lambda o: torch.rand(o.shape, generator=generator) * 2 - 1))
    position = torch.linspace(-1.0, 1.0, 41)[:, None]
    for _ in range(12):
        position = (position + 0.2 * best_action(algorithm, position)).clamp(-2, 2)
    arrived = (position.abs() < 0.15).float().mean()
    assert arrived > 0.9, f"after twelve moves {arrived:.0%} of the points are at the origin"


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_same_seed_gives_the_same_weights(name: str) -> None:
    agents = [small_agent(name) for _ in range(2)]
    for agent in agents:
        for number in range(20):
            agent.learn(noise_transitions(number))
    bodies = [agent.snapshot().encode() for agent in agents]
    assert bodies[0] == bodies[1]
    other = small_agent(name, seed=1)
    for number in range(20):
        other.learn(noise_transitions(number))
    assert other.snapshot().encode() != bodies[0]


def test_sac_bootstraps_at_a_time_limit_and_not_after_a_fall() -> None:
    """Row 0 reached its time limit, row 1 fell, row 2 sums three decisions: the discount is used as it comes."""
    target = sac_losses.target_q_values(
        reward=torch.tensor([1.0, 1.0, 2.5]),
        discount=torch.tensor([0.9, 0.0, 0.9**3]),
        next_q_values=torch.tensor([[10.0, 10.0, 4.0], [8.0, 8.0, 6.0]]),
        next_log_prob=torch.tensor([-2.0, -2.0, 1.0]),
        temperature=torch.tensor(0.5),
    )
    by_hand = [1.0 + 0.9 * (8.0 + 0.5 * 2.0), 1.0, 2.5 + 0.729 * (4.0 - 0.5 * 1.0)]
    torch.testing.assert_close(target, torch.tensor(by_hand))


def test_td3_bootstraps_at_a_time_limit_and_not_after_a_fall() -> None:
    """The rows of the test above, without an entropy."""
    target = td3_losses.target_q_values(
        reward=torch.tensor([1.0, 1.0, 2.5]),
        discount=torch.tensor([0.9, 0.0, 0.9**3]),
        next_q_values=torch.tensor([[10.0, 10.0, 4.0], [8.0, 8.0, 6.0]]),
    )
    torch.testing.assert_close(target, torch.tensor([1.0 + 0.9 * 8.0, 1.0, 2.5 + 0.729 * 4.0]))


@pytest.mark.parametrize("name", ["sac", "td3"])
def test_an_update_regresses_to_those_targets(name: str) -> None:
    """With every discount 0, whatever follows is ignored: the error is exactly that to the reward.

    In CrossQ it is not: the next pairs take part in the statistics.
    """
    algorithm = make(name, observation_size=3, action_size=1)
    batch = dataclasses.replace(noise_transitions(0), discount=torch.zeros(32))
    with torch.no_grad():
        values = algorithm.state.critics(batch.observation, batch.action)
    result = algorithm.learn(batch)
    torch.testing.assert_close(result.td_error, (values - batch.reward).abs().mean(0))
    assert not result.td_error.requires_grad


def test_a_target_distribution_is_the_lower_critic_s_moved_and_projected() -> None:
    """Held against a loop over bins: a fall, a time limit, values beyond both ends."""
    generator = torch.Generator().manual_seed(0)
    support = torch.linspace(-2.0, 2.0, 9)
    reward, bonus = torch.tensor([0.3, -0.7, 3.0, -9.0]), torch.tensor([0.1, 0.0, 0.4, 0.2])
    discount = torch.tensor([0.9, 0.0, 0.9, 0.9**3])
    following = torch.randn((2, 4, 9), generator=generator).softmax(-1)
    target = sac_losses.target_distributions(reward, discount, following, support, bonus)
    for row in range(4):
        lower = min(following[:, row], key=lambda distribution: float(distribution @ support))
        expected = torch.zeros(9)
        for value, share in zip(support, lower, strict=True):
            moved = float((reward[row] + discount[row] * (value + bonus[row])).clamp(-2.0, 2.0))
            expected += share * (1 - (moved - support).abs() / 0.5).clamp_min(0.0)
        torch.testing.assert_close(target[row], expected, atol=1e-5, rtol=0)


def test_a_reward_that_is_not_a_number_makes_the_target_so_and_no_other() -> None:
    """It is found in the loss, and ends the trainer as learning that has diverged."""
    support, following = torch.linspace(-2.0, 2.0, 9), torch.full((2, 2, 9), 1 / 9)
    reward = torch.tensor([torch.nan, 0.3])
    target = sac_losses.target_distributions(reward, torch.full((2,), 0.9), following, support, torch.zeros(2))
    assert target.isnan().any(-1).tolist() == [True, False]


def test_a_distribution_that_is_the_target_cannot_be_improved() -> None:
    logits = torch.randn((2, 3, 5), generator=torch.Generator().manual_seed(0)).repeat(1, 1, 1)
    logits[1] = logits[0]
    logits.requires_grad_()
    target = logits[0].detach().softmax(-1)
    sac_losses.distribution_loss(logits, target, torch.tensor([1.0, 0.5, 0.0])).backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, torch.zeros_like(logits), atol=1e-6, rtol=0)


@pytest.mark.parametrize("losses", [sac_losses, td3_losses])
def test_importance_weights_scale_what_the_critics_learn_from_a_transition(losses: type) -> None:
    q_values = torch.zeros((2, 2), requires_grad=True)
    losses.critic_loss(q_values, torch.tensor([1.0, 1.0]), torch.tensor([1.0, 0.25])).backward()
    gradient = q_values.grad
    assert gradient is not None
    torch.testing.assert_close(gradient[:, 1], 0.25 * gradient[:, 0])


def test_log_probability_is_that_of_a_squashed_gaussian_even_where_tanh_is_one() -> None:
    mean, log_std = torch.tensor([[0.3, -9.0, 12.0]]), torch.tensor([[-1.0, 0.5, 1.0]])
    noise = torch.tensor([[0.7, -1.0, 1.5]])
    actor = torch.nn.Identity()
    action, log_prob = sample_action(actor, torch.cat([mean, log_std], dim=-1), noise)

    exact = mean.double() + log_std.double().exp() * noise.double()
    normal = torch.distributions.Normal(mean.double(), log_std.double().exp())
    derivative = 4.0 / (exact.exp() + (-exact).exp()).square()  # 1 - tanh(x)**2 = 1 / cosh(x)**2
    torch.testing.assert_close(
        log_prob.double(), (normal.log_prob(exact) - derivative.log()).sum(-1), rtol=1e-5, atol=1e-4
    )
    torch.testing.assert_close(action, exact.tanh().float())
    assert torch.isfinite(log_tanh_derivative(torch.tensor([-500.0, 500.0]))).all()


@pytest.mark.parametrize(("name", "expected"), [("td3", [False, True] * 3), ("crossq", [False, False, True] * 2)])
def test_the_actor_moves_once_in_its_delay(name: str, expected: list[bool]) -> None:
    agent = small_agent(name)
    moved = []
    for number in range(6):
        before = [parameter.clone() for parameter in agent.algorithm.state.actor.parameters()]
        agent.learn(noise_transitions(number))
        after = list(agent.algorithm.state.actor.parameters())
        moved.append(any(not torch.equal(a, b) for a, b in zip(before, after, strict=True)))
    assert moved == expected


def test_crossq_normalises_current_and_next_pairs_by_the_statistics_of_both() -> None:
    """The running mean of the first layer's input moves by a hundredth of the way to the mean over both halves."""
    agent = small_agent("crossq")
    batch = noise_transitions(0)
    batch = dataclasses.replace(batch, observation=batch.observation + 3.0, next_observation=batch.next_observation - 1)
    agent.algorithm.learn(batch)
    mean = torch.cat([batch.observation, batch.next_observation]).mean(0)
    renorm = agent.algorithm.state.critics.q1.get_submodule("hidden_0_renorm")
    torch.testing.assert_close(renorm.running_mean[:3], 0.01 * mean)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_first_policy_excites_as_much_as_it_is_asked_to(name: str) -> None:
    agent = small_agent(name, algorithm={"initial_excitation": 0.2})
    action = best_action(agent.algorithm, noise_transitions(0).observation)
    torch.testing.assert_close((action + 1) / 2, torch.full_like(action, 0.2), atol=0.02, rtol=0)


def test_sac_steers_the_entropy_to_its_target() -> None:
    agent = small_agent("sac", algorithm={"temperature_learning_rate": 0.02, "actor_learning_rate": 3e-3})
    entropies = [float(agent.learn(noise_transitions(number)).diagnostics["entropy"]) for number in range(400)]
    assert sum(entropies[-200:]) / 200 == pytest.approx(-0.5, abs=0.2)
