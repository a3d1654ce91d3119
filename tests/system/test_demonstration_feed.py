"""What a trainer gets of a run with demonstrations, by its own feed from a real API."""

from __future__ import annotations

import numpy as np
import torch
from prometheus_client import CollectorRegistry

from gaitfleet.client import ReplayClient
from gaitfleet.wire import RunDescription
from replay_api.services.transitions import transitions_of
from tests.replay_api.fleet import Fleet, experiment_of
from trainer.feed import BatchFeed, HostBatch
from trainer.main import batch_request
from trainer.metrics import TrainerMetrics
from trainer.priorities import PrioritySender


def test_half_of_what_is_learned_from_is_shown_with_priorities_and_several_steps(fleet: Fleet) -> None:
    """Rewards are those of n steps within an episode; a priority reaches the transition that was shown."""
    demonstrated = fleet.play(seed=1, steps=20)
    fleet.post(demonstrated)
    experiment = experiment_of(
        algorithm={"batch_size": 32, "n_step": 3, "discount": 0.9},
        replay={"sampling": "prioritized", "importance_exponent": 1.0, "priority_exponent": 1.0},
        demonstrations=fleet.run,
    )
    with Fleet(fleet.url, experiment) as new:
        own = new.play(seed=2, steps=20)
        new.post(own)
        description = RunDescription.model_validate(new.get("").json())
        client = ReplayClient(new.url, run=new.run, attempts=1)
        metrics = TrainerMetrics(new.run, CollectorRegistry())
        request = batch_request(description, half_precision=False)
        feed = BatchFeed(client, request, observation_size=3, action_size=1, pinned=False, metrics=metrics)
        feed.start()
        batch = taken(feed)
        for rows, episode in ((slice(batch.own), own), (slice(batch.own, None), demonstrated)):
            made = transitions_of(episode, new.task)
            expected = {
                row.tobytes(): sum(0.9**j * float(r) for j, r in enumerate(made.reward[i : i + 3]))
                for i, row in enumerate(made.observation[:-1])
            }
            observation, reward = batch.transitions.observation[rows].numpy(), batch.transitions.reward[rows].numpy()
            found = [expected[row.tobytes()] for row in observation]
            np.testing.assert_allclose(reward, found, rtol=1e-5)
        assert batch.own == 16
        favourite = int(batch.index[-1])
        sender = PrioritySender(ReplayClient(new.url, run=new.run, attempts=1), metrics)
        sender.start()
        sender.send(np.array([favourite]), torch.tensor([1e6]))
        sender.stop()
        assert feed.stop()
        (last,) = new.batches(batch_size=32, sampling="prioritized", n_step=3)
        assert set(last.index[16:].tolist()) == {favourite}
        assert len(set(last.index[:16].tolist())) > 8


def taken(feed: BatchFeed) -> HostBatch:
    batch = feed.take(30.0)
    assert batch is not None
    return batch
