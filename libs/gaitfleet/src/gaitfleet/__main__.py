"""`python -m gaitfleet` is the `gaitfleet` command."""

from gaitfleet.command import app

app()
