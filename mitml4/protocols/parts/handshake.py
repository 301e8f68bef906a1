"""Who speaks next, and how a handshake ends: the usual changes of a conversation's directives.

await_client, await_server   one side is read, and the other waits
ask, answered                the client's side waits for the server's answer, then goes on
skip                         the next bytes of one side pass unread
go_inside, stay_plain        the handshake is over: an inner protocol begins, or none will
"""

from __future__ import annotations

from mitml4.dataclass import dataclass
from mitml4.protocols.conversation import (
    FORWARD_ALL,
    PAUSE,
    PEEK,
    SWITCH,
    Conversation,
    Direction,
    Forward,
)

__all__ = ["Handshake"]


@dataclass(slots=True)
class Handshake(Conversation):
    """Reads both sides until nothing more is to be learned. For subclassing."""

    def await_client(self) -> None:
        """The client speaks next."""
        self.up, self.down = PEEK, PAUSE

    def await_server(self) -> None:
        """The server speaks next."""
        self.up, self.down = PAUSE, PEEK

    def ask(self) -> None:
        """The client has asked. The server's answer decides which protocol its next bytes are."""
        self.up = PAUSE

    def answered(self) -> None:
        """The answer switches to no other protocol: the client's side is read again."""
        self.up = PEEK

    def skip(self, direction: Direction, count: int) -> None:
        """Pass the next `count` bytes of a direction unread, then read it again.

        Does nothing where the direction is not being read.
        """
        if count and self.directive(direction) is PEEK:
            self.set_directive(direction, Forward(count))

    def go_inside(self) -> None:
        """An inner protocol begins with the next byte of both sides."""
        self.details_ready = True
        self.up = self.down = SWITCH

    def stay_plain(self) -> None:
        """Nothing more is to be learned, and nothing else begins."""
        self.details_ready = True
        self.up = self.down = FORWARD_ALL

    def end(self, direction: Direction) -> None:
        """A side has ended, so nothing more can be agreed."""
        self.stay_plain()
