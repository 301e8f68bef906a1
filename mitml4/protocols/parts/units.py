"""Protocols of units: messages, packets or frames, read one by one.

Reading a unit moves the reader after it (or after its head, with a `Forward` over the body), or
changes the direction's directive. A unit that is not whole raises `Short`, and is read again once
more bytes have arrived. So a subclass stores what it learns only after the unit's last field.
"""

from __future__ import annotations

from mitml4.dataclass import dataclass
from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import PEEK, Direction
from mitml4.protocols.parts.fields import Reader, Short
from mitml4.protocols.parts.handshake import Handshake

__all__ = ["Units"]


@dataclass(slots=True)
class Units(Handshake):
    """A conversation in units. For subclassing."""

    def client_unit(self, reader: Reader) -> None:
        """Read the client's next unit."""
        raise NotImplementedError

    def server_unit(self, reader: Reader) -> None:
        """Read the server's next unit."""
        raise NotImplementedError

    def feed(self, direction: Direction, data: bytes) -> int:
        reader = Reader(data)
        unit = self.client_unit if direction is Direction.UP else self.server_unit
        others = self.directive(direction.other)
        taken = 0
        try:
            # Stop after a unit that changes the other side's directive: it may be its turn now.
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
        """Pass the next `count` bytes of a direction unread, whether they have arrived or not."""
        here = min(count, reader.left)
        reader.at += here
        self.skip(direction, count - here)
