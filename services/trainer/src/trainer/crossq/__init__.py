"""CrossQ. The paper and the deviations from it are in README.md beside this file."""
