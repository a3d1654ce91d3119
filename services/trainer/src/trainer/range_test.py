"""A learning-rate range test (Smith 2017, https://arxiv.org/abs/1506.01186) on batches of a running API.

    GAITFLEET_TRAINER_RUN=walk python -m trainer.range_test --steps 200

It starts from the run's newest checkpoint, or from its start, in memory alone: nothing is published, and no lease is
taken, so a trainer may go on meanwhile. The batches that it samples count towards the run's samples per insert.
`gaitfleet lr-find` starts this and draws the plot.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from dataclasses import asdict, dataclass, fields

import torch
from pydantic import ValidationError

from gaitfleet.batch import Batch, decode_batches
from gaitfleet.client import ReplayClient
from gaitfleet.errors import GaitfleetError, LimitedError
from gaitfleet.service_settings import explain
from trainer.agent import Agent
from trainer.main import batch_request
from trainer.settings import PREFIX, TrainerSettings
from trainer.transitions import Transitions

SMOOTHING = 0.95
"""What the smoothed loss keeps of itself in a step; corrected for its start, as Adam's moments are."""

DIVERGED = 4.0
"""The test ends where the smoothed loss is so many times its least."""

BELOW_MINIMUM = 10.0
"""The suggestion is so much below the rate of the least loss, which is at the edge of divergence."""

PATIENCE_SECONDS = 60.0
"""How long the limiter is waited for."""


@dataclass(frozen=True)
class RangeTest:
    """What a range test found.

    Parameters
    ----------
    from_step
        Updates of the checkpoint that it started from; 0 for none.
    learning_rate
        Of the critics, one a step, growing. The actor's grows in the ratio that the experiment gives the two.
    loss
        The critics' loss before each step.
    smoothed
        The same, averaged.
    diverged
        Whether it ended because the loss grew, and not at the highest rate.
    suggestion
        A tenth of the rate at the least smoothed loss.
    """

    from_step: int
    learning_rate: list[float]
    loss: list[float]
    smoothed: list[float]
    diverged: bool
    suggestion: float


def range_test(agent: Agent, batches: list[Transitions], *, lowest: float, highest: float, steps: int) -> RangeTest:
    """Learn with a learning rate that grows geometrically; changes `agent`.

    Parameters
    ----------
    batches
        Used in turn, again and again.
    lowest, highest
        Learning rates of the critics at the first and at the last step.
    """
    settings, from_step = agent.experiment.algorithm, agent.updates
    actor_ratio = settings.actor_learning_rate / settings.critic_learning_rate
    state = agent.algorithm.state
    rates: list[float] = []
    losses: list[float] = []
    smoothed: list[float] = []
    average, diverged = 0.0, False
    for step in range(steps):
        rate = lowest * (highest / lowest) ** (step / max(steps - 1, 1))
        _set_rate(state.critic_optimizer, rate)
        _set_rate(state.actor_optimizer, rate * actor_ratio)
        loss = float(agent.learn(batches[step % len(batches)]).diagnostics["critic_loss"])
        if not math.isfinite(loss):
            diverged = True
            break
        average = SMOOTHING * average + (1.0 - SMOOTHING) * loss
        rates.append(rate)
        losses.append(loss)
        smoothed.append(average / (1.0 - SMOOTHING ** (step + 1)))
        if smoothed[-1] > DIVERGED * min(smoothed):
            diverged = True
            break
    if not rates:
        raise GaitfleetError(f"the loss is not finite at the lowest learning rate, {lowest:g}")
    best = rates[smoothed.index(min(smoothed))]
    return RangeTest(from_step, rates, losses, smoothed, diverged, best / BELOW_MINIMUM)


def _set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def sample(client: ReplayClient, count: int) -> list[Transitions]:
    """So many batches of the run, on the host.

    Raises
    ------
    LimitedError
        When the limiter does not allow them in time.
    """
    description = client.run()
    request = batch_request(description, half_precision=False).model_copy(update={"wait_seconds": 5.0})
    transitions: list[Transitions] = []
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(transitions) < count:
        wanted = min(32, count - len(transitions))
        try:
            body = client.sample_batches(request.model_copy(update={"batches": wanted}))
        except LimitedError:
            if time.monotonic() > deadline:
                raise
            continue
        transitions += [_as_tensors(batch) for batch in decode_batches(body)]
    return transitions


def _as_tensors(batch: Batch) -> Transitions:
    return Transitions(
        **{field.name: torch.from_numpy(getattr(batch, field.name).copy()) for field in fields(Transitions)}
    )


def main() -> int:
    """The command: settings as the trainer's, the result as JSON on standard output."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200, help="updates; default 200")
    parser.add_argument("--batches", type=int, default=64, help="batches sampled, used in turn; default 64")
    parser.add_argument("--lowest", type=float, default=1e-6, help="first learning rate; default 1e-6")
    parser.add_argument("--highest", type=float, default=1.0, help="last learning rate; default 1")
    options = parser.parse_args()
    try:
        settings = TrainerSettings()
        torch.set_num_threads(settings.threads)
        device, token = settings.torch_device(), settings.read_token()
        with ReplayClient(settings.replay_api_url, run=settings.run, token=token, attempts=2) as client:
            agent = Agent(client.run(), device, bf16=settings.bf16)
            body = client.download_checkpoint("newest")
            if body is not None:
                agent.restore(body)
            batches = [batch.to(device) for batch in sample(client, options.batches)]
        found = range_test(agent, batches, lowest=options.lowest, highest=options.highest, steps=options.steps)
    except ValidationError as error:
        sys.stderr.write(explain(error, PREFIX) + "\n")
        return 2
    except (GaitfleetError, OSError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(json.dumps(asdict(found)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
