"""Connections that a conversation announces: who will be connected to, and what will be said there.

Nothing in the bytes of FTP's data, of the media of SIP and RTSP, or of the files of IRC shows the
protocol. What announces them knows the address and the protocol. A driver keeps a table of such
announcements (`Expectations`), bounded and short-lived, and looks up the flows that open.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, TypeAlias

from mitml4.dataclass import dataclass

__all__ = ["Announcement", "Expectations", "Transport"]

Transport: TypeAlias = Literal["tcp", "udp"]
Open: TypeAlias = dict[tuple[Transport, str, int], tuple[float, str]]
"""By transport, host and port: until when a connection is waited for, and its protocol."""

_MAX_EXPECTED: Final = 4096
_LIFETIME_S: Final = 120.0
"""For how long a connection is waited for. Media of a call begin when it is answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """A connection that one of the two sides will make."""

    protocol: str
    transport: Transport
    host: str | None = None
    """The address that will be connected to, or that datagrams go to or come from, as text; None:
    that of a side of the conversation that announces it."""
    of_client: bool = False
    """Whether it is the client's side, and not the server's, where `host` is None."""
    port: int


class Expectations:
    """The announcements of all flows that have not been fulfilled."""

    def __init__(self) -> None:
        self.on_add: Callable[[Announcement, str, str], None] | None = None
        """Takes what is added here; None: no other process needs it."""
        self.open: Open = {}
        """Those that are waited for; another process with the same clock may have them too."""

    def __bool__(self) -> bool:
        return bool(self.open)

    def add(self, announcement: Announcement, client: str, server: str, now_s: float) -> None:
        """`client` and `server`: the addresses of the flow that announces it."""
        self.copy(announcement, client, server, now_s)
        if self.on_add:
            self.on_add(announcement, client, server)

    def copy(self, announcement: Announcement, client: str, server: str, now_s: float) -> None:
        """Add one that a flow of another process announces."""
        host = announcement.host or (client if announcement.of_client else server)
        key = announcement.transport, host, announcement.port
        self.open.pop(key, None)
        if len(self.open) >= _MAX_EXPECTED:
            del self.open[next(iter(self.open))]
        self.open[key] = now_s + _LIFETIME_S, announcement.protocol

    def take(self, transport: Transport, host: str, port: int, now_s: float) -> str | None:
        """The protocol that is expected at this address. Data of TCP is expected once; datagrams
        may come from several sides."""
        key = transport, host, port
        found = self.open.get(key)
        if found is None:
            return None
        until_s, protocol = found
        if transport == "tcp" or until_s < now_s:
            del self.open[key]
        return protocol if now_s <= until_s else None

    def take_in_tunnel(self, host: str, port: int, now_s: float) -> str | None:
        """The same for the server that a client asks a proxy for."""
        return self.take("tcp", host, port, now_s)
