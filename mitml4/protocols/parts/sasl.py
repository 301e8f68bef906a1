"""SASL mechanisms that bind a login to the TLS that it runs in (RFC 5056).

Both ends mix into the login what they know of their TLS: where it is opened on the way, the two do
not know the same, and the login fails.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["binds_channel"]

# RFC 5801 §3.1: "-PLUS" is the end of every such name. XEP-0484: tokens are bound by the others.
_BINDING: Final = re.compile(
    rb"(?<![A-Z0-9_-])(?:[A-Z0-9_-]{1,15}-PLUS|HT-[A-Z0-9-]{1,12}-(?:ENDP|UNIQ|EXPR))"
    rb"(?![A-Z0-9_-])",
    re.IGNORECASE,
)


def binds_channel(offer: bytes) -> bool:
    """Whether such a mechanism is among those that a server offers, however they are listed."""
    return _BINDING.search(offer) is not None
