"""The server's side of SOCKS4, SOCKS4a and SOCKS5: what it reads (RFC 1928, RFC 1929)."""

from __future__ import annotations

from mitml4.dataclass import dataclass
from mitml4.errors import ProtocolError
from mitml4.protocols.parts.fields import Reader
from mitml4.protocols.policy import Target
from mitml4.protocols.socks5 import (
    NO_AUTHENTICATION,
    NONE_ACCEPTABLE,
    USERNAME_PASSWORD,
    read_address,
)

__all__ = ["Request", "method_for", "read_greeting", "read_password", "read_request"]


@dataclass(frozen=True, slots=True)
class Request:
    """A request of SOCKS5; `target` None: an address of a kind that nobody knows."""

    command: int
    target: Target | None


def read_greeting(reader: Reader) -> bytes:
    """The methods that the client offers."""
    reader.one_of(b"\x05")
    return reader.take(reader.uint(1))


def method_for(offered: bytes, *, needs_password: bool) -> int:
    """The method to answer with. A client that offers nothing but a password may use any where
    none is needed."""
    if NO_AUTHENTICATION in offered and not needs_password:
        return NO_AUTHENTICATION
    return USERNAME_PASSWORD if USERNAME_PASSWORD in offered else NONE_ACCEPTABLE


def read_password(reader: Reader) -> tuple[bytes, bytes]:
    """User and password."""
    reader.one_of(b"\x01")
    user = reader.take(reader.uint(1))
    return user, reader.take(reader.uint(1))


def read_request(reader: Reader) -> Request:
    """What the client asks for."""
    reader.one_of(b"\x05")
    command = reader.uint(1)
    reader.take(1)
    try:
        return Request(command, read_address(reader))
    except ProtocolError:
        return Request(command, None)
