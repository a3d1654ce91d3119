"""Reverb as a contender of `bench_sample`: a server process and a client that reads batches, both in this interpreter.

Run by the interpreter of a virtual environment of its own that holds ``dm-reverb[tensorflow]``. It writes a line for
every line of standard input, which says how long to sample: transitions per second.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from typing import Any

import numpy as np
import reverb
import tensorflow as tf

BATCH_SIZE = 256
IN_FLIGHT = 512
"""Samples that the client asks for ahead."""


def serve(observation_size: int, action_size: int, transitions: int, port: Any) -> None:
    """A uniform table that never limits; its items are two steps, of which the second gives the next observation."""
    table = reverb.Table(
        name="replay",
        sampler=reverb.selectors.Uniform(),
        remover=reverb.selectors.Fifo(),
        max_size=transitions,
        rate_limiter=reverb.rate_limiters.MinSize(1),
        signature={
            "observation": tf.TensorSpec([2, observation_size], tf.float32),
            "action": tf.TensorSpec([1, action_size], tf.float32),
            "reward": tf.TensorSpec([1], tf.float32),
            "discount": tf.TensorSpec([1], tf.float32),
        },
    )
    server = reverb.Server([table])
    port.value = server.port
    server.wait()


def fill(client: reverb.Client, observation_size: int, action_size: int, transitions: int) -> None:
    """Transitions as two steps of a trajectory, the observation stored once."""
    random = np.random.default_rng(0)
    with client.trajectory_writer(num_keep_alive_refs=2) as writer:
        for step in range(transitions + 1):
            writer.append(
                {
                    "observation": random.normal(size=observation_size).astype(np.float32),
                    "action": random.random(action_size).astype(np.float32),
                    "reward": np.float32(0),
                    "discount": np.float32(1),
                }
            )
            if step:
                history = writer.history
                trajectory = {
                    "observation": history["observation"][-2:],
                    "action": history["action"][-2:-1],
                    "reward": history["reward"][-2:-1],
                    "discount": history["discount"][-2:-1],
                }
                writer.create_item("replay", priority=1.0, trajectory=trajectory)
        writer.end_episode()


def main() -> None:
    observation_size, action_size, transitions = map(int, sys.argv[1:])
    context = multiprocessing.get_context("spawn")
    port = context.Value("i", 0)
    context.Process(target=serve, args=(observation_size, action_size, transitions, port), daemon=True).start()
    while not port.value:
        time.sleep(0.1)
    address = f"127.0.0.1:{port.value}"
    fill(reverb.Client(address), observation_size, action_size, transitions)
    dataset = reverb.TrajectoryDataset.from_table_signature(
        address, "replay", max_in_flight_samples_per_worker=IN_FLIGHT
    )
    batches = iter(dataset.batch(BATCH_SIZE).prefetch(2))
    next(batches)
    print("ready", flush=True)
    for line in sys.stdin:
        count, began = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - began) < float(line):
            next(batches)
            count += BATCH_SIZE
        print(count / elapsed, flush=True)


if __name__ == "__main__":
    main()
