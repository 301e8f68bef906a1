"""Protocols with STARTTLS: lines, and one point at which TLS begins.

The client asks for TLS in a line, and the server's line decides. Both sides are read line by line
until that is decided. The client's side waits from its request to the answer, so its ClientHello,
and whatever was injected before it, stays unread. If the server agrees, both sides become SWITCH.
Once no request for TLS can come, everything passes unread.

    client_line   ask()                    the client's side waits
    server_line   accept() or refuse()     SWITCH, or as before
    either        stay_plain()             no TLS will begin
    server_line   let_in()                 the same, and the client is logged in
"""

from __future__ import annotations

from typing import Final

from mitml4.dataclass import dataclass
from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import PEEK, Details, Direction
from mitml4.protocols.parts.handshake import Handshake
from mitml4.protocols.parts.sasl import binds_channel

__all__ = ["MAX_LINE", "StartTLS", "StartTLSDetails"]

MAX_LINE: Final = 16384
"""Longer than any of these protocols allows (RFC 4954 §4: 12288 for an AUTH response)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartTLSDetails(Details):
    """The server's first line, without its code; and whether TLS began."""

    greeting: bytes | None = None
    upgraded: bool = False


@dataclass(slots=True)
class StartTLS(Handshake):
    """Reads lines until TLS begins or no longer can. For subclassing."""

    greeting: bytes | None = None
    upgraded: bool = False

    def client_line(self, line: bytes) -> None:
        """The client's next line, without its line end."""
        raise NotImplementedError

    def server_line(self, line: bytes) -> None:
        """The server's next line, without its line end."""
        raise NotImplementedError

    def note_said(self, line: bytes) -> None:
        """The client's next line, with its line end, before it is read."""

    def accept(self) -> None:
        """The server agrees: TLS begins with the next byte of both sides."""
        self.upgraded = True
        self.go_inside()

    def refuse(self) -> None:
        """The server declines: the client may go on, or ask again."""
        self.details_ready = True
        self.answered()

    def offer(self, mechanisms: bytes) -> None:
        """The server lists the SASL mechanisms that it takes."""
        if binds_channel(mechanisms):
            self.channel_binding = True

    def let_in(self) -> None:
        """The server serves this client: neither a login nor a request for TLS will come."""
        self.channel_binding = False
        self.stay_plain()

    def feed(self, direction: Direction, data: bytes) -> int:
        """Take every whole line, as long as the direction is read.

        Stop after a line that changes the other side's directive: it may be its turn now.
        """
        others = self.directive(direction.other)
        taken = 0
        while self.directive(direction) is PEEK and self.directive(direction.other) is others:
            newline = data.find(b"\n", taken)
            if (len(data) if newline < 0 else newline) - taken > MAX_LINE:
                raise ProtocolError(f"{self.name}: a line that does not end")
            if newline < 0:
                break
            whole = data[taken : newline + 1]
            line = data[taken:newline].removesuffix(b"\r")
            taken = newline + 1
            if direction is Direction.UP:
                self.note_said(whole)
                self.client_line(line)
            else:
                self.server_line(line)
        return taken

    def details(self) -> StartTLSDetails:
        return StartTLSDetails(greeting=self.greeting, upgraded=self.upgraded)
