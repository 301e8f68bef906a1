"""Handshakes in which the two sides take turns, such as those of SOCKS and VNC.

At each moment one side speaks. One function reads its next unit, and says who speaks next. The
other side waits: what it sends early stays unread until its turn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import TypeAlias

from mitml4.dataclass import dataclass
from mitml4.protocols.conversation import PAUSE, Direction
from mitml4.protocols.parts.fields import Reader
from mitml4.protocols.parts.units import Units

__all__ = ["Turn", "Turns"]

Turn: TypeAlias = Callable[[Reader], None]
"""Reads one unit, and calls `client_next`, `server_next`, `go_inside` or `stay_plain`."""


@dataclass(slots=True)
class Turns(Units):
    """A handshake, one unit a turn. A subclass names the first turn in `__post_init__`."""

    turn: Turn = field(init=False, repr=False)
    """Reads the next unit."""

    def client_next(self, turn: Turn) -> None:
        self.turn = turn
        self.await_client()

    def server_next(self, turn: Turn) -> None:
        self.turn = turn
        self.await_server()

    def client_unit(self, reader: Reader) -> None:
        self.turn(reader)

    def server_unit(self, reader: Reader) -> None:
        self.turn(reader)

    def end(self, direction: Direction) -> None:
        """A client may end its side after its request, and still be answered."""
        if direction is Direction.DOWN or self.down is PAUSE:
            self.stay_plain()
