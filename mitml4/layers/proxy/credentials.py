"""Who may use the proxy: users and passwords, compared in constant time."""

from __future__ import annotations

import binascii
from base64 import b64decode
from hmac import compare_digest
from typing import Final

from mitml4.dataclass import dataclass
from mitml4.errors import UsageError

__all__ = ["Credentials"]

_MAX_BYTES: Final = 255  # RFC 1929 §2


@dataclass(frozen=True, slots=True)
class Credentials:
    """The pairs that are accepted, `user:password` in UTF-8."""

    pairs: tuple[bytes, ...]

    @staticmethod
    def parse(text: str) -> bytes:
        """A pair from the value of an option. Raises UsageError, which does not show it."""
        user, colon, password = text.encode("utf-8", "surrogateescape").partition(b":")
        if not (user and colon and password):
            raise UsageError("no user and password", hint="as in: --auth user:password")
        if max(len(user), len(password)) > _MAX_BYTES:
            raise UsageError(
                "SOCKS5 has no users and passwords of more than 255 bytes",
                hint="as in: --auth user:password",
            )
        return user + colon + password

    def accepts(self, user: bytes, password: bytes) -> bool:
        """Whether a pair is one of them; takes as long for a wrong one."""
        given = user + b":" + password
        matches = [compare_digest(given, each) for each in self.pairs]
        return b":" not in user and any(matches)

    def accepts_basic(self, field: str | None) -> bool:
        """The value of a Proxy-Authorization (RFC 7617 §2)."""
        scheme, _, token = (field or "").partition(" ")
        if scheme.lower() != "basic":
            return False
        try:
            user, _, password = b64decode(token.strip(), validate=True).partition(b":")
        except (binascii.Error, ValueError):
            return False
        return self.accepts(user, password)
