"""Plays episodes: one supervisor, and as many simulator processes as there are cores."""

__version__ = "0.1.0"
