"""Bearer tokens by role.

Tokens are compared as SHA-256 digests, every one of them and in constant time, so that neither the length nor the
position of a token can be measured. Two tokens of a role are valid at once while one replaces the other.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, get_args

from replay_api.errors import ForbiddenError, UnauthorizedError
from replay_api.settings import MINIMUM_TOKEN_LENGTH, Settings

Actor = Literal["rollout", "trainer", "reader", "admin"]

EVERYBODY: frozenset[Actor] = frozenset(get_args(Actor))
"""Allowed where any known token will do."""

REREAD_SECONDS = 5.0
"""Interval in s at which the token directory is read again."""

_log = logging.getLogger(__name__)


class TokenBook:
    """Which token may act as what."""

    def __init__(self, settings: Settings) -> None:
        self._open = settings.authentication == "none"
        self._directory = settings.token_directory
        given: dict[Actor, Iterable[str]] = {
            "rollout": (token.get_secret_value() for token in settings.rollout_tokens),
            "trainer": (token.get_secret_value() for token in settings.trainer_tokens),
            "reader": (token.get_secret_value() for token in settings.reader_tokens),
            "admin": (token.get_secret_value() for token in settings.admin_tokens),
        }
        self._fixed = [(_digest(token), actor) for actor, tokens in given.items() for token in tokens]
        self._read: list[tuple[bytes, Actor]] = []
        self._read_at = float("-inf")

    def check(self, authorization: str | None, allowed: frozenset[Actor]) -> None:
        """Let the request pass, or not.

        Parameters
        ----------
        authorization
            The Authorization header.
        allowed
            Who may do this; `admin` always may.

        Raises
        ------
        UnauthorizedError
            When there is no bearer token, or an unknown one.
        ForbiddenError
            When the token is known, but not for this.
        """
        if self._open:
            return
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise UnauthorizedError("this needs the header `Authorization: Bearer …`", reason="no_token")
        digest = _digest(token.strip())
        actors = {actor for known, actor in self._known() if hmac.compare_digest(known, digest)}
        if not actors:
            raise UnauthorizedError("the bearer token is not known here", reason="unknown_token")
        if not actors & (allowed | {"admin"}):
            needed = ", ".join(sorted(allowed | {"admin"}))
            raise ForbiddenError(
                f"the token is one for {', '.join(sorted(actors))}; this needs {needed}", reason="role"
            )

    def _known(self) -> list[tuple[bytes, Actor]]:
        if self._directory is not None and time.monotonic() - self._read_at > REREAD_SECONDS:
            self._read = _read(self._directory)
            self._read_at = time.monotonic()
        return self._fixed + self._read


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _read(directory: Path) -> list[tuple[bytes, Actor]]:
    tokens: list[tuple[bytes, Actor]] = []
    for actor in get_args(Actor):
        try:
            text = (directory / actor).read_text(encoding="utf-8")
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError):
            _log.exception("a token file cannot be read", extra={"file": actor})
            continue
        for token in filter(None, map(str.strip, text.splitlines())):
            if len(token) < MINIMUM_TOKEN_LENGTH:
                _log.error("a token is too short and is not taken", extra={"file": actor, "characters": len(token)})
                continue
            tokens.append((_digest(token), actor))
    return tokens
