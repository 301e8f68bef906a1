"""What events show of what is said: headers, secrets, and payload."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from mitml4.dataclass import dataclass
from mitml4.payload.budget import Payload
from mitml4.regex import regex

__all__ = ["URL_PASSWORD", "Shown", "is_redacted", "redacted", "without_passwords"]

_REDACTED: Final = regex("<redacted, [0-9]+ bytes>")
# RFC 3986 §3.2.1: `user:password@` before the host. SIP's URLs have no slashes (RFC 3261 §19.1.1).
URL_PASSWORD: Final = regex(
    rb"(?<=//)[^\s/?#:@<>\"]*+:([^\s/?#<>\"]+)@"
    rb"|(?<![a-z])sips?:[^\s/:@<>\"]{1,128}+:([^\s@<>\"]{1,256}+)@",
    re.IGNORECASE,
)
"""Matches a URL up to its password, which is the only group that matches, and the @ behind it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What events show. Nothing else is made or kept."""

    headers: bool = False
    """The headers of messages."""
    redacts: bool = True
    """Whether passwords, cookies and their like are replaced by their length."""
    payload: Payload | None = None
    """Bodies, messages, and the bytes of other innermost layers."""

    def url(self, url: bytes) -> bytes:
        """A URL as events show it."""
        return without_passwords(url) if self.redacts else url

    def authority(self, authority: bytes) -> bytes:
        """The part of a URL behind its slashes, as events show it."""
        return self.url(b"//" + authority)[2:]

    def close(self) -> None:
        """The flow is over: give the memory of its payload back."""
        if self.payload:
            self.payload.close()

    def of_flow(self) -> Shown:
        """The same for a flow, which has separate bounds."""
        return replace(self, payload=self.payload.session.of_flow()) if self.payload else self


def redacted(size: int) -> str:
    """What stands for a secret of so many bytes."""
    return f"<redacted, {size} bytes>"


def is_redacted(value: str) -> bool:
    """Whether the value of a header field is what `redacted` returns."""
    return _REDACTED.fullmatch(value) is not None


def without_passwords(text: bytes) -> bytes:
    """The same text, with how long a password is instead of it in every URL."""
    return URL_PASSWORD.sub(_redact, text) if b"@" in text else text


def _redact(found: re.Match[bytes]) -> bytes:
    password = found.lastindex or 0
    before = found[0][: found.start(password) - found.start()]
    return before + redacted(len(found[password])).encode() + b"@"
