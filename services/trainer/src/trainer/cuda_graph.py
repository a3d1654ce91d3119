"""A whole update as a CUDA graph: the GPU is told once what to do, and from then on only when.

An update of such networks is hundreds of kernels of some microseconds each, and a host that launches them one by one
takes longer than the GPU does. A graph is launched as one. What it asks for: nothing in an update waits for the GPU,
tensors that live longer than an update never move (both are tested on the CPU, too), and inputs are where they were.
https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
"""

from __future__ import annotations

from collections import Counter
from dataclasses import fields
from typing import Any, cast

import torch

from trainer.agent import Agent
from trainer.transitions import Transitions, UpdateResult

WARM_UPS = 3
"""Updates of a kind that are done before one is recorded, as many as in PyTorch's recipe: libraries allocate their
workspaces in the first ones, and optimisers their moments."""


class StaticUpdate:
    """`Agent.learn` from buffers that never move; on a GPU recorded, and from then on replayed.

    The first updates of each kind (with and without one of the actor) are ordinary ones. On a CPU all are.

    Parameters
    ----------
    agent
        What learns; restored already, as restoring makes new optimiser states.
    """

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._batch: Transitions | None = None
        self._done: Counter[bool] = Counter()
        self._recorded: dict[bool, tuple[torch.cuda.CUDAGraph, UpdateResult]] = {}

    def learn(self, batch: Transitions) -> UpdateResult:
        """One update from a batch on the agent's device, as `Agent.learn`. The next call overwrites the diagnostics."""
        static = self._fill(batch)
        kind = self._agent.algorithm.next_update_has_actor()
        self._done[kind] += 1
        if self._agent.device.type != "cuda":
            return self._agent.learn(static)
        if self._done[kind] <= WARM_UPS:
            return self._warm_up(static)
        if kind not in self._recorded:
            self._recorded[kind] = self._record(static)
        graph, result = self._recorded[kind]
        graph.replay()
        self._agent.algorithm.state.updates += 1
        # read by another thread, later than the next replay
        return UpdateResult(result.td_error.clone(), result.diagnostics)

    def _fill(self, batch: Transitions) -> Transitions:
        if self._batch is None:
            self._batch = Transitions(**{field.name: getattr(batch, field.name).clone() for field in fields(batch)})
        else:
            targets = [getattr(self._batch, field.name) for field in fields(batch)]
            torch._foreach_copy_(targets, [getattr(batch, field.name) for field in fields(batch)])
        return self._batch

    def _warm_up(self, static: Transitions) -> UpdateResult:
        """An ordinary update on another stream than the default one, which cannot be recorded."""
        current = torch.cuda.current_stream(static.reward.device)
        stream = torch.cuda.Stream(static.reward.device)  # type: ignore[no-untyped-call]
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            result = self._agent.learn(static)
        current.wait_stream(stream)
        return result

    def _record(self, static: Transitions) -> tuple[torch.cuda.CUDAGraph, UpdateResult]:
        """The graph of an update, which is not done by it; and where its results will be."""
        state = self._agent.algorithm.state
        for optimizer in (getattr(state, field.name) for field in fields(cast(Any, state))):
            if isinstance(optimizer, torch.optim.Optimizer):
                for group in optimizer.param_groups:
                    group["capturable"] = True  # a fused one is; torch wants to be told
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(state.generator)
        updates = state.updates
        # only of this thread: the feed may pin memory meanwhile, and priorities are read
        with torch.cuda.device(static.reward.device), torch.cuda.graph(graph, capture_error_mode="thread_local"):
            result = self._agent.learn(static)
        state.updates = updates
        return graph, result
