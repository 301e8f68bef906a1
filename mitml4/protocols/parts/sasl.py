"""SASL mechanisms that bind a login to the TLS connection around it (RFC 5056).

Both ends include data of their TLS connection in the login. Where TLS is intercepted, the two ends
have different connections, and the login fails.
"""

from __future__ import annotations

import re
from typing import Final

from mitml4.regex import regex

__all__ = ["binds_channel"]

# RFC 5801 §3.1: these names end in "-PLUS". XEP-0484: the others bind tokens.
_BINDING: Final = regex(
    rb"(?<![A-Z0-9_-])(?:[A-Z0-9_-]{1,15}-PLUS|HT-[A-Z0-9-]{1,12}-(?:ENDP|UNIQ|EXPR))"
    rb"(?![A-Z0-9_-])",
    re.IGNORECASE,
)


def binds_channel(offer: bytes) -> bool:
    """Whether a server's list of mechanisms, in any syntax, has one that binds."""
    return _BINDING.search(offer) is not None
