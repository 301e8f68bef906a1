"""What the protocols share that are read in units: messages, packets, frames.

Each direction that is looked at is read unit by unit. Reading one either moves the reader behind
it (or behind its head, with a `Pass` over the body), or changes what is wanted of the direction; a
unit that is not whole yet ends in `Short`, and comes again with more behind it. So nothing may be
learned from a unit before the last of its fields that matter has been read.
"""

from __future__ import annotations

from dataclasses import dataclass

from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import (
    INNER,
    LOOK,
    PASS_ALL,
    Conversation,
    Direction,
    Pass,
)
from mitml4.protocols.parts.fields import Reader, Short

__all__ = ["Units"]


@dataclass(slots=True)
class Units(Conversation):
    """A conversation in units, to be subclassed."""

    def client_unit(self, reader: Reader) -> None:
        """Read what the client sends next."""
        raise NotImplementedError

    def server_unit(self, reader: Reader) -> None:
        """Read what the server sends next."""
        raise NotImplementedError

    def feed(self, direction: Direction, data: bytes) -> int:
        reader = Reader(data)
        unit = self.client_unit if direction is Direction.UP else self.server_unit
        others = self.want(direction.other)
        taken = 0
        try:
            # A unit that changes the other side's part is its turn: it may have waited for this.
            while (
                reader.left
                and self.want(direction) is LOOK
                and self.want(direction.other) is others
            ):
                unit(reader)
                taken = reader.at
        except Short:
            pass
        except ProtocolError as error:
            raise ProtocolError(f"{self.name}: {error.message}") from None
        return taken

    def skip(self, reader: Reader, direction: Direction, count: int) -> None:
        """Let the next `count` bytes of a direction pass, whether they have come yet or not."""
        here = min(count, reader.left)
        reader.at += here
        if count > here:
            self.set_want(direction, Pass(count - here))

    def go_inside(self) -> None:
        """An inner protocol begins with the next byte of both sides."""
        self.settled = True
        self.up = self.down = INNER

    def stay_plain(self) -> None:
        """Nothing more is to be learned, and nothing else begins."""
        self.settled = True
        self.up = self.down = PASS_ALL

    def end(self, direction: Direction) -> None:
        """Nobody can ask, or answer, any more."""
        self.stay_plain()
