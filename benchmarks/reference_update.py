"""CleanRL's updates of SAC and TD3, transcribed to functions of a batch: what `bench_update.py` measures against.

Networks, losses, optimisers and their order are those of `cleanrl/sac_continuous_action.py` and
`cleanrl/td3_continuous_action.py` (https://github.com/vwxyzjn/cleanrl, MIT licence): two hidden layers of 256 with
ReLU, torch's own initialisation and default Adam, the mean squared error, target networks moved parameter by parameter.
Left out are the environment, the buffer and the logging.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.transitions import Transitions

HIDDEN = 256


class QNetwork(nn.Module):
    def __init__(self, observation_size: int, action_size: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(observation_size + action_size, HIDDEN)
        self.fc2 = nn.Linear(HIDDEN, HIDDEN)
        self.fc3 = nn.Linear(HIDDEN, 1)

    def forward(self, x: Tensor, a: Tensor) -> Tensor:
        x = functional.relu(self.fc1(torch.cat([x, a], 1)))
        return self.fc3(functional.relu(self.fc2(x)))


class SacActor(nn.Module):
    def __init__(self, observation_size: int, action_size: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(observation_size, HIDDEN)
        self.fc2 = nn.Linear(HIDDEN, HIDDEN)
        self.fc_mean = nn.Linear(HIDDEN, action_size)
        self.fc_logstd = nn.Linear(HIDDEN, action_size)

    def get_action(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = functional.relu(self.fc2(functional.relu(self.fc1(x))))
        mean, log_std = self.fc_mean(x), torch.tanh(self.fc_logstd(x))
        log_std = -5 + 0.5 * 7 * (log_std + 1)
        normal = torch.distributions.Normal(mean, log_std.exp())
        x_t = normal.rsample()
        y_t = torch.tanh(x_t)
        log_prob = normal.log_prob(x_t) - torch.log(1 - y_t.pow(2) + 1e-6)
        return y_t, log_prob.sum(1, keepdim=True)


class Td3Actor(nn.Module):
    def __init__(self, observation_size: int, action_size: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(observation_size, HIDDEN)
        self.fc2 = nn.Linear(HIDDEN, HIDDEN)
        self.fc_mu = nn.Linear(HIDDEN, action_size)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.fc_mu(functional.relu(self.fc2(functional.relu(self.fc1(x))))))


def _follow(source: nn.Module, target: nn.Module, tau: float = 0.005) -> None:
    for param, target_param in zip(source.parameters(), target.parameters(), strict=True):
        target_param.data.copy_(tau * param.data + (1 - tau) * target_param.data)


class ReferenceSac:
    """CleanRL's SAC with a learned temperature; its actor is updated as often as its critics, as here."""

    def __init__(self, observation_size: int, action_size: int, device: torch.device) -> None:
        sizes = observation_size, action_size
        self.actor = SacActor(*sizes).to(device)
        self.qf1, self.qf2 = QNetwork(*sizes).to(device), QNetwork(*sizes).to(device)
        self.qf1_target, self.qf2_target = copy.deepcopy(self.qf1), copy.deepcopy(self.qf2)
        self.q_optimizer = torch.optim.Adam([*self.qf1.parameters(), *self.qf2.parameters()], lr=1e-3)
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), lr=3e-4)
        self.log_alpha = torch.zeros(1, requires_grad=True, device=device)
        self.a_optimizer = torch.optim.Adam([self.log_alpha], lr=1e-3)
        self.target_entropy = -float(action_size)

    def update(self, data: Transitions) -> None:
        alpha = self.log_alpha.exp().detach()
        with torch.no_grad():
            next_actions, next_log_pi = self.actor.get_action(data.next_observation)
            qf1_next = self.qf1_target(data.next_observation, next_actions)
            qf2_next = self.qf2_target(data.next_observation, next_actions)
            min_qf_next = torch.min(qf1_next, qf2_next) - alpha * next_log_pi
            next_q_value = data.reward + data.discount * min_qf_next.view(-1)
        qf1_loss = functional.mse_loss(self.qf1(data.observation, data.action).view(-1), next_q_value)
        qf2_loss = functional.mse_loss(self.qf2(data.observation, data.action).view(-1), next_q_value)
        self.q_optimizer.zero_grad()
        (qf1_loss + qf2_loss).backward()
        self.q_optimizer.step()

        pi, log_pi = self.actor.get_action(data.observation)
        min_qf_pi = torch.min(self.qf1(data.observation, pi), self.qf2(data.observation, pi))
        self.actor_optimizer.zero_grad()
        ((alpha * log_pi) - min_qf_pi).mean().backward()
        self.actor_optimizer.step()

        with torch.no_grad():
            _, log_pi = self.actor.get_action(data.observation)
        self.a_optimizer.zero_grad()
        (-self.log_alpha.exp() * (log_pi + self.target_entropy)).mean().backward()
        self.a_optimizer.step()

        _follow(self.qf1, self.qf1_target)
        _follow(self.qf2, self.qf2_target)


class ReferenceTd3:
    """CleanRL's TD3."""

    def __init__(self, observation_size: int, action_size: int, device: torch.device) -> None:
        sizes = observation_size, action_size
        self.actor = Td3Actor(*sizes).to(device)
        self.qf1, self.qf2 = QNetwork(*sizes).to(device), QNetwork(*sizes).to(device)
        self.target_actor = copy.deepcopy(self.actor)
        self.qf1_target, self.qf2_target = copy.deepcopy(self.qf1), copy.deepcopy(self.qf2)
        self.q_optimizer = torch.optim.Adam([*self.qf1.parameters(), *self.qf2.parameters()], lr=3e-4)
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), lr=3e-4)
        self.updates = 0

    def update(self, data: Transitions) -> None:
        with torch.no_grad():
            noise = (torch.randn_like(data.action) * 0.2).clamp(-0.5, 0.5)
            next_actions = (self.target_actor(data.next_observation) + noise).clamp(-1, 1)
            qf1_next = self.qf1_target(data.next_observation, next_actions)
            qf2_next = self.qf2_target(data.next_observation, next_actions)
            next_q_value = data.reward + data.discount * torch.min(qf1_next, qf2_next).view(-1)
        qf1_loss = functional.mse_loss(self.qf1(data.observation, data.action).view(-1), next_q_value)
        qf2_loss = functional.mse_loss(self.qf2(data.observation, data.action).view(-1), next_q_value)
        self.q_optimizer.zero_grad()
        (qf1_loss + qf2_loss).backward()
        self.q_optimizer.step()
        self.updates += 1
        if self.updates % 2 == 0:
            actor_loss = -self.qf1(data.observation, self.actor(data.observation)).mean()
            self.actor_optimizer.zero_grad()
            actor_loss.backward()
            self.actor_optimizer.step()
            _follow(self.actor, self.target_actor)
            _follow(self.qf1, self.qf1_target)
            _follow(self.qf2, self.qf2_target)
