"""What the bridge does not do."""

from __future__ import annotations

from typing import Final

__all__ = ["OTHER_CERTIFICATE", "CannotBridge", "StaysClosed"]

OTHER_CERTIFICATE: Final = "a certificate of another type than X.509"


class CannotBridge(Exception):  # noqa: N818, it is no error: the flow goes another way
    """The bytes are legal, but the bridge cannot continue with them. The message says why."""


class StaysClosed(CannotBridge):
    """Nor can OpenSSL: the two ends have agreed on what only they can do. Where nobody can pass
    them through any more, OpenSSL does not offer it."""
