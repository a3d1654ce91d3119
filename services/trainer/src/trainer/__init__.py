"""The trainer: samples batches from the replay API, learns, and publishes checkpoints to it."""

__version__ = "0.1.0"
