"""Stand-ins for what plays and trains: episodes, checkpoints and requests, made from a seed."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any, Self

import httpx
import numpy as np

from gaitfleet import codec
from gaitfleet.batch import Batch, decode_batches
from gaitfleet.checkpoint import Checkpoint, encode_checkpoint
from gaitfleet.episode import Episode, EpisodeMetadata, encode_episode
from gaitfleet.experiment import Experiment, parse_experiment
from gaitfleet.identity import new_episode_id
from gaitfleet.policy import Linear, PolicyDescription
from gaitfleet.task import Task, make_task
from gaitfleet.trajectory import Trajectory

PENDULUM: dict[str, Any] = {
    "task": {"environment": "gymnasium:Pendulum-v1"},
    "algorithm": {"name": "sac", "batch_size": 16},
    "replay": {"capacity": 1000, "min_size": 10, "samples_per_insert": 8, "error_buffer": 100_000},
    "evaluation": {"episodes": 2},
    "checkpoints": {"keep_last": 2, "keep_every_steps": 1000},
}
"""A small run: the limiter allows almost everything."""


def experiment_of(**changes: Any) -> Experiment:
    """The Pendulum experiment with blocks replaced or extended."""
    data = {name: dict(block) for name, block in PENDULUM.items()}
    for name, block in changes.items():
        data[name] = data.get(name, {}) | block if isinstance(block, dict) else block
    return parse_experiment(data)


def play(task: Task, run: str, *, seed: int = 0, steps: int = 30, **metadata: Any) -> Episode:
    """An episode of noise that keeps every rule of its task."""
    random = np.random.default_rng(seed)
    description = task.description
    low, high = description.action_low, description.action_high
    action = random.uniform(low, high, (steps, description.action_size)).astype(np.float32)
    decision = (np.arange(steps) % description.action_repeat == 0).astype(np.uint8)
    action = np.clip(action[np.arange(steps) // description.action_repeat * description.action_repeat], low, high)
    velocity = task.target_velocities(seed)
    trajectory = Trajectory(
        state=random.normal(size=(steps + 1, len(description.state_layout))).astype(np.float32),
        action=action,
        reward=random.normal(size=steps).astype(np.float32),
        decision=decision,
        target_velocity=None if velocity is None else velocity[: steps + 1],
    )
    known: dict[str, Any] = {
        "episode_id": new_episode_id(),
        "run": run,
        "worker": "worker-0",
        "role": "random",
        "policy_version": 0,
        "seed": seed,
        "layout_hash": description.state_layout.hash,
        "ending": "truncated",
        "ending_reason": "time_limit",
        "exploration": "uniform",
        "started_at": datetime.now(UTC),
        "wall_seconds": 1.5,
    }
    return Episode(EpisodeMetadata(**known | metadata), trajectory)


def checkpoint_of(task: Task, run: str, step: int, *, seed: int = 0) -> bytes:
    """A checkpoint with a linear policy."""
    random = np.random.default_rng(seed)
    sizes = task.description.observation_size, task.description.action_size
    policy = PolicyDescription(
        run=run,
        version=step,
        observation_size=sizes[0],
        action_size=sizes[1],
        observation_hash=task.description.observation_hash,
        observation_clip=5.0,
        layers=(Linear(name="out"),),
        head="deterministic",
    )
    tensors = {
        "normalizer.mean": np.zeros(sizes[0], np.float32),
        "normalizer.std": np.ones(sizes[0], np.float32),
        "out.weight": random.normal(size=sizes[::-1]).astype(np.float32),
        "out.bias": np.zeros(sizes[1], np.float32),
    }
    trainer = {"critic": random.normal(size=(8, 8)).astype(np.float32), "generator": np.arange(16, dtype=np.uint8)}
    return encode_checkpoint(Checkpoint(policy, tensors, trainer, {"updates": step}))


class Fleet:
    """One run and its clients, over HTTP."""

    def __init__(self, url: str, experiment: Experiment | None = None, **headers: str) -> None:
        self.url = url
        self.run = f"test-{uuid.uuid4().hex[:8]}"
        self.experiment = experiment or experiment_of()
        self.task = make_task(self.experiment.task)
        self.path = f"/v1/runs/{self.run}"
        self.http = httpx.Client(base_url=url, timeout=30, headers=headers)
        self.create()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def create(self) -> httpx.Response:
        return self.http.put(self.path, json=self.experiment.model_dump(mode="json"))

    def reconnect(self, url: str) -> None:
        """Speak to another application from now on."""
        self.http.close()
        self.url = url
        self.http = httpx.Client(base_url=url, timeout=30)

    def play(self, **arguments: Any) -> Episode:
        return play(self.task, self.run, **arguments)

    def post(self, episode: Episode | bytes, *, compressed: bool = False, **headers: str) -> httpx.Response:
        body = episode if isinstance(episode, bytes) else encode_episode(episode)
        if compressed:
            body, headers = codec.compress(body), headers | {"Content-Encoding": "zstd"}
        return self.http.post(f"{self.path}/episodes", content=body, headers=headers)

    def sample(self, **request: Any) -> httpx.Response:
        known = {"batches": 1, "batch_size": 16, "discount": 0.5, "wait_seconds": 0}
        return self.http.post(f"{self.path}/batches", json=known | request)

    def batches(self, **request: Any) -> list[Batch]:
        answer = self.sample(**request)
        assert answer.status_code == 200, answer.text
        return decode_batches(answer.content)

    def lease(self, holder: str = "trainer-a", ttl_seconds: float = 30.0, **more: Any) -> httpx.Response:
        return self.http.post(f"{self.path}/lease", json={"holder": holder, "ttl_seconds": ttl_seconds} | more)

    def checkpoint(self, step: int, seed: int = 0) -> bytes:
        return checkpoint_of(self.task, self.run, step, seed=seed)

    def publish(self, step: int, epoch: int, body: bytes | None = None) -> httpx.Response:
        content = self.checkpoint(step) if body is None else body
        return self.http.put(f"{self.path}/checkpoints/{step}", params={"epoch": epoch}, content=content)

    def get(self, path: str, **arguments: Any) -> httpx.Response:
        return self.http.get(f"{self.path}{path}", **arguments)

    def status(self) -> dict[str, Any]:
        answer = self.get("/status")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def events(self, kind: str | None = None) -> list[dict[str, Any]]:
        answer = self.get("/events", params={} if kind is None else {"kind": kind})
        return answer.json()["events"]
