"""WebSocket (RFC 6455): the messages of an upgraded connection, read from copies of the bytes.

Frame headers are read and payloads skipped by count. Sizes are those on the wire: data that an
extension (permessage-deflate, RFC 7692) has compressed stays compressed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field
from typing import ClassVar, Final

from mitml4.dataclass import dataclass
from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import (
    MIRROR,
    Conversation,
    Details,
    Direction,
    Directive,
    Protocol,
)
from mitml4.protocols.protocol_event import ProtocolEvent

__all__ = ["PROTOCOL", "Messages", "WebSocket", "WebSocketDetails", "WebSocketMessage"]

# RFC 6455 §5.2
_FIN: Final = 0x80
_MASK: Final = 0x80
_CONTINUATION: Final = 0x0
_CONTROL: Final = 0x8
_OPCODES: Final = {0x1: "text", 0x2: "binary", 0x8: "close", 0x9: "ping", 0xA: "pong"}
_MAX_CONTROL: Final = 125
_LENGTH_SIZES: Final = {126: 2, 127: 8}


@dataclass(frozen=True, slots=True)
class _Frame:
    opcode: int
    final: bool
    header_size: int
    size: int


def _frame(data: bytes, at: int) -> _Frame | None:
    """The frame at `at`; None if its header is not whole."""
    if len(data) - at < 2:
        return None
    first, second = data[at], data[at + 1]
    opcode, size = first & 0x0F, second & 0x7F
    end = at + 2 + _LENGTH_SIZES.get(size, 0)
    header_size = end - at + (4 if second & _MASK else 0)
    if len(data) - at < header_size:
        return None
    if size in _LENGTH_SIZES:
        size = int.from_bytes(data[at + 2 : end], "big")
    if size >> 63:
        raise ProtocolError("WebSocket: a frame of 2^63 bytes or more")
    if opcode != _CONTINUATION and opcode not in _OPCODES:
        raise ProtocolError(f"WebSocket: unknown opcode {opcode}")
    if opcode & _CONTROL and (size > _MAX_CONTROL or not first & _FIN):
        raise ProtocolError("WebSocket: a control frame that is too long, or in fragments")
    return _Frame(opcode, bool(first & _FIN), header_size, size)


@dataclass(slots=True)
class _Side:
    kept: bytes = b""
    """The beginning of a frame header."""
    frame: _Frame | None = None
    """The current frame."""
    skip: int = 0
    """Bytes of its payload that have not arrived."""
    message: int | None = None
    """The opcode of the current message in fragments."""
    size: int = 0
    """The size of its fragments so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSocketMessage(ProtocolEvent):
    """A message (with all fragments) or a control frame was complete. `stream`: the HTTP/2
    stream that carries it (RFC 8441); null over HTTP/1.
    """

    type: ClassVar[str] = "websocket.message"
    direction: Direction
    opcode: str
    size: int
    stream: int | None = None

    @property
    def summary(self) -> str:
        return f"{self.opcode}, {self.size} B {self.direction.value}"

    @property
    def in_stream_layer(self) -> bool:
        return self.stream is not None


@dataclass(slots=True)
class Messages:
    """Reads the messages of both directions from copies of the bytes."""

    stream: int | None = None
    """The stream of HTTP/2 that carries them."""
    _sides: dict[Direction, _Side] = field(
        default_factory=lambda: {direction: _Side() for direction in Direction}
    )

    def read(self, direction: Direction, data: bytes) -> Iterator[WebSocketMessage]:
        """The messages that end in the next bytes of a direction. Raises ProtocolError."""
        side = self._sides[direction]
        data, side.kept = side.kept + data, b""
        at = 0
        while True:
            passing = min(side.skip, len(data) - at)
            side.skip -= passing
            if side.skip:
                return
            at += passing
            if side.frame is not None:
                yield from self._ended(direction, side, side.frame)
            side.frame = _frame(data, at)
            if side.frame is None:
                side.kept = data[at:]
                return
            at += side.frame.header_size
            side.skip = side.frame.size

    def _ended(
        self, direction: Direction, side: _Side, frame: _Frame
    ) -> Iterator[WebSocketMessage]:
        """A frame is complete, and its message too unless fragments follow (RFC 6455 §5.4)."""
        opcode, size = frame.opcode, frame.size
        if not opcode & _CONTROL:
            if (opcode == _CONTINUATION) != (side.message is not None):
                raise ProtocolError(
                    "WebSocket: a fragment without a first one, or a message within another"
                )
            side.message = side.message or opcode
            side.size += size
            if not frame.final:
                return
            opcode, size = side.message, side.size
            side.message, side.size = None, 0
        yield WebSocketMessage(
            direction=direction, opcode=_OPCODES[opcode], size=size, stream=self.stream
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSocketDetails(Details):
    """None: the negotiation is in the HTTP headers of the outer layer."""


@dataclass(slots=True)
class WebSocket(Conversation):
    """A connection of WebSocket frames, after the 101."""

    name: ClassVar[str] = "websocket"
    may_lead_on: ClassVar[bool] = False

    up: Directive = MIRROR
    down: Directive = MIRROR
    details_ready: bool = True
    messages: Messages = field(default_factory=Messages, repr=False)

    def feed(self, direction: Direction, data: bytes) -> int:
        self.protocol_events += self.messages.read(direction, data)
        return len(data)

    def details(self) -> WebSocketDetails:
        return WebSocketDetails()


PROTOCOL: Final = Protocol(
    name=WebSocket.name,
    detect=None,
    converse=lambda context: WebSocket(context=context),
    has_messages=True,
    events=(WebSocketMessage,),
)
