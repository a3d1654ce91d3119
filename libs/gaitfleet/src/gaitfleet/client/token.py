"""Bearer tokens as they come from variables and files."""

from __future__ import annotations

import re
from pathlib import Path

from gaitfleet.errors import TokenError


def usable_token(token: str | None) -> str | None:
    """The token without the white space around it; None where nothing is left.

    Raises
    ------
    TokenError
        When it cannot stand in an HTTP header: white space within, as of a file with two lines, or other characters
        than printable ASCII. The error does not contain it.
    """
    token = (token or "").strip()
    if not re.fullmatch(r"[!-~]*", token):
        raise TokenError("the token is not one line of printable ASCII without white space within")
    return token or None


def read_token(path: Path) -> str | None:
    """The token that a file holds; None for an empty one.

    Raises
    ------
    OSError
        When the file cannot be read.
    TokenError
        When it holds something else.
    """
    try:
        return usable_token(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, TokenError):
        raise TokenError(f"{path} holds no token: one line of printable ASCII without white space within") from None
