"""The replay API: keeps experience and checkpoints, and serves both. Never imports torch or opensim."""

__version__ = "0.1.0"
