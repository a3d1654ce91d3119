"""What a check says of an episode, and what each check is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Kind = Literal["fault", "behaviour"]


class Finding(BaseModel):
    """One rule that an episode breaks."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="The rule, as `docs/analysis.md` lists it.")
    detail: str = Field(description="Where it is broken worst, and the value found.")
    value: float = Field(description="The worst value, in the unit of the rule's limit.")
    limit: float = Field(description="What the rule allows.")
    count: int = Field(ge=1, description="Values, rows or steps that break the rule.")


@dataclass(frozen=True, slots=True)
class Rule:
    """One check.

    Parameters
    ----------
    name
        What its findings are called.
    kind
        `fault`: the data are wrong. `behaviour`: the data are right, and what the walker does must not pass for
        walking.
    says
        What a finding means, in one line.
    limit
        Threshold.
    unit
        Of the threshold.
    reason
        Why this threshold.
    """

    name: str
    kind: Kind
    says: str
    limit: float
    unit: str
    reason: str

    def broken(self, detail: str, value: float, count: int = 1, *, limit: float | None = None) -> Finding:
        """The finding that this rule is broken."""
        allowed = self.limit if limit is None else limit
        return Finding(name=self.name, detail=detail, value=float(value), limit=float(allowed), count=int(count))
