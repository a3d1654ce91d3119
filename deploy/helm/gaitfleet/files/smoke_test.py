"""What `helm test` runs, in the image of the replay API: create a small run of its own, post an episode, sample it.

The run is the same each time, so that repeated tests leave one run and not many.
"""

import json
import os
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from gaitfleet.batch import decode_batches
from gaitfleet.episode import Episode, EpisodeMetadata, encode_episode
from gaitfleet.experiment import parse_experiment
from gaitfleet.identity import new_episode_id
from gaitfleet.task import make_task
from gaitfleet.trajectory import Trajectory

RUN = "chart-test"
STEPS = 20
TOKEN = Path(os.environ["TOKEN_FILE"]).read_text(encoding="utf-8").strip()
EXPERIMENT = parse_experiment(
    {
        "task": {"environment": "gymnasium:Pendulum-v1"},
        "algorithm": {"name": "sac", "batch_size": 16},
        "replay": {"capacity": 1000, "min_size": STEPS, "samples_per_insert": 16, "error_buffer": 1e6},
        "retention": {"max_transitions": 1000},
    }
)


def call(method: str, path: str, body: bytes = b"", content_type: str = "application/json") -> bytes:
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": content_type}
    request = urllib.request.Request(os.environ["API_URL"] + path, body or None, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            print(f"{method} {path}: {answer.status}", flush=True)
            return answer.read()
    except urllib.error.HTTPError as error:
        raise SystemExit(f"{method} {path}: {error.code} {error.read(2000).decode('utf-8', 'replace')}") from None


def wait_until_ready() -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(os.environ["API_URL"] + "/health/ready", timeout=10):
                return
        except OSError as error:
            if time.monotonic() > deadline:
                raise SystemExit(f"the replay API is not ready: {error}") from None
            time.sleep(2)


def episode() -> Episode:
    random = np.random.default_rng()
    task = make_task(EXPERIMENT.task).description
    metadata = EpisodeMetadata(
        episode_id=new_episode_id(),
        run=RUN,
        worker="helm-test",
        role="random",
        policy_version=0,
        seed=0,
        layout_hash=task.state_layout.hash,
        ending="truncated",
        ending_reason="preempted",
        exploration="uniform",
        started_at=datetime.now(UTC),
        wall_seconds=0.0,
    )
    trajectory = Trajectory(
        state=random.normal(size=(STEPS + 1, len(task.state_layout))).astype(np.float32),
        action=random.uniform(task.action_low, task.action_high, (STEPS, task.action_size)).astype(np.float32),
        reward=random.normal(size=STEPS).astype(np.float32),
        decision=np.ones(STEPS, np.uint8),
    )
    return Episode(metadata, trajectory)


wait_until_ready()
call("PUT", f"/v1/runs/{RUN}", json.dumps(EXPERIMENT.model_dump(mode="json")).encode())
call("POST", f"/v1/runs/{RUN}/episodes", encode_episode(episode()), "application/x-safetensors")
asked = {"batches": 1, "batch_size": 16, "discount": 0.99, "wait_seconds": 20}
(batch,) = decode_batches(bytearray(call("POST", f"/v1/runs/{RUN}/batches", json.dumps(asked).encode())))
if batch.observation.shape != (16, 3):
    raise SystemExit(f"the batch's observations have shape {batch.observation.shape}, must be (16, 3)")
call("GET", f"/v1/runs/{os.environ['RUN']}")  # the run of this release
print("the replay API takes episodes and serves batches; the release's run is there")
