"""How this service reaches the replay API."""

from __future__ import annotations

import threading

from gaitfleet.client import Backoff, ReplayClient, read_token
from gaitfleet.errors import ApiError, ApiUnavailableError, ForbiddenError, LimitedError, NotFoundError, TokenError
from rollout.settings import RolloutSettings


class Connection:
    """A client for one thread, made anew with the token of that moment when the API refuses the old one.

    Every call is tried once; each user of this class has its own way to wait.
    """

    def __init__(self, settings: RolloutSettings) -> None:
        self._settings = settings
        self._client: ReplayClient | None = None

    @property
    def client(self) -> ReplayClient:
        """The client; made at first use."""
        if self._client is None:
            self._client = ReplayClient(
                self._settings.replay_api_url,
                run=self._settings.run,
                token=self._token(),
                timeout_seconds=self._settings.api_timeout_seconds,
                attempts=1,
            )
        return self._client

    def renew(self) -> None:
        """Forget the client, and with it its token."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _token(self) -> str | None:
        if self._settings.token is not None:
            return self._settings.token.get_secret_value()
        if self._settings.token_file is None:
            return None
        try:
            return read_token(self._settings.token_file)
        except (OSError, TokenError) as error:
            raise ForbiddenError(f"the token cannot be read: {error}") from error


class Patience:
    """Waiting after a call that failed: jittered back-off, no less than the API asks for, ended by a stop."""

    def __init__(self, connection: Connection, stop: threading.Event) -> None:
        self._connection = connection
        self._stop = stop
        self._backoff = Backoff()

    def wait(self, error: ApiError) -> None:
        """Wait before the next attempt."""
        if isinstance(error, ForbiddenError):
            self._connection.renew()
        self._stop.wait(self._backoff.next_seconds(at_least=asked_wait_seconds(error)))

    def reset(self) -> None:
        """A call has succeeded."""
        self._backoff.reset()


def asked_wait_seconds(error: ApiError) -> float:
    """What the API asked for with Retry-After; a little where it did not, so that no error makes a busy loop."""
    asked = error.retry_after_seconds if isinstance(error, ApiUnavailableError | LimitedError) else 0.0
    return max(asked, 0.1)


def reason_of(error: Exception) -> str:
    """A short word for counting."""
    for kind, word in (
        (LimitedError, "limited"),
        (ForbiddenError, "forbidden"),
        (NotFoundError, "not_found"),
        (ApiUnavailableError, "unavailable"),
    ):
        if isinstance(error, kind):
            return word
    return "error"
