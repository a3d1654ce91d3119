"""Twin delayed deep deterministic policy gradient. Papers and deviations are in README.md beside this file."""
