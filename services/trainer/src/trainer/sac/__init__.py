"""Soft actor-critic. Papers and deviations are in README.md beside this file."""
