"""What `gaitfleet doctor` finds, as the lines in which its parts tell each other.

Database and bucket are looked at by the replay API's own code, OpenSim by the rollout's, the GPU by the trainer's: each
in a process of its own (``python -m replay_api.check`` and so on) that prints one JSON object a line. So the doctor
imports none of their libraries, and a crash of one is a finding.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Finding(BaseModel):
    """One line of the doctor's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="What was looked at.")
    outcome: Literal["pass", "fail", "not here"] = Field(
        description="`not here`: it is not installed or not there, and nothing that was asked for needs it."
    )
    detail: str = Field(description="What was found: versions, times, sizes, or the error.")
    advice: str = Field(default="", description="What to do; empty where nothing is.")


def passed(name: str, detail: str) -> Finding:
    """It works."""
    return Finding(name=name, outcome="pass", detail=detail)


def failed(name: str, detail: str, advice: str) -> Finding:
    """It does not work, and what to do."""
    return Finding(name=name, outcome="fail", detail=detail, advice=advice)


def absent(name: str, detail: str, advice: str = "") -> Finding:
    """It is not here."""
    return Finding(name=name, outcome="not here", detail=detail, advice=advice)


def first_line(error: BaseException) -> str:
    """An exception in one line of at most 200 characters."""
    text = next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__}: {text}"[:200] if text else type(error).__name__


def tell(findings: Iterable[Finding]) -> None:
    """Print findings for the doctor, each as soon as it is made."""
    for finding in findings:
        sys.stdout.write(finding.model_dump_json() + "\n")
        sys.stdout.flush()
