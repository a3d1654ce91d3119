"""Commands that cannot do their work say why on one line, and what to change."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from gaitfleet.command import app


def said(*arguments: object) -> str:
    """What a command that fails says, on one line."""
    result = CliRunner().invoke(app, [*map(str, arguments)])
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit), result.exception
    return " ".join(result.output.split())


@pytest.mark.parametrize("in_the_way", [".", "logs", "lock/"])
def test_a_data_directory_that_cannot_be_used_is_named_with_the_option(tmp_path: Path, in_the_way: str) -> None:
    """A file where the directory or its logs should be; a directory where the lock should be."""
    directory = tmp_path / "data"
    blocked = directory / in_the_way
    blocked.parent.mkdir(exist_ok=True)
    if in_the_way.endswith("/"):
        blocked.mkdir(parents=True)
    else:
        blocked.write_text("")
    line = said("up", "--data-dir", directory)
    assert line.startswith(f"gaitfleet up: cannot {'write' if in_the_way == 'lock/' else 'make'} {blocked}: ")
    assert line.endswith("; choose another with --data-dir")
