"""Types of RFC 9457 problem documents that a client acts upon."""

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
