"""RFC 9457 problem documents, and the types of them that a client acts upon."""

from __future__ import annotations

from pydantic import BaseModel, Field

PREFIX = "urn:gaitfleet:problem:"

LEASE_LOST = PREFIX + "lease-lost"
"""409: another trainer holds this run."""

POLICY_NOT_PUBLISHED = PREFIX + "policy-not-published"
"""404: the run is there, but has no policy yet."""

CHECKPOINT_NOT_PUBLISHED = PREFIX + "checkpoint-not-published"
"""404: the run is there, but has no such head yet."""

CHECKPOINT_NOT_FOUND = PREFIX + "checkpoint-not-found"
"""404: no such checkpoint is kept, or the checkpoint store has lost it."""

RUN_NOT_FOUND = PREFIX + "run-not-found"
"""404: no such run."""


class Problem(BaseModel):
    """An RFC 9457 problem document."""

    type: str = Field(default="about:blank", description="What kind of problem, as a URN.")
    title: str = Field(description="The kind in words.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What is wrong here, with the value received.")
    field: str | None = Field(default=None, description="The field that is wrong.")
    reason: str | None = Field(default=None, description="A short word for counting.")
