"""WebSocket (RFC 6455): the messages of an upgraded connection, read from copies of the bytes.

Frame headers are read and payloads skipped by count, unless --payload wants them: then they are
unmasked, and inflated if permessage-deflate was negotiated (payload/deflate.py). Sizes are those on
the wire.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field
from typing import ClassVar, Final

from mitml4.dataclass import dataclass
from mitml4.errors import ProtocolError
from mitml4.payload.body import Body
from mitml4.payload.budget import Payload
from mitml4.payload.deflate import EXTENSION as DEFLATE
from mitml4.payload.deflate import Inflater, negotiated
from mitml4.payload.text import PayloadText, Shown, base64_of, shown_text
from mitml4.protocols.conversation import (
    MIRROR,
    Conversation,
    Details,
    Direction,
    Directive,
    Protocol,
)
from mitml4.protocols.protocol_event import ProtocolEvent

__all__ = [
    "PROTOCOL",
    "Frame",
    "Messages",
    "WebSocket",
    "WebSocketDetails",
    "WebSocketMessage",
    "frame_at",
    "unmasked",
]

# RFC 6455 §5.2
_FIN: Final = 0x80
_RSV1: Final = 0x40  # RFC 7692 §6: "Per-Message Compressed"
_RSV: Final = 0x70
_MASK: Final = 0x80
_CONTINUATION: Final = 0x0
_CONTROL: Final = 0x8
_OPCODES: Final = {0x1: "text", 0x2: "binary", 0x8: "close", 0x9: "ping", 0xA: "pong"}
_MAX_CONTROL: Final = 125
_LENGTH_SIZES: Final = {126: 2, 127: 8}

UP, DOWN = Direction.UP, Direction.DOWN


@dataclass(frozen=True, slots=True)
class Frame:
    """The header of a frame."""

    opcode: int
    final: bool
    header_size: int
    size: int
    reserved: int
    """The bits that extensions use."""
    mask: bytes
    """Empty if there is none."""


def frame_at(data: bytes, at: int) -> Frame | None:
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
    mask = data[at + header_size - 4 : at + header_size] if second & _MASK else b""
    return Frame(opcode, bool(first & _FIN), header_size, size, first & _RSV, mask)


def unmasked(mask: bytes, data: bytes, offset: int) -> bytes:
    """Undo the masking of bytes that begin at this offset of a frame's payload (RFC 6455 §5.3)."""
    if not mask:
        return data
    size = len(data)
    start = offset % len(mask)
    key = (mask[start:] + mask[:start]) * (size // len(mask) + 1)
    return (int.from_bytes(data) ^ int.from_bytes(key[:size])).to_bytes(size)


@dataclass(slots=True)
class _Side:
    kept: bytes = b""
    """The beginning of a frame header."""
    frame: Frame | None = None
    """The current frame."""
    skip: int = 0
    """Bytes of its payload that have not arrived."""
    message: int | None = None
    """The opcode of the current message in fragments."""
    size: int = 0
    """The size of its fragments so far."""
    body: Body | None = None
    """What is kept of the current message."""
    control: Body | None = None
    """What is kept of the current control frame, which may come between fragments."""
    inflater: Inflater | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSocketMessage(ProtocolEvent):
    """A message (with all fragments) or a control frame was complete. `stream`: the HTTP/2
    stream that carries it (RFC 8441); null over HTTP/1. With --payload: either `text` or `base64`,
    with permessage-deflate undone. `coding_error`: why that could not be done, so that the message
    is as it came. `truncated`: there is more than is shown.
    """

    type: ClassVar[str] = "websocket.message"
    direction: Direction
    opcode: str
    size: int
    stream: int | None = None
    text: PayloadText | None = None
    base64: PayloadText | None = None
    truncated: bool | None = None
    coding_error: str | None = None

    @property
    def payload_size(self) -> int:
        return len(self.text or self.base64 or "")

    @property
    def summary(self) -> str:
        return f"{self.opcode}, {self.size} B {self.direction.value}"

    @property
    def in_stream_layer(self) -> bool:
        return self.stream is not None


class Messages:
    """Reads the messages of both directions from copies of the bytes."""

    __slots__ = ("_payload", "_sides", "_stream")

    def __init__(
        self, payload: Payload | None = None, extensions: bytes = b"", stream: int | None = None
    ) -> None:
        """`payload`: the bounds of what is shown, if anything is. `extensions`: what the response
        says of them. `stream`: the stream of HTTP/2 that carries the messages."""
        self._payload = payload
        self._stream = stream
        self._sides = {direction: _Side() for direction in Direction}
        if payload and (deflate := negotiated(extensions)):
            self._sides[UP].inflater = Inflater(keeps_context=deflate.client_keeps_context)
            self._sides[DOWN].inflater = Inflater(keeps_context=deflate.server_keeps_context)

    def read(self, direction: Direction, data: bytes) -> Iterator[WebSocketMessage]:
        """The messages that end in the next bytes of a direction. Raises ProtocolError."""
        side = self._sides[direction]
        data, side.kept = side.kept + data, b""
        at = 0
        while True:
            passing = min(side.skip, len(data) - at)
            if passing and side.frame is not None and self._payload:
                self._keep(side, side.frame, data[at : at + passing])
            side.skip -= passing
            if side.skip:
                return
            at += passing
            if side.frame is not None:
                yield from self._ended(direction, side, side.frame)
            side.frame = frame_at(data, at)
            if side.frame is None:
                side.kept = data[at:]
                return
            at += side.frame.header_size
            side.skip = side.frame.size
            if self._payload:
                self._begin(self._payload, side, side.frame)

    def close(self) -> None:
        """Nothing more comes. What is kept of messages that have not ended is given up."""
        for side in self._sides.values():
            for body in (side.body, side.control):
                if body:
                    body.discard()
            side.body = side.control = None

    def _begin(self, payload: Payload, side: _Side, frame: Frame) -> None:
        """A frame begins, and its message too unless it is a fragment."""
        if frame.opcode & _CONTROL:
            side.control = Body(payload)
        elif side.body is None and not frame.reserved:
            side.body = Body(payload)
        elif side.body is None and side.inflater and frame.reserved == _RSV1:
            side.inflater.begin()
            side.body = Body(payload, (DEFLATE,), side.inflater)
        elif side.body is None:  # of an extension that is not known
            side.body = Body(payload, ("websocket extension",))

    def _keep(self, side: _Side, frame: Frame, data: bytes) -> None:
        """A part of a frame's payload."""
        body = side.control if frame.opcode & _CONTROL else side.body
        if body and body.is_wanted:
            body.write(unmasked(frame.mask, data, frame.size - side.skip))
        elif body:
            body.skip(len(data))

    def _ended(self, direction: Direction, side: _Side, frame: Frame) -> Iterator[WebSocketMessage]:
        """A frame is complete, and its message too unless fragments follow (RFC 6455 §5.4)."""
        opcode, size = frame.opcode, frame.size
        if opcode & _CONTROL:
            body, side.control = side.control, None
        else:
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
            body, side.body = side.body, None
        yield self._message(direction, _OPCODES[opcode], size, body)

    def _message(
        self, direction: Direction, opcode: str, size: int, body: Body | None
    ) -> WebSocketMessage:
        if body is None:
            return WebSocketMessage(
                direction=direction, opcode=opcode, size=size, stream=self._stream
            )
        content = body.end(is_complete=True)
        if opcode == "text" and not content.fault:
            found = shown_text(content.data, truncated=content.truncated)
        else:
            found = Shown(base64=base64_of(content.data))
        return WebSocketMessage(
            direction=direction,
            opcode=opcode,
            size=size,
            stream=self._stream,
            text=found.text,
            base64=found.base64,
            truncated=content.truncated,
            coding_error=content.fault,
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
    messages: Messages = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.messages = Messages(self.context.shown.payload, self.context.negotiated)

    def close(self) -> None:
        self.messages.close()

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
