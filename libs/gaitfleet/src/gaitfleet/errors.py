"""What can go wrong, as one tree.

::

    GaitfleetError
    ├── LayoutError              a state column that does not exist, or stands twice
    ├── ExperimentError          an experiment file that cannot be used; names the field and the value
    ├── CodecError               bytes that are not a valid body; names the tensor or the header field
    │   └── EpisodeError         an episode that breaks a rule; names the field and the value
    ├── PolicyError              a policy that cannot be evaluated
    ├── TransferError            an export that cannot be written or read; names the file
    ├── PlaybackError            an episode that cannot be drawn: not a walker's, or meshes or packages are missing
    ├── AnalysisError            an analysis that cannot be written: packages are missing, or the disk refuses
    ├── TokenError               a bearer token that cannot be sent; never contains it
    ├── CertificateError         authorities named by SSL_CERT_FILE or SSL_CERT_DIR that cannot be read
    └── ApiError                 the replay API could not or would not answer
        ├── ApiUnavailableError  no answer, 5xx, or an answer that is no replay API's, after all retries
        ├── NotFoundError        404: no such run, episode, checkpoint or policy
        ├── ConflictError        409: same id with other content, or a lease that is gone
        │   └── LeaseLostError   409: another trainer holds the run
        ├── RejectedError        400, 413, 415, 422: the request itself is wrong; never retried
        ├── ForbiddenError       401, 403: no token, or one without this role
        └── LimitedError         429: the limiter or the admission control says wait
"""

from __future__ import annotations

from typing import Any


class GaitfleetError(Exception):
    """Root of every error that gaitfleet raises on purpose."""


class LayoutError(GaitfleetError):
    """A state column that does not exist, or stands twice."""


class ExperimentError(GaitfleetError):
    """An experiment file that cannot be used."""


class CodecError(GaitfleetError):
    """Bytes that are not a valid body.

    Parameters
    ----------
    message
        What is wrong, with the value received.
    field
        The tensor or header field that is wrong, for example ``action[3,7]``.
    reason
        A short word for counting, from a small fixed set (``header``, ``shape``, ``dtype``, …).
    """

    def __init__(self, message: str, *, field: str, reason: str) -> None:
        super().__init__(message)
        self.field = field
        self.reason = reason


class EpisodeError(CodecError):
    """An episode that breaks a rule of its format or of its task."""


class PolicyError(GaitfleetError):
    """A policy that cannot be evaluated."""


class TransferError(GaitfleetError):
    """An export that cannot be written, or read back."""


class PlaybackError(GaitfleetError):
    """An episode that cannot be drawn."""


class AnalysisError(GaitfleetError):
    """An analysis that cannot be written."""


class TokenError(GaitfleetError, ValueError):
    """A bearer token that cannot be sent; the message does not contain it."""


class CertificateError(GaitfleetError):
    """Authorities named by `SSL_CERT_FILE` or `SSL_CERT_DIR` that cannot be read."""


class ApiError(GaitfleetError):
    """The replay API could not or would not answer.

    Parameters
    ----------
    message
        For people.
    status
        HTTP status, 0 when there was no answer.
    problem
        The RFC 9457 problem document, empty when the answer had none.
    """

    def __init__(self, message: str, *, status: int = 0, problem: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.problem = problem or {}


class ApiUnavailableError(ApiError):
    """No answer, 5xx, or what no replay API answers (408, say); the server may have said when to come back."""

    def __init__(
        self, message: str, *, status: int = 0, problem: dict[str, Any] | None = None, retry_after_seconds: float = 0.0
    ) -> None:
        super().__init__(message, status=status, problem=problem)
        self.retry_after_seconds = retry_after_seconds


class NotFoundError(ApiError):
    """404: no such run, episode, checkpoint or policy."""


class ConflictError(ApiError):
    """409: the same id with other content, or a precondition that no longer holds."""


class LeaseLostError(ConflictError):
    """409: the epoch is stale, another trainer holds the run."""


class RejectedError(ApiError):
    """400, 413, 415, 422: the request itself is wrong and is never retried."""


class ForbiddenError(ApiError):
    """401, 403: no token, or one without this role."""


class LimitedError(ApiError):
    """429: wait for ``retry_after_seconds`` and ask again."""

    def __init__(self, message: str, *, retry_after_seconds: float, problem: dict[str, Any] | None = None) -> None:
        super().__init__(message, status=429, problem=problem)
        self.retry_after_seconds = retry_after_seconds
