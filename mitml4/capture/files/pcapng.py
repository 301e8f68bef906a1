"""The pcapng format: sections of blocks, each section with its own byte order and interfaces.

Source: https://www.ietf.org/archive/id/draft-ietf-opsawg-pcapng-04.html, sections in brackets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import field
from struct import Struct
from typing import Final

from mitml4.capture.files.source import Source
from mitml4.capture.packet import MAX_BLOCK, Packet
from mitml4.dataclass import dataclass

__all__ = [
    "COMMENT",
    "ENHANCED_PACKET",
    "IF_TSRESOL",
    "INTERFACE",
    "SECRETS",
    "SECTION",
    "SECTION_HEADER",
    "TLS_KEY_LOG",
    "read_pcapng",
]

SECTION_HEADER: Final = bytes.fromhex("0a0d0d0a")
"""The type of the block that a section begins with [4.1], the same in both byte orders."""

_BYTE_ORDERS: Final = {bytes.fromhex("1a2b3c4d"): ">", bytes.fromhex("4d3c2b1a"): "<"}

SECTION: Final = 0x0A0D0D0A
INTERFACE: Final = 1  # [4.2]
_OLD_PACKET: Final = 2  # [A]
_SIMPLE_PACKET: Final = 3  # [4.4]
ENHANCED_PACKET: Final = 6  # [4.3]
SECRETS: Final = 10  # [4.7]

TLS_KEY_LOG: Final = 0x544C534B
_END_OF_OPTIONS: Final = 0
COMMENT: Final = 1  # [3.5]
IF_TSRESOL: Final = 9
_IF_TSOFFSET: Final = 14
_MAX_INTERFACES: Final = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class _Interface:
    link_type: int
    snap_length: int
    ticks: int
    """Per second."""
    offset_s: int

    def time_s(self, high: int, low: int) -> float:
        return (high << 32 | low) / self.ticks + self.offset_s


def read_pcapng(
    source: Source,
    on_secrets: Callable[[bytes], object],
    on_comment: Callable[[float, str], object],
) -> Iterator[Packet]:
    """Every packet of every section; TLS key log lines go to `on_secrets`, in their order
    among the packets.

    Raises CaptureError at the first block that is broken or cut off.
    """
    section = _Section(source, on_secrets, on_comment)
    while source.more(12):
        if source.data.startswith(SECTION_HEADER, source.at):
            section = _Section(source, on_secrets, on_comment)
        section.await_block()
        yield from section.packets()
    source.finish("the file ends inside a block")


@dataclass(slots=True)
class _Section:
    """Reads the blocks of one section, from its header block on."""

    source: Source
    on_secrets: Callable[[bytes], object]
    on_comment: Callable[[float, str], object]
    order: str = ""
    interfaces: list[_Interface] = field(default_factory=list)
    last_time_s: float = 0.0

    def __post_init__(self) -> None:
        source = self.source
        if not source.more(12):
            raise source.error("the file ends inside its header")
        magic = source.data[source.at + 8 : source.at + 12]
        if magic not in _BYTE_ORDERS:
            raise source.error("a section of neither byte order")
        self.order = _BYTE_ORDERS[magic]

    def numbers(self, form: str) -> Struct:
        return Struct(self.order + form)

    def await_block(self) -> None:
        """Read on until the block that begins here is complete. Raises CaptureError."""
        length = self.numbers("I").unpack_from(self.source.data, self.source.at + 4)[0]
        if length < 12 or length % 4 or length > MAX_BLOCK:
            raise self.source.error(f"a block of {length} bytes")
        if not self.source.more(length):
            raise self.source.error("the file ends inside a block")

    def packets(self) -> Iterator[Packet]:
        """The packets that are complete in the window, up to the next section. Then the window
        begins behind them."""
        source, interfaces = self.source, self.interfaces
        header = self.numbers("II").unpack_from
        enhanced = self.numbers("IIII").unpack_from
        comment = self.numbers("H").pack(COMMENT)
        data, start, size = source.data, source.at, len(source.data)
        at = start
        while at + 12 <= size:
            kind, length = header(data, at)
            if length < 12 or length & 3 or at + length > size:
                break
            if kind == ENHANCED_PACKET:
                source.at = at
                if length < 32:
                    raise source.error("a packet block that is too short")
                index, high, low, captured = enhanced(data, at + 8)
                if index >= len(interfaces) or captured > length - 32:
                    raise source.error("a broken packet block")
                interface = interfaces[index]
                time_s = (high << 32 | low) / interface.ticks + interface.offset_s
                options = at + 28 + (captured + 3 & ~3)
                if data[options : options + 2] == comment:
                    self._show_comment(time_s, data[options : at + length - 4])
                yield time_s, interface.link_type, data, at + 28, at + 28 + captured
                self.last_time_s = time_s
            elif kind == SECTION and at != start:
                break
            elif kind in _RARE:
                source.at = at
                for packet in _RARE[kind](self, data[at + 8 : at + length - 4]):
                    self.last_time_s = packet[0]
                    yield packet
            at += length
        source.at = at

    def _add_interface(self, body: bytes) -> Iterator[Packet]:
        self._need(body, 8)
        if len(self.interfaces) == _MAX_INTERFACES:
            raise self.source.error("too many interfaces")
        link_type, _, snap_length = self.numbers("HHI").unpack_from(body)
        options = self._options(body[8:])
        resolution = options.get(IF_TSRESOL, b"\x06")[:1]
        exponent = resolution[0] & 0x7F if resolution else 6
        offset = options.get(_IF_TSOFFSET, b"")
        self.interfaces.append(
            _Interface(
                link_type=link_type,
                snap_length=snap_length,
                ticks=(2 if resolution >= b"\x80" else 10) ** exponent,
                offset_s=self.numbers("q").unpack(offset)[0] if len(offset) == 8 else 0,
            )
        )
        return iter(())

    def _simple_packet(self, body: bytes) -> Iterator[Packet]:
        """It has no timestamp, and gets that of the packet before it."""
        self._need(body, 4)
        interface = self._interface(0)
        (length,) = self.numbers("I").unpack_from(body)
        captured = min(length, interface.snap_length or length, len(body) - 4)
        yield self.last_time_s, interface.link_type, body, 4, 4 + captured

    def _old_packet(self, body: bytes) -> Iterator[Packet]:
        self._need(body, 20)
        index, _, high, low, captured, _ = self.numbers("HHIIII").unpack_from(body)
        interface = self._interface(index)
        self._need(body, 20 + captured)
        yield interface.time_s(high, low), interface.link_type, body, 20, 20 + captured

    def _secrets(self, body: bytes) -> Iterator[Packet]:
        self._need(body, 8)
        kind, length = self.numbers("II").unpack_from(body)
        self._need(body, 8 + length)
        if kind == TLS_KEY_LOG:
            self.on_secrets(body[8 : 8 + length])
        return iter(())

    def _show_comment(self, time_s: float, options: bytes) -> None:
        """A packet's comment, if it is the first of its options, as in our own files."""
        (length,) = self.numbers("H").unpack_from(options.ljust(4, b"\0"), 2)
        self.on_comment(time_s, options[4 : 4 + length].decode("utf-8", "replace"))

    def _interface(self, index: int) -> _Interface:
        if index >= len(self.interfaces):
            raise self.source.error("a packet of an interface that was not described")
        return self.interfaces[index]

    def _options(self, body: bytes) -> dict[int, bytes]:
        """The first of each kind [3.5]."""
        options: dict[int, bytes] = {}
        at = 0
        while at + 4 <= len(body):
            code, length = self.numbers("HH").unpack_from(body, at)
            if code == _END_OF_OPTIONS:
                break
            self._need(body, at + 4 + length, "an option that runs over its block")
            options.setdefault(code, body[at + 4 : at + 4 + length])
            at += 4 + length + -length % 4
        return options

    def _need(self, body: bytes, count: int, otherwise: str = "a block that is too short") -> None:
        if len(body) < count:
            raise self.source.error(otherwise)


_RARE: Final[dict[int, Callable[[_Section, bytes], Iterator[Packet]]]] = {
    INTERFACE: _Section._add_interface,
    _SIMPLE_PACKET: _Section._simple_packet,
    _OLD_PACKET: _Section._old_packet,
    SECRETS: _Section._secrets,
}
"""The handlers of the less common blocks. Blocks of other types are skipped."""
