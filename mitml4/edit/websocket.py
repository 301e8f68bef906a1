"""The messages of one direction of a WebSocket, whole (RFC 6455), with permessage-deflate undone
(RFC 7692).

A message that is not changed is sent as it came, with its frames and masks. A changed one is one
frame, compressed if it was. Where compressed messages refer to earlier ones, all later ones are
compressed anew from the first change on: the receiver's window has other bytes then.
"""

from __future__ import annotations

import os
import zlib
from dataclasses import field
from typing import Final

from mitml4.dataclass import dataclass
from mitml4.edit.messages import Message
from mitml4.errors import ProtocolError
from mitml4.payload.codings import BrokenCodingError
from mitml4.payload.deflate import MAX_INFLATED, Deflate, Inflater
from mitml4.protocols.conversation import Direction
from mitml4.protocols.http.websocket import Frame, frame_at, unmasked

__all__ = ["MessageEdit", "Pending", "TooLargeError"]

UP = Direction.UP

_FIN, _RSV1, _MASK = 0x80, 0x40, 0x80
_TEXT, _BINARY, _CONTROL = 0x1, 0x2, 0x8
_MIN_WINDOW_BITS: Final = 9
"""zlib has no smaller window for raw streams."""
_TAIL: Final = b"\0\0\xff\xff"  # RFC 7692 §7.2.1


class TooLargeError(Exception):
    """A message above the limit, which can no longer pass as it came."""


@dataclass(slots=True)
class Pending:
    """A message that the editor has to be asked about."""

    message: Message
    raw: bytes
    original: bytes
    opcode: int
    is_compressed: bool
    is_masked: bool


@dataclass(slots=True)
class _Partial:
    """A message of which frames have come."""

    opcode: int
    is_compressed: bool
    is_masked: bool
    raw: bytearray = field(default_factory=bytearray)
    content: bytearray = field(default_factory=bytearray)
    passes: bool = False
    """It is above the limit, or of an unknown extension, and passes as it comes."""


class MessageEdit:
    """One direction."""

    def __init__(self, direction: Direction, deflate: Deflate | None, limit: int) -> None:
        self._direction = direction
        self._limit = min(limit, MAX_INFLATED)
        self._data = bytearray()
        self._partial: _Partial | None = None
        self._passing = 0
        """Bytes of the current frame that pass."""
        self._inflater: Inflater | None = None
        self._keeps_context = False
        self._window_bits = 0
        self._compress: zlib._Compress | None = None
        self.is_broken = False
        """It cannot be read, and passes as it comes."""
        self.has_large = False
        """A message was above the limit."""
        if deflate:
            is_up = direction is UP
            self._keeps_context = (
                deflate.client_keeps_context if is_up else deflate.server_keeps_context
            )
            self._window_bits = deflate.client_window_bits if is_up else deflate.server_window_bits
            self._inflater = Inflater(keeps_context=self._keeps_context)

    def receive(self, data: bytes) -> list[bytes | Pending]:
        """What may be sent now, in order. Raises TooLargeError."""
        self._data += data
        found: list[bytes | Pending] = []
        while self._data and not self.is_broken:
            if self._passing:
                piece = bytes(self._data[: self._passing])
                del self._data[: len(piece)]
                self._passing -= len(piece)
                found.append(piece)
                continue
            try:
                frame = frame_at(bytes(self._data[:14]), 0)
            except ProtocolError:
                self._give_up()
                break
            if frame is None:
                break
            if not self._on_frame(frame, found):
                break
        if self.is_broken and self._data:
            if self._partial:
                found.append(bytes(self._partial.raw))
                self._partial = None
            found.append(bytes(self._data))
            self._data.clear()
        return found

    def _on_frame(self, frame: Frame, found: list[bytes | Pending]) -> bool:
        """Whether the frame was taken."""
        size = frame.header_size + frame.size
        if frame.opcode & _CONTROL:
            if len(self._data) < size:
                return False
            found.append(self._take(size))
            return True
        partial = self._partial
        if (partial is None) != bool(frame.opcode):
            self._give_up()
            return True
        if partial is None:
            is_known = not frame.reserved or (frame.reserved == _RSV1 and self._inflater)
            if not is_known:
                self._give_up()
                return True
            partial = _Partial(frame.opcode, bool(frame.reserved), bool(frame.mask))
        is_above = partial.passes or len(partial.content) + frame.size > self._limit
        if not is_above and len(self._data) < size:
            return False
        if self._partial is None:
            self._partial = partial
            if partial.is_compressed and self._inflater:
                self._inflater.begin()
        if is_above:
            return self._pass(partial, frame, found)
        raw = self._take(size)
        partial.raw += raw
        content = unmasked(frame.mask, raw[frame.header_size :], 0)
        try:
            partial.content += self._inflated(partial, content, frame.final)
        except BrokenCodingError:
            found.append(bytes(partial.raw))
            self._partial = None
            self._give_up()
            return True
        if frame.final:
            self._partial = None
            kind: str = "up" if self._direction is UP else "down"
            whole = bytes(partial.content)
            message = Message(
                direction="up" if kind == "up" else "down",
                is_text=partial.opcode == _TEXT,
                content=whole,
            )
            found.append(
                Pending(
                    message,
                    bytes(partial.raw),
                    whole,
                    partial.opcode,
                    partial.is_compressed,
                    partial.is_masked,
                )
            )
        return True

    def _pass(self, partial: _Partial, frame: Frame, found: list[bytes | Pending]) -> bool:
        """A message above the limit passes as it comes."""
        self.has_large = True
        if partial.is_compressed and self._keeps_context:
            # What comes later may refer to it, and is not read.
            found.append(bytes(partial.raw))
            self._partial = None
            self._give_up()
            return True
        found.append(bytes(partial.raw))
        partial.raw.clear()
        partial.passes = True
        found.append(self._take(frame.header_size))
        self._passing = frame.size
        if frame.final:
            self._partial = None
        return True

    def _inflated(self, partial: _Partial, content: bytes, is_last: bool) -> bytes:
        if not (partial.is_compressed and self._inflater):
            return content
        out = bytearray()

        def room() -> int:
            return 1

        for piece in self._inflater.read(content, room):
            out += piece
        if is_last:
            for piece in self._inflater.finish(room):
                out += piece
        return bytes(out)

    def _take(self, count: int) -> bytes:
        taken = bytes(self._data[:count])
        del self._data[:count]
        return taken

    def _give_up(self) -> None:
        if self._compress:
            raise TooLargeError("what comes can no longer pass as it came")
        self.is_broken = True

    def encode(self, pending: Pending) -> bytes:
        """A message as it is sent."""
        content = pending.message.content
        is_anew = pending.is_compressed and self._compress is not None
        if content == pending.original and not is_anew:
            return pending.raw
        first = _FIN | (_TEXT if pending.message.is_text else _BINARY)
        if pending.is_compressed and self._window_bits >= _MIN_WINDOW_BITS:
            content = self._compressed(content)
            first |= _RSV1
        return _frame(first, content, is_masked=pending.is_masked)

    def _compressed(self, content: bytes) -> bytes:
        compress = self._compress
        if compress is None:
            compress = zlib.compressobj(6, zlib.DEFLATED, -self._window_bits)
            if self._keeps_context:
                self._compress = compress
        data = compress.compress(content) + compress.flush(zlib.Z_SYNC_FLUSH)
        return data.removesuffix(_TAIL)


def _frame(first: int, content: bytes, *, is_masked: bool) -> bytes:
    size, mask_bit = len(content), _MASK if is_masked else 0
    if size < 126:
        head = bytes([first, mask_bit | size])
    elif size < 1 << 16:
        head = bytes([first, mask_bit | 126]) + size.to_bytes(2)
    else:
        head = bytes([first, mask_bit | 127]) + size.to_bytes(8)
    if not is_masked:
        return head + content
    mask = os.urandom(4)
    return head + mask + unmasked(mask, content, 0)
