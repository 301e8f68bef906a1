"""What the protocols share that are read in units: messages, packets, frames.

Each direction that is looked at is read unit by unit. Reading one either moves the reader behind
it (or behind its head, with a `Forward` over the body), or changes the direction's directive. A
unit that is not whole yet ends in `Short`, and is read again once more has come, so a conversation
learns from a unit only after its last field that matters.
"""

from __future__ import annotations

from dataclasses import dataclass

from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import PEEK, Direction
from mitml4.protocols.parts.fields import Reader, Short
from mitml4.protocols.parts.handshake import Handshake

__all__ = ["Units"]


@dataclass(slots=True)
class Units(Handshake):
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
        others = self.directive(direction.other)
        taken = 0
        try:
            # A unit that changes the other side's part is its turn: it may have waited for this.
            while (
                reader.left
                and self.directive(direction) is PEEK
                and self.directive(direction.other) is others
            ):
                unit(reader)
                taken = reader.at
        except Short:
            pass
        except ProtocolError as error:
            raise ProtocolError(f"{self.name}: {error.message}") from None
        return taken

    def skip_body(self, reader: Reader, direction: Direction, count: int) -> None:
        """Let the next `count` bytes of a direction pass, whether they have come yet or not."""
        here = min(count, reader.left)
        reader.at += here
        self.skip(direction, count - here)
