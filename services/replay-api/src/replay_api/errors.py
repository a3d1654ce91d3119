"""What the service refuses, as one tree; every class owns its HTTP status and its problem type.

::

    ServiceError
    ├── UnauthorizedError 401, ForbiddenError 403
    ├── MissingError 404
    │   └── RunMissingError, EpisodeMissingError, PolicyMissingError, CheckpointMissingError
    ├── ConflictError 409
    │   └── EpisodeConflictError, ExperimentConflictError, LeaseLostError, StepNotAboveHeadError
    ├── TooLargeError 413, EncodingError 415, RejectedError 422
    ├── LimitedError 429
    └── UnavailableError 503
"""

from __future__ import annotations

from gaitfleet import problems


class ServiceError(Exception):
    """A refusal that the client is told about.

    Parameters
    ----------
    detail
        What is wrong here, with the value received.
    field
        The field that is wrong.
    reason
        A short word for counting, from a small fixed set.
    retry_after_seconds
        When the client should ask again; None where asking again does not help.
    """

    status = 500
    type = problems.PREFIX + "internal"
    title = "Internal error"

    def __init__(
        self,
        detail: str,
        *,
        field: str | None = None,
        reason: str | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.field = field
        self.reason = reason
        self.retry_after_seconds = retry_after_seconds


class UnauthorizedError(ServiceError):
    """No token, or an unknown one."""

    status = 401
    type = problems.PREFIX + "unauthorized"
    title = "Not authenticated"


class ForbiddenError(ServiceError):
    """A known token without the role."""

    status = 403
    type = problems.PREFIX + "forbidden"
    title = "Not allowed"


class MissingError(ServiceError):
    """Something that is not there."""

    status = 404
    type = problems.PREFIX + "not-found"
    title = "Not found"


class RunMissingError(MissingError):
    """No such run."""

    type = problems.RUN_NOT_FOUND
    title = "No such run"

    def __init__(self, run: str) -> None:
        super().__init__(f"there is no run {run!r}", field="run", reason="unknown_run")


class EpisodeMissingError(MissingError):
    """No such episode."""

    type = problems.PREFIX + "episode-not-found"
    title = "No such episode"


class PolicyMissingError(MissingError):
    """The run has no policy yet."""

    type = problems.POLICY_NOT_PUBLISHED
    title = "No policy yet"


class CheckpointMissingError(MissingError):
    """No such checkpoint; `first` where the run has no such head yet."""

    title = "No such checkpoint"

    def __init__(self, detail: str, *, first: bool) -> None:
        super().__init__(detail)
        self.type = problems.CHECKPOINT_NOT_PUBLISHED if first else problems.CHECKPOINT_NOT_FOUND


class ConflictError(ServiceError):
    """Something that is there contradicts the request."""

    status = 409
    type = problems.PREFIX + "conflict"
    title = "Conflict"


class EpisodeConflictError(ConflictError):
    """Other bytes are stored under this id."""

    type = problems.PREFIX + "episode-differs"
    title = "Another episode has this id"


class ExperimentConflictError(ConflictError):
    """The run exists with another experiment."""

    type = problems.PREFIX + "experiment-differs"
    title = "The run has another experiment"


class LeaseLostError(ConflictError):
    """Another trainer holds the run, or nobody does."""

    type = problems.LEASE_LOST
    title = "The lease is not yours"


class StepNotAboveHeadError(ConflictError):
    """The checkpoint's step is not above the head."""

    type = problems.PREFIX + "step-not-above-head"
    title = "The step is not above the head"


class TooLargeError(ServiceError):
    """A body over the limit."""

    status = 413
    type = problems.PREFIX + "too-large"
    title = "Body too large"


class EncodingError(ServiceError):
    """A content encoding that is not accepted."""

    status = 415
    type = problems.PREFIX + "encoding"
    title = "Content encoding not accepted"


class RejectedError(ServiceError):
    """A request that breaks a rule; sending it again does not help."""

    status = 422
    type = problems.PREFIX + "rejected"
    title = "A rule is broken"


class LimitedError(ServiceError):
    """The limiter or the admission control says wait."""

    status = 429
    type = problems.PREFIX + "limited"
    title = "Wait and ask again"


class UnavailableError(ServiceError):
    """The database or the checkpoint store did not answer."""

    status = 503
    type = problems.PREFIX + "unavailable"
    title = "Temporarily unavailable"
