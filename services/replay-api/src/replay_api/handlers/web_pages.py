"""Middleware for an API without authentication, which a browser of the same machine reaches on loopback."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from replay_api.errors import ForbiddenError
from replay_api.handlers.problems import refused
from replay_api.settings import is_loopback


class NoWebPages:
    """Refuses what pages of other sites can make a browser send.

    Such a page may post ``text/plain``, as which an episode is taken, to any address without asking (`Origin` tells
    which page it is), and do all it likes where its own name leads to (`Host` has that name; DNS rebinding).
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            for name, prefix in (("host", "//"), ("origin", "")):
                given = headers.get(name)
                if given is not None and not _names_loopback(prefix + given):
                    detail = f"authentication is off, and {name} is {given!r:.100}; it must be 127.0.0.1 or localhost"
                    await refused(ForbiddenError(detail, field=name, reason=name))(scope, receive, send)
                    return
        await self._app(scope, receive, send)


def _names_loopback(url: str) -> bool:
    try:
        return is_loopback(urlsplit(url).hostname or "")
    except ValueError:  # an address in brackets that is none
        return False
