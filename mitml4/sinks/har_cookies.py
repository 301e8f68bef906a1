"""Cookies as an HTTP archive has them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Final

from mitml4.protocols.http.events import Pairs
from mitml4.protocols.payload import is_redacted
from mitml4.sinks.har_exchange import values

__all__ = ["request_cookies", "response_cookies"]

_SAME_SITE: Final = ("Strict", "Lax", "None")
"""Not in HAR 1.2, but browsers' archives have it."""


def request_cookies(headers: Pairs | None) -> list[dict[str, str]]:
    """Those of the Cookie fields, except redacted ones: `name=value; name=value` (RFC 6265
    §4.2)."""
    return [
        {"name": name, "value": value}
        for said in _shown(headers, "cookie")
        for name, value in _pairs(said)
    ]


def response_cookies(headers: Pairs | None, answered_at: datetime | None) -> list[dict[str, Any]]:
    """Those of the Set-Cookie fields, except redacted ones: `name=value; Path=/; Secure` (RFC 6265
    §4.1), with the attributes that archives have."""
    return [_set_cookie(list(_pairs(said)), answered_at) for said in _shown(headers, "set-cookie")]


def _shown(headers: Pairs | None, name: str) -> Iterator[str]:
    return (value for value in values(headers, name) if not is_redacted(value))


def _pairs(said: str) -> Iterator[tuple[str, str]]:
    for pair in said.split(";"):
        if pair.strip():
            name, _, value = pair.partition("=")
            yield name.strip(), value.strip()


def _set_cookie(pairs: Sequence[tuple[str, str]], answered_at: datetime | None) -> dict[str, Any]:
    name, value = pairs[0] if pairs else ("", "")
    # "If the cookie-attribute-list contains [several], the last" (RFC 6265 §5.3).
    said = {attribute.lower(): content for attribute, content in pairs[1:]}
    cookie: dict[str, Any] = {"name": name, "value": value}
    cookie |= {attribute: said[attribute] for attribute in ("path", "domain") if attribute in said}
    if expires := _expires(said, answered_at):
        cookie["expires"] = expires
    cookie |= {"httpOnly": "httponly" in said, "secure": "secure" in said}
    if (same_site := said.get("samesite", "").capitalize()) in _SAME_SITE:
        cookie["sameSite"] = same_site
    return cookie


def _expires(said: dict[str, str], answered_at: datetime | None) -> datetime | None:
    """When it expires; None at the end of the browser's session, or if it is no date. Max-Age has
    precedence over Expires (RFC 6265 §5.3)."""
    try:
        if "max-age" in said and answered_at:
            return answered_at + timedelta(seconds=int(said["max-age"]))
        date = parsedate_to_datetime(said["expires"])
        return date.replace(tzinfo=UTC) if date.tzinfo is None else date.astimezone(UTC)
    except (ValueError, TypeError, KeyError, IndexError, OverflowError):
        return None
