"""The parts of a URL, as far as tables and filters need them."""

from __future__ import annotations

from typing import Final

from mitml4.regex import regex

__all__ = ["split_url"]

_AUTHORITY_END: Final = regex("[/?#]")  # RFC 3986 §3.2
_PORT: Final = regex(r":[0-9]*$")


def split_url(url: str) -> tuple[str, str]:
    """The host without user and port, and the path; no host if it is no URL (`*`, an authority)."""
    _, separator, rest = url.partition("://")
    if not separator:
        return "", url
    authority = _AUTHORITY_END.split(rest, 1)[0]
    path = rest.removeprefix(authority)
    host = _PORT.sub("", authority.rpartition("@")[2]).strip("[]")
    return host, path if path.startswith("/") else f"/{path}"
