"""Keeps what is said in a layer, for `flow.data` events.

A layer may still turn out to be an outer one: what comes before a STARTTLS is not what was said.
Therefore its bytes are held until that is known.
"""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING, Final

from mitml4.dataclass import dataclass
from mitml4.payload.budget import Payload
from mitml4.payload.text import shown_data
from mitml4.protocols.conversation import Direction
from mitml4.protocols.flow_data import FlowData
from mitml4.protocols.payload import redacted

if TYPE_CHECKING:
    from mitml4.protocols.secrets.finder import SecretFinder, Span

__all__ = ["Recorder"]

_PIECE_BYTES: Final = 512
"""The memory of a piece beside its bytes."""


@dataclass(slots=True)
class _Piece:
    """Bytes of one direction, without the other's between them."""

    direction: Direction
    offset: int
    data: bytearray = field(default_factory=bytearray)
    truncated: bool = False


class Recorder:
    """The first bytes of both directions, up to the limit of each."""

    __slots__ = ("_cut", "_finders", "_held", "_offsets", "_payload", "memory")

    def __init__(self, payload: Payload, protocol: str, *, redacts: bool) -> None:
        self._payload = payload
        self._finders = _finders(protocol) if redacts else {}
        self._offsets = dict.fromkeys(Direction, 0)
        self._held: list[_Piece] = []
        self._cut: set[Direction] = set()
        """The directions of which bytes were not kept."""
        self.memory = 0
        """About how many bytes it holds."""

    def wants(self, direction: Direction) -> bool:
        """Whether it has to see the next bytes of a direction."""
        return direction not in self._cut

    def add(self, direction: Direction, data: bytes) -> None:
        """Keep these bytes, which come next in a direction, without the secrets in them. What may
        become a secret with the next bytes is kept then."""
        if direction in self._cut:
            return
        if finder := self._finders.get(direction):
            self._keep(direction, *finder.feed(data))
        else:
            self._keep(direction, data, [])

    def end(self) -> None:
        """No more bytes will come in any direction."""
        for direction, finder in self._finders.items():
            if direction not in self._cut:
                self._keep(direction, *finder.end())

    def _keep(self, direction: Direction, data: bytes, secrets: list[Span]) -> None:
        if not data:
            return
        piece = self._piece(direction)
        size = self._payload.take(self._reserve(len(data), self._offsets[direction]))
        self._offsets[direction] += size
        piece.data += _without(secrets, data[:size])
        if size < len(data):
            piece.truncated = True
            self._cut.add(direction)

    def take(self) -> list[FlowData]:
        """The events that have been held."""
        held, self._held = self._held, []
        self.discard()
        return [_event(piece) for piece in held]

    def discard(self) -> None:
        """Give the memory back."""
        self._payload.release(self.memory)
        self.memory = 0
        self._held = []

    def _piece(self, direction: Direction) -> _Piece:
        """Where the next bytes of a direction belong."""
        if not self._held or self._held[-1].direction is not direction:
            self.memory += self._payload.hold(_PIECE_BYTES)
            self._held.append(_Piece(direction, self._offsets[direction]))
        return self._held[-1]

    def _reserve(self, size: int, offset: int) -> int:
        granted = self._payload.hold(min(size, self._payload.limit - offset))
        self.memory += granted
        return granted


def _event(piece: _Piece) -> FlowData:
    content = shown_data(bytes(piece.data))
    return FlowData(
        direction=piece.direction,
        offset=piece.offset,
        text=content.text,
        base64=content.base64,
        truncated=piece.truncated,
    )


def _finders(protocol: str) -> dict[Direction, SecretFinder]:
    """The finders of a protocol, by the direction that they read."""
    from mitml4.protocols.secrets.table import CLIENT, SERVER  # only --payload needs them

    tables = {Direction.UP: CLIENT, Direction.DOWN: SERVER}
    return {way: table[protocol]() for way, table in tables.items() if protocol in table}


def _without(secrets: list[Span], data: bytes) -> bytes:
    for start, end in reversed(secrets):
        if start < len(data):
            data = data[:start] + redacted(end - start).encode() + data[end:]
    return data
