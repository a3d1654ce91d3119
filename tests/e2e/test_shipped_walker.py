"""The policy that ships with the project walks, at osim-rl's own settings."""

from __future__ import annotations

from pathlib import Path

import gymnasium
import pytest
import yaml

from gaitfleet.policy import NumpyPolicy

WALK = Path(__file__).parents[2] / "docs" / "walk-2d"


@pytest.mark.e2e
def test_the_shipped_policy_walks_for_the_whole_three_seconds() -> None:
    policy = NumpyPolicy.from_bytes((WALK / "policy.safetensors").read_bytes())
    experiment = yaml.safe_load((WALK / "3-shins.yaml").read_text(encoding="utf-8"))
    walker = gymnasium.make("rollout.gymnasium_walker:gaitfleet/Prosthetics-v0", experiment=experiment, evaluation=True)
    observation, _ = walker.reset(seed=0)
    score, steps, over = 0.0, 0, False
    while not over:
        observation, _, terminated, truncated, info = walker.step(policy.act(observation))
        score, steps, over = score + info["official_reward"], steps + info["simulator_steps"], terminated or truncated
    walker.close()
    assert steps == 300
    assert score > 1000, "standing still scores 0, a dive 400"
