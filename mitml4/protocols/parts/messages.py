"""Messages of a head and a body, one behind the other, read from copies of what moves: RTSP, SIP.

A head is a first line, header lines (`name: value`) and an empty line. `Content-Length` (`l`, too,
in SIP) counts the body. Bodies that nobody wants are passed over. RTSP puts frames of media between
messages, each behind a `$` (RFC 2326 §10.12); nothing is read from there on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import field
from typing import ClassVar, Final

from mitml4.dataclass import dataclass
from mitml4.protocols.conversation import FORWARD_ALL, Conversation, Direction, Directive
from mitml4.protocols.parts.heads import MAX_HEAD, parse_head
from mitml4.protocols.parts.tail import COPIED
from mitml4.regex import regex

__all__ = ["SDP", "Message", "MessageConversation", "Messages"]

SDP: Final = b"application/sdp"
MAX_BODY: Final = 65536
FRAME: Final = b"$"
_END: Final = regex(rb"\n\r?\n")
_LENGTH: Final = regex(rb"[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class Message:
    """The first line, the headers by lower-case name (the first of equals), and the body if it is a
    session description."""

    line: bytes
    headers: Mapping[bytes, bytes]
    sdp: bytes = b""


class Messages:
    """One direction."""

    __slots__ = ("_begun", "_head", "_size", "_skipped", "has_frames", "over", "unread")

    def __init__(self) -> None:
        self.over = False
        """What follows is no message, or too long; nothing more is read."""
        self.has_frames = False
        self.unread = 0
        """Bytes of the last ones from a frame on."""
        self._begun = b""
        self._head: tuple[bytes, Mapping[bytes, bytes]] | None = None
        """Of a message whose body is wanted, and has `_size` bytes."""
        self._size = 0
        self._skipped = 0
        """Bytes of a body that are still to come."""

    def read(self, data: bytes) -> Iterator[Message]:
        """The messages that end in these bytes."""
        self._begun += data
        while not self.over and (message := self._next()):
            yield message

    def _next(self) -> Message | None:
        if self._head:
            if len(self._begun) < self._size:
                return None
            message = Message(*self._head, self._drop(self._size))
            self._head = None
            return message
        self._skipped -= len(self._drop(self._skipped))
        self._begun = self._begun.lstrip(b"\r\n")
        if self._begun.startswith(FRAME):
            self.has_frames, self.unread = True, len(self._begun)
            self._stop()
            return None
        end = _END.search(self._begun)
        if end is None or end.end() > MAX_HEAD:
            if len(self._begun) > MAX_HEAD:
                self._stop()
            return None
        line, headers = parse_head(self._drop(end.end())[: end.start()])
        length = headers.get(b"content-length", headers.get(b"l", b"0"))
        if _LENGTH.fullmatch(length) is None:
            self._stop()
            return Message(line, headers)
        return self._with_body(line, headers, int(length))

    def _with_body(self, line: bytes, headers: Mapping[bytes, bytes], size: int) -> Message | None:
        kind = headers.get(b"content-type", headers.get(b"c", b""))
        if 0 < size <= MAX_BODY and kind.lower().startswith(SDP):
            self._head, self._size = (line, headers), size
            return self._next()
        self._skipped = size
        return Message(line, headers)

    def _drop(self, count: int) -> bytes:
        dropped, self._begun = self._begun[:count], self._begun[count:]
        return dropped

    def _stop(self) -> None:
        self.over = True
        self._begun = b""


@dataclass(slots=True)
class MessageConversation(Conversation):
    """Reads the messages of both sides, holding none back. For subclassing."""

    read_on: ClassVar[Directive] = COPIED
    """Behind the first message."""

    _messages: dict[Direction, Messages] = field(
        default_factory=lambda: {direction: Messages() for direction in Direction}, repr=False
    )
    _silent: set[Direction] = field(default_factory=lambda: set(Direction), repr=False)
    """The sides without a message yet."""

    def message(self, direction: Direction, message: Message, *, is_first: bool) -> None:
        """Called with each message."""
        raise NotImplementedError

    def feed(self, direction: Direction, data: bytes) -> int:
        self.copied(direction, data)
        return len(data)

    def copied(self, direction: Direction, data: bytes) -> None:
        messages = self._messages[direction]
        for message in messages.read(data):
            self.message(direction, message, is_first=direction in self._silent)
            self._heard(direction)
        if messages.over:
            self.end(direction)

    def _heard(self, direction: Direction) -> None:
        self._silent.discard(direction)
        self.details_ready = not self._silent
        self.set_directive(direction, self.read_on)

    def end(self, direction: Direction) -> None:
        """Read no more in this direction."""
        self._heard(direction)
        self.set_directive(direction, FORWARD_ALL)
