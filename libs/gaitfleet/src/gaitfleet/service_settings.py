"""What is said of the settings of a service that are wrong."""

from __future__ import annotations

from pydantic import ValidationError


def explain(error: ValidationError, prefix: str) -> str:
    """One line for each setting that is wrong: its environment variable, why, and the value unless that is a secret.

    Parameters
    ----------
    prefix
        What the names of the service's variables begin with.
    """
    lines = []
    for item in error.errors():
        name = "".join(str(part) for part in item["loc"])
        shown = isinstance(item["input"], str) and not name.startswith("token")
        value = f" (got {item['input']!r})" if shown else ""
        lines.append(f"{prefix}{name.upper()}: {item['msg'].removeprefix('Value error, ')}{value}")
    return "\n".join(lines)
