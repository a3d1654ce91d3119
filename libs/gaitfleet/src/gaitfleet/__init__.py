"""gaitfleet: distributed reinforcement learning for OpenSim walkers.

This library is the contract between the services: what an episode, a batch, a policy and a checkpoint are, as bytes
and as numpy arrays; the tasks as pure functions; the experiment file; the client of the replay API. It needs numpy
and nothing heavier. See docs/contracts.md.
"""

__version__ = "0.1.0"
