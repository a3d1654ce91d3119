"""Which authorities an API's certificate may be signed by."""

from __future__ import annotations

import os
import ssl

import httpx

from gaitfleet.errors import CertificateError


def trusted_authorities() -> ssl.SSLContext:
    """Those of `SSL_CERT_FILE` or `SSL_CERT_DIR`; where neither is set, those that certifi ships.

    Raises
    ------
    CertificateError
        When they cannot be read; names the variable and the value.
    """
    try:
        return httpx.create_ssl_context()
    except OSError as error:
        name = next((name for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if os.environ.get(name)), None)
        if name is None:
            raise
        value, reason = os.environ[name], error.strerror or error
        raise CertificateError(f"{name} is {value!r}, which cannot be read as certificates: {reason}") from None
