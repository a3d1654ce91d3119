"""What is asked of a figure. Every benchmark records its own under `floors`, and `run.py` prints those of all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Floor:
    """A figure, and the least that it may be, or the most."""

    figure: str
    value: float
    least: float | None = None
    most: float | None = None

    @property
    def held(self) -> bool:
        """Whether it is; a figure that is not a number is missed."""
        return (self.least is None or self.value >= self.least) and (self.most is None or self.value <= self.most)

    @property
    def record(self) -> dict[str, Any]:
        """As it stands in the JSON of a benchmark."""
        bound = {"floor": self.least} if self.most is None else {"ceiling": self.most}
        return {"name": self.figure, "value": self.value} | bound


def missed(floors: Iterable[Floor]) -> int:
    """Exit status of a benchmark: 1 when anything was missed."""
    return int(not all(floor.held for floor in floors))


def held(record: dict[str, Any]) -> bool:
    """Whether a recorded figure is what it must be."""
    return Floor(record["name"], record["value"], record.get("floor"), record.get("ceiling")).held


def table(records: dict[str, list[dict[str, Any]]]) -> str:
    """One line for every figure of every benchmark."""
    lines = [f"{'benchmark':<11}{'figure':<68}{'value':>10}{'floor':>12}"]
    for name, floors in records.items():
        for floor in floors:
            bound = f">= {floor['floor']:g}" if "floor" in floor else f"<= {floor['ceiling']:g}"
            verdict = "held" if held(floor) else "MISSED"
            lines.append(f"{name:<11}{floor['name']:<68}{floor['value']:>10.4g}{bound:>12}  {verdict}")
    return "\n".join(lines)
