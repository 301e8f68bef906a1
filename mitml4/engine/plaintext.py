"""Copies of what moves in opened TLS, for tools that know no keys.

Only the innermost TLS that was opened is copied, without what a client says to a proxy before it.
Therefore bytes are held until it is known that no other layer is about to begin in them, or until
they are many.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from mitml4.dataclass import dataclass
from mitml4.protocols.conversation import Direction

__all__ = [
    "Copies",
    "Plaintext",
    "PlaintextBegun",
    "PlaintextMoved",
    "PlaintextReset",
    "PlaintextUpdate",
]

_MAX_HELD: Final = 64 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaintextBegun:
    """The innermost opened TLS of a flow is another one from here on."""

    flow: int
    time_ns: int
    """Since the epoch."""
    protocol: str | None
    """What it carries, if that is known."""
    port: int | None
    """The port that it is bound for: inside a tunnel, that of the tunnel's target."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaintextMoved:
    """Bytes have moved in the innermost opened TLS of a flow."""

    flow: int
    time_ns: int
    direction: Direction
    data: bytes = b""
    lost: int = 0
    """So many bytes have moved here that are missing."""

    @property
    def is_end(self) -> bool:
        """Whether the direction has ended: then there are no bytes."""
        return not (self.data or self.lost)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaintextReset:
    """A flow was reset by the sender of this direction."""

    flow: int
    time_ns: int
    direction: Direction


PlaintextUpdate: TypeAlias = PlaintextBegun | PlaintextMoved | PlaintextReset


class Plaintext:
    """The copies of one TLS layer, in the order in which both directions moved."""

    __slots__ = ("_begun", "_clock_ns", "_ended", "_flow", "_held", "_port", "_size", "_tell",
                 "innermost")  # fmt: skip

    def __init__(
        self,
        tell: Callable[[PlaintextUpdate], None],
        clock_ns: Callable[[], int],
        *,
        flow: int,
        port: int | None,
    ) -> None:
        self.innermost: Callable[[], str | None] = lambda: None
        """The layer inside, if it is known that no other one is about to begin in it."""
        self._tell = tell
        self._clock_ns = clock_ns
        self._flow = flow
        self._port = port
        self._held: list[PlaintextMoved] = []
        self._size = 0
        self._ended: set[Direction] = set()
        self._begun = False

    def moved(self, direction: Direction, data: bytes | memoryview) -> None:
        """These come next in a direction; none: it has ended."""
        if direction in self._ended:
            return
        if not data:
            self._ended.add(direction)
        self._hold(direction, data=bytes(data))

    def lost(self, direction: Direction, count: int) -> None:
        """So many bytes come next that are missing."""
        self._hold(direction, lost=count)

    def _hold(self, direction: Direction, data: bytes = b"", lost: int = 0) -> None:
        self._held.append(
            PlaintextMoved(
                flow=self._flow,
                time_ns=self._clock_ns(),
                direction=direction,
                data=data,
                lost=lost,
            )
        )
        self._size += len(data)
        self.settle()

    def settle(self) -> None:
        """Tell what is held, unless another layer may be about to begin."""
        if self._held and (self._size > _MAX_HELD or self.innermost()):
            self.flush()

    def flush(self) -> None:
        """Tell what is held, and that the layer has begun, also if nothing moves in it."""
        if not self._begun:
            self._begun = True
            time_ns = self._held[0].time_ns if self._held else self._clock_ns()
            self._tell(
                PlaintextBegun(
                    flow=self._flow, time_ns=time_ns, protocol=self.innermost(), port=self._port
                )
            )
        for each in self._held:
            self._tell(each)
        self.drop()

    def drop(self) -> None:
        """Forget what is held: TLS inside was opened."""
        self._held.clear()
        self._size = 0


Copies: TypeAlias = Callable[[int | None], Plaintext]
"""Makes what takes the copies of a TLS layer, which is bound for this port."""
