"""Writes the table of values in the chart's README from values.schema.json (meanings) and values.yaml (defaults).

python deploy/helm/values_table.py            # rewrites deploy/helm/gaitfleet/README.md
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parent / "gaitfleet"
README = CHART / "README.md"
BEGIN, END = "<!-- values: begin (values_table.py writes this) -->", "<!-- values: end -->"
LONGEST_DEFAULT = 80


def rows(values: dict[str, Any], schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, str, str]]:
    """Key, default and meaning of every value that has no values of its own."""
    for key, described in schema["properties"].items():
        value = values.get(key)
        if isinstance(value, dict) and described.get("additionalProperties") is False:
            yield from rows(value, described, f"{path}{key}.")
        else:
            yield f"{path}{key}", _shown(value), described["description"]


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return f"`{text}`" if len(text) <= LONGEST_DEFAULT else "see values.yaml"


def _line(key: str, default: str, meaning: str) -> str:
    escaped = meaning.replace("|", "\\|").replace("<", "&lt;")
    return f"| `{key}` | {default} | {escaped} |"


def table() -> str:
    """The table as Markdown."""
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    lines = [_line(*row) for row in rows(values, schema)]
    return "\n".join(["| value | default | meaning |", "|---|---|---|", *lines])


def with_table(readme: str) -> str:
    """The text with its table as it must be."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}"


if __name__ == "__main__":
    README.write_text(with_table(README.read_text(encoding="utf-8")), encoding="utf-8")
