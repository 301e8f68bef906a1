"""A program that reads packets from a TCP connection: PCAP over IP."""

from __future__ import annotations

import socket
from typing import Final

from mitml4.dataclass import dataclass
from mitml4.errors import MitmError, UsageError
from mitml4.regex import regex

__all__ = ["PREFIX", "TcpReader"]

PREFIX: Final = "tcp:"
_PLACE: Final = regex(r"tcp:(?:\[([^]]+)\]|([^:]+)):([0-9]{1,5})")
_MAX_PORT: Final = 0xFFFF
_CONNECT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class TcpReader:
    """A program that waits for packets on a TCP port (PCAP over IP)."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> TcpReader:
        """From `tcp:HOST:PORT`; an IPv6 address stands in brackets. Raises UsageError."""
        place = _PLACE.fullmatch(text)
        if not place or not 0 < int(place[3]) <= _MAX_PORT:
            hint = "as in: tcp:127.0.0.1:57012  tcp:[::1]:57012"
            raise UsageError(f"{text!r} is no address of a reader", hint=hint)
        return cls(place[1] or place[2], int(place[3]))

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp:{host}:{self.port}"

    def connect(self) -> int:
        """The descriptor of a connection to it. Raises MitmError."""
        try:
            connection = socket.create_connection((self.host, self.port), _CONNECT_S)
        except OSError as error:
            raise MitmError(
                f"cannot connect to {self}: {error.strerror or error}",
                hint=f"start its reader first, such as: nc -l {self.port} | tshark -r -",
            ) from error
        connection.settimeout(None)
        return connection.detach()
