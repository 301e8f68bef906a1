"""The frames of HTTP/2 (RFC 9113 §4), read from copies of the bytes.

Of each frame the header of nine bytes is read. HPACK decodes header blocks; SETTINGS give the sizes
of its tables. The payload of every other frame, mostly DATA, is skipped by count. The reader's
memory is bounded: one frame header or header block per direction, and two HPACK tables.
"""

from __future__ import annotations

from dataclasses import field
from typing import Final, TypeVar

from hpack import Decoder, HPACKError
from hpack.hpack import decode_integer
from hpack.table import HeaderTable

from mitml4.dataclass import dataclass
from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import MIRROR, Conversation, Direction, Directive
from mitml4.protocols.http.exchange import HeaderFields
from mitml4.protocols.http.http2_wire import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    GOING_AWAY,
    HAS_PRIORITY,
    HEADER,
    HEADER_SIZE,
    HEADER_TABLE_SIZE,
    HEADERS,
    ID,
    PADDED,
    PREFACE,
    PRIORITY_SIZE,
    PROMISED_SIZE,
    PUSH_PROMISE,
    RST_STREAM,
    RST_STREAM_SIZE,
    SETTING,
    SETTINGS,
    unpadded,
)

__all__ = ["MAX_HEADER_BLOCK", "MAX_TABLE", "Block", "Frames"]

T = TypeVar("T")

MAX_HEADER_BLOCK: Final = 65536
"""Bytes of one header block, both as sent and decompressed."""
MAX_TABLE: Final = 65536
"""Bytes of a dynamic table of HPACK, even if more is negotiated."""
_ENTRY_BYTES: Final = 150
"""The memory of a table's entry beside its bytes."""

UP, DOWN = Direction.UP, Direction.DOWN

_PARSED: Final = frozenset({HEADERS, SETTINGS, PUSH_PROMISE, GOAWAY, CONTINUATION})


_REMEMBERED_BLOCKS: Final = 8
_REMEMBERED_BYTES: Final = 256
"""Of each side, so many header blocks of so many bytes at most."""


def _additions(block: bytes, fields: HeaderFields) -> HeaderFields | None:
    """Of the fields of a header block those that it adds to the table (RFC 7541 §6.2.1). None if
    its meaning depends on the dynamic table, or if it changes the table in another way."""
    at, added = 0, []
    for each in fields:
        first = block[at]
        bits = 7 if first & 0x80 else 6 if first & 0x40 else 4
        if bits == 4 and first & 0x20:  # §6.3: a new size
            return None
        index, taken = decode_integer(block[at:], bits)
        if index > HeaderTable.STATIC_TABLE_LENGTH:
            return None
        at += taken
        for _ in range(0 if bits == 7 else 1 if index else 2):  # §5.2: the value, or name and value
            length, taken = decode_integer(block[at:], 7)
            at += taken + length
        if bits == 6:
            added.append(each)
    return added


def _decoder() -> Decoder:
    """A decoder whose table is as large as the other side's SETTINGS allow. The encoder says in its
    header blocks how much of that it uses (RFC 7541 §4.2, §6.3)."""
    return Decoder(max_header_list_size=MAX_HEADER_BLOCK)


@dataclass(slots=True)
class _Frame:
    """A frame whose payload is read."""

    kind: int
    flags: int
    stream: int
    payload: bytes


@dataclass(slots=True)
class Block:
    """A header block: the stream that it is about, and the stream of its CONTINUATION frames."""

    on_stream: int
    about_stream: int
    ends_stream: bool
    fragments: bytearray = field(default_factory=bytearray)


@dataclass(slots=True)
class _Side:
    has_preface: bool = False
    """Whether the first SETTINGS frame has arrived, so that the preface is over."""
    kept: bytes = b""
    """The beginning of a frame that is not whole: less than a header block."""
    skip: int = 0
    """Payload bytes of the current frame that are skipped."""
    content: int = 0
    """How many of these, at their start, are content of `content_of`; the rest is padding."""
    content_of: int | None = None
    """The stream of that content, if the content is read."""
    ends: int | None = None
    """The stream whose half ends with this frame."""
    block: Block | None = None
    decoder: Decoder = field(default_factory=_decoder)
    _decoded: dict[bytes, HeaderFields] = field(default_factory=dict)
    """What short header blocks contain, while the table is as it is: requests and responses often
    repeat, and decoding is the most expensive part of reading them."""
    _repeatable: dict[bytes, tuple[HeaderFields, HeaderFields]] = field(default_factory=dict)
    """Short header blocks that do not refer to the table, but add to it, as those of nginx do: what
    they contain, and what of that they add."""

    def decode(self, block: bytes) -> HeaderFields:
        """The fields of a header block. Raises HPACKError."""
        if known := self._decoded.get(block):
            return known
        table = self.decoder.header_table
        if block in self._repeatable:
            fields, added = self._repeatable[block]
            for name, value in added:
                table.add(name, value)
            self._decoded.clear()
            return fields
        entries = table.dynamic_entries
        size, count, newest = table.maxsize, len(entries), entries[0] if entries else None
        decoded = self.decoder.decode(block, raw=True)
        fields = tuple((bytes(name), bytes(value)) for name, value in decoded)
        is_same = (table.maxsize, len(entries)) == (size, count)
        if is_same and (not entries or entries[0] is newest):
            self._remember(self._decoded, block, fields)
        else:
            self._decoded.clear()
            if (additions := _additions(block, fields)) is not None:
                self._remember(self._repeatable, block, (fields, additions))
        return fields

    @staticmethod
    def _remember(memory: dict[bytes, T], block: bytes, what: T) -> None:
        if len(block) <= _REMEMBERED_BYTES:
            if len(memory) >= _REMEMBERED_BLOCKS:
                memory.clear()
            memory[block] = what


@dataclass(slots=True)
class Frames(Conversation):
    """Reads both directions, frame by frame, from the client's preface on. For subclassing."""

    up: Directive = MIRROR
    down: Directive = MIRROR
    sides: dict[Direction, _Side] = field(
        default_factory=lambda: {direction: _Side() for direction in Direction}, repr=False
    )

    def read_block(self, direction: Direction, block: Block, headers: HeaderFields) -> None:
        """A header block is whole: a request, a response, or trailers."""
        raise NotImplementedError

    def count_content(self, direction: Direction, stream: int, size: int) -> bool:
        """Content of this size follows in a stream. Returns whether `read_content` shall get it."""
        raise NotImplementedError

    def read_content(self, direction: Direction, stream: int, content: bytes) -> None:
        """A part of a stream's content."""
        raise NotImplementedError

    def end_half(self, direction: Direction, stream: int) -> None:
        """END_STREAM was seen in a direction."""
        raise NotImplementedError

    def reset_stream(self, stream: int, code: int) -> None:
        """One side reset a stream."""
        raise NotImplementedError

    def go_away(self, direction: Direction, last: int, code: int) -> None:
        """The other side's streams above the last one named will not be served (RFC 9113 §6.8)."""
        raise NotImplementedError

    def feed(self, direction: Direction, data: bytes) -> int:
        if self.named:
            self.named.clear()
        side = self.sides[direction]
        side.kept = self._read(direction, side, side.kept + data if side.kept else data)
        return len(data)

    def _read(self, direction: Direction, side: _Side, data: bytes) -> bytes:
        """Read all frames that are whole. Returns the rest."""
        at = 0 if side.has_preface else self._begin(direction, side, data)
        while side.has_preface:
            passing = min(side.skip, len(data) - at)
            if passing and side.content_of is not None:
                content = data[at : at + min(passing, side.content)]
                side.content -= len(content)
                self.read_content(direction, side.content_of, content)
            side.skip -= passing
            if side.skip:
                return b""
            at += passing
            if side.ends is not None:
                self.end_half(direction, side.ends)
                side.ends = None
            taken = self._frame(direction, side, data, at)
            if not taken:
                break
            at += taken
        return data[at:]

    @property
    def memory(self) -> int:
        held = 0
        for side in self.sides.values():
            table = side.decoder.header_table
            if entries := len(table.dynamic_entries):
                held += table.maxsize + _ENTRY_BYTES * entries
        return held

    def _begin(self, direction: Direction, side: _Side, data: bytes) -> int:
        """Check the first bytes of a side (RFC 9113 §3.4). Returns where its frames begin, 0 if
        unknown."""
        preface = PREFACE if direction is UP else b""
        if not data.startswith(preface[: len(data)]):
            raise ProtocolError("HTTP/2: no preface")
        if len(data) < len(preface) + HEADER_SIZE:
            return 0
        _, _, kind, flags, stream = HEADER.unpack_from(data, len(preface))
        if (kind, flags, stream) != (SETTINGS, 0, 0):
            raise ProtocolError("HTTP/2: does not begin with SETTINGS")
        side.has_preface = True
        return len(preface)

    def _frame(self, direction: Direction, side: _Side, data: bytes, at: int) -> int:
        """Read the frame at `at`. Returns how many of its bytes were used, 0 if it is not whole."""
        if len(data) - at < HEADER_SIZE:
            return 0
        high, low, kind, flags, stream = HEADER.unpack_from(data, at)
        length: int = high << 8 | low
        stream &= ID
        start = at + HEADER_SIZE
        if side.block and (kind != CONTINUATION or stream != side.block.on_stream):
            raise ProtocolError("HTTP/2: a header block is interrupted")
        if kind == HEADERS and flags & END_HEADERS and not flags & PADDED and stream:
            return self._whole_headers(
                direction, flags, stream, data[start : start + length], length
            )
        if kind in _PARSED or (kind == RST_STREAM and length == RST_STREAM_SIZE):
            if length > MAX_HEADER_BLOCK:
                raise ProtocolError("HTTP/2: a frame other than DATA that is longer than 64 KiB")
            if len(data) - start < length:
                return 0
            frame = _Frame(kind, flags, stream, data[start : start + length])
            self._parsed(direction, side, frame)
            return HEADER_SIZE + length
        is_padded = kind == DATA and length > 0 and flags & PADDED
        if is_padded and len(data) == start:
            return 0
        size = HEADER_SIZE + 1 if is_padded else HEADER_SIZE
        side.skip, side.content_of = HEADER_SIZE + length - size, None
        if kind == DATA:
            padding = data[start] if is_padded else 0
            self._content(direction, side, flags, stream, side.skip - padding)
        return size

    def _whole_headers(
        self, direction: Direction, flags: int, stream: int, payload: bytes, length: int
    ) -> int:
        """A HEADERS frame that needs no CONTINUATION, as most. Returns as `_frame` does."""
        if length > MAX_HEADER_BLOCK:
            raise ProtocolError("HTTP/2: a frame other than DATA that is longer than 64 KiB")
        if len(payload) < length:
            return 0
        block = Block(stream, stream, bool(flags & END_STREAM))
        fragment = payload[PRIORITY_SIZE:] if flags & HAS_PRIORITY else payload
        self._headers(direction, block, fragment)
        return HEADER_SIZE + length

    def _parsed(self, direction: Direction, side: _Side, frame: _Frame) -> None:
        """A frame whose payload is read."""
        if frame.kind == SETTINGS:
            self._settings(direction, frame.flags, frame.payload)
        elif frame.kind == GOAWAY:
            self._go_away(direction, frame.payload)
        elif frame.kind == RST_STREAM:
            self.reset_stream(frame.stream, int.from_bytes(frame.payload, "big"))
        else:
            self._fragment(direction, side, frame)

    def _content(
        self, direction: Direction, side: _Side, flags: int, stream: int, size: int
    ) -> None:
        """A DATA frame with this size of content, without its padding (RFC 9113 §6.1)."""
        if size < 0:
            raise ProtocolError("HTTP/2: padding longer than its frame")
        side.content = size
        if self.count_content(direction, stream, size):
            side.content_of = stream
        side.ends = stream if flags & END_STREAM else None

    def _settings(self, direction: Direction, flags: int, payload: bytes) -> None:
        """Set the largest table that the other side's encoder may use.

        A smaller size is valid only once it is acknowledged, so the larger one stays.
        """
        if flags & ACK or len(payload) % SETTING.size:
            return
        decoder = self.sides[direction.other].decoder
        for setting, value in SETTING.iter_unpack(payload):
            if setting == HEADER_TABLE_SIZE:
                allowed = max(decoder.max_allowed_table_size, value)
                decoder.max_allowed_table_size = min(allowed, MAX_TABLE)

    def _fragment(self, direction: Direction, side: _Side, frame: _Frame) -> None:
        """A frame that carries a header block, or a part of it (RFC 9113 §4.3)."""
        if frame.kind == CONTINUATION:
            fragment = frame.payload
        else:
            fragment = unpadded(frame.flags, frame.payload)
            about = frame.stream
            if frame.kind == PUSH_PROMISE:
                about = int.from_bytes(fragment[:PROMISED_SIZE], "big") & ID
                fragment = fragment[PROMISED_SIZE:]
            elif frame.flags & HAS_PRIORITY:
                fragment = fragment[PRIORITY_SIZE:]
            is_in_place = frame.stream and (frame.kind == HEADERS or direction is DOWN)
            ends = frame.kind == HEADERS and bool(frame.flags & END_STREAM)
            side.block = Block(frame.stream, about, ends) if is_in_place else None
        block = side.block
        if block is None:
            raise ProtocolError("HTTP/2: a header block in a wrong place")
        block.fragments += fragment
        if len(block.fragments) > MAX_HEADER_BLOCK:
            raise ProtocolError("HTTP/2: a header block longer than 64 KiB")
        if frame.flags & END_HEADERS:
            side.block = None
            self._headers(direction, block, bytes(block.fragments))

    def _headers(self, direction: Direction, block: Block, encoded: bytes) -> None:
        try:
            fields = self.sides[direction].decode(encoded)
        except HPACKError as error:
            raise ProtocolError(f"HTTP/2: {error}") from error
        self.read_block(direction, block, fields)
        if block.ends_stream:
            self.end_half(direction, block.about_stream)

    def _go_away(self, direction: Direction, payload: bytes) -> None:
        if len(payload) < GOING_AWAY.size:
            raise ProtocolError("HTTP/2: a short GOAWAY")
        last, code = GOING_AWAY.unpack_from(payload)
        self.go_away(direction, last & ID, code)
