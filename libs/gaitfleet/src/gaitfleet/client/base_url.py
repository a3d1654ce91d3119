"""The API's address as it comes from variables."""

from __future__ import annotations

from urllib.parse import urlsplit

import httpx


def usable_url(url: str) -> str:
    """The URL, unchanged.

    Raises
    ------
    ValueError
        When no request can be sent to it: no host, or none that a resolver takes, a port that is no number, a bracket
        that is not closed.
    """
    try:
        host, _ = httpx.URL(url).host, urlsplit(url).port  # control calls and bulk bodies read it each in its own way
        host.encode("idna")
    except (httpx.InvalidURL, ValueError) as error:
        raise ValueError(f"no request can be sent to this URL: {error}") from None
    if not host:
        raise ValueError("no request can be sent to this URL: it names no host")
    return url
