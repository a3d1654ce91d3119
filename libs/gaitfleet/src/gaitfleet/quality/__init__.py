"""Are the data right, and is it walking? Checks of whole episodes, as pure functions.

`docs/analysis.md` lists the rules. The replay API runs them once, when an episode arrives; `gaitfleet analyze` runs
them again on what it reads.
"""

from __future__ import annotations

from gaitfleet.quality.finding import Finding, Rule
from gaitfleet.quality.rules import RULES

__all__ = ["RULES", "Finding", "Rule"]
