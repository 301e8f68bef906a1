"""What the protocols with STARTTLS share: lines, and one point at which TLS takes over.

A client asks in a line of its own whether the rest may be TLS, and the server's line decides. So
both sides are read line by line until the question is settled: the client's side is held from its
question to the answer, which keeps the ClientHello (and whatever was injected before it) where it
is; a yes makes both sides SWITCH, and once it is clear that nobody will ask, all passes unseen.

    client_line   ask()                    the client's side waits
    server_line   accept() or refuse()     SWITCH, or as before
    either        stay_plain()             this will stay as it is until the end
    server_line   let_in()                 and so it will then, with the client logged in
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import PEEK, Details, Direction
from mitml4.protocols.parts.handshake import Handshake
from mitml4.protocols.parts.sasl import binds_channel

__all__ = ["MAX_LINE", "StartTLS", "StartTLSDetails"]

MAX_LINE: Final = 16384
"""Longer than any of these protocols allows (RFC 4954 §4: 12288 for an AUTH response)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartTLSDetails(Details):
    """The server's first line, without its code; and whether TLS took over."""

    greeting: bytes | None = None
    upgraded: bool = False


@dataclass(slots=True)
class StartTLS(Handshake):
    """A conversation in lines that may turn into TLS, to be subclassed."""

    greeting: bytes | None = None
    upgraded: bool = False

    def client_line(self, line: bytes) -> None:
        """The client's next line, without its line end."""
        raise NotImplementedError

    def server_line(self, line: bytes) -> None:
        """The server's next line, without its line end."""
        raise NotImplementedError

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
        """The server serves this client: no login and no request for TLS will come."""
        self.channel_binding = False
        self.stay_plain()

    def feed(self, direction: Direction, data: bytes) -> int:
        """Take every whole line, as long as nothing but lines is wanted."""
        taken = 0
        while self.directive(direction) is PEEK:
            newline = data.find(b"\n", taken)
            if (len(data) if newline < 0 else newline) - taken > MAX_LINE:
                raise ProtocolError(f"{self.name}: a line that does not end")
            if newline < 0:
                break
            line = data[taken:newline].removesuffix(b"\r")
            taken = newline + 1
            if direction is Direction.UP:
                self.client_line(line)
            else:
                self.server_line(line)
        return taken

    def details(self) -> StartTLSDetails:
        return StartTLSDetails(greeting=self.greeting, upgraded=self.upgraded)
