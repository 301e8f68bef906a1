"""The URL of a proxy: `http://`, `https://`, `socks4://`, `socks4a://`, `socks5://`, `socks5h://`.

    scheme       protocol              what it is asked for                    port
    http         HTTP CONNECT          the name if it is known                 80
    https        the same inside TLS   the name if it is known                 443
    socks4       SOCKS4                the address, which is IPv4              1080
    socks4a      SOCKS4a               the name if it is known                 1080
    socks5       SOCKS5                the address                             1080
    socks5h      SOCKS5                the name if it is known                 1080

These are curl's schemes, and their meanings.
"""

from __future__ import annotations

from dataclasses import field
from typing import Final
from urllib.parse import unquote_to_bytes, urlsplit

from mitml4.dataclass import dataclass
from mitml4.errors import UsageError

__all__ = ["Proxy"]

_PORTS: Final = {
    "http": 80,
    "https": 443,
    "socks4": 1080,
    "socks4a": 1080,
    "socks5": 1080,
    "socks5h": 1080,
}
_MAX_SECRET: Final = 255  # RFC 1929 §2: the length is one byte
_EXAMPLES: Final = "as in: http://proxy.example:3128  socks5h://user:password@192.0.2.1:1080"


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy. Its text has no user and no password, so that it can be shown."""

    scheme: str
    host: str
    port: int
    user: bytes | None = field(default=None, repr=False)
    password: bytes = field(default=b"", repr=False)

    @classmethod
    def parse(cls, url: str) -> Proxy:
        """Raises UsageError, which does not repeat a password."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            raise _unusable(url, "is no URL of a proxy") from None
        if parts.scheme not in _PORTS or not url.isprintable() or " " in url:
            raise _unusable(url, "is no URL of a proxy")
        if not host or port == 0:
            raise _unusable(url, "names no proxy")
        if parts.path not in ("", "/") or parts.query or parts.fragment:
            raise _unusable(url, "has a path: a proxy has none")
        user, password = parts.username, unquote_to_bytes(parts.password or "")
        proxy = cls(
            parts.scheme,
            host,
            port or _PORTS[parts.scheme],
            None if user is None else unquote_to_bytes(user),
            password,
        )
        if fault := proxy._fault_of_credentials():
            raise _unusable(url, fault)
        return proxy

    def _fault_of_credentials(self) -> str | None:
        user = self.user or b""
        if self.is_socks and (len(user) > _MAX_SECRET or len(self.password) > _MAX_SECRET):
            return "has a user or a password of more than 255 bytes"
        if self.scheme.startswith("socks5") and self.user is not None and not user:
            return "has a password without a user"
        if self.scheme.startswith("socks4") and (self.password or b"\0" in user):
            return "has a password: SOCKS4 has only users"
        if not self.is_socks and b":" in user:
            return "has a user with a colon, which HTTP cannot say"
        return None

    @property
    def is_socks(self) -> bool:
        return self.scheme.startswith("socks")

    @property
    def takes_names(self) -> bool:
        """Whether it looks up names; otherwise it is asked for addresses."""
        return self.scheme not in ("socks4", "socks5")

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def _unusable(url: str, why: str) -> UsageError:
    scheme, separator, rest = url.partition("://")
    _, at, host = rest.rpartition("@")
    shown = f"{scheme}{separator}{'…@' if at else ''}{host}" if separator else "it"
    return UsageError(f"{shown!r} {why}" if separator else f"it {why}", hint=_EXAMPLES)
