"""Packets of QUIC with long headers, and the stream of CRYPTO frames in them (RFC 9000 §17.2, §19).

A datagram may hold several packets. Their headers are in plain text, but for the last bits of the
first byte; what Initial packets hold is opened by crypto/quic.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Final

from mitml4.crypto.quic import VERSION_1, VERSION_2, is_draft
from mitml4.dataclass import dataclass
from mitml4.errors import ProtocolError
from mitml4.protocols.parts.fields import Reader

__all__ = [
    "CryptoStream",
    "Kind",
    "Packet",
    "crypto_frames",
    "is_known",
    "packets",
    "read_packet",
    "version_name",
]

LONG: Final = 0x80
FIXED: Final = 0x40
MAX_CONNECTION_ID: Final = 20
TAG: Final = 16
"""Of a Retry."""


class Kind(Enum):
    """What a packet with a long header is (RFC 9000 §17.2, RFC 9369 §3.2)."""

    INITIAL = 0
    EARLY_DATA = 1
    HANDSHAKE = 2
    RETRY = 3
    NEGOTIATION = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """A packet with a long header, as it came."""

    kind: Kind
    version: int
    destination: bytes
    source: bytes
    raw: bytes
    """All of it, as far as it was captured."""
    payload_at: int = 0
    """Where the packet number stands, in `raw`."""
    token: bytes = b""
    versions: tuple[int, ...] = ()
    """What a server that negotiates the version offers."""


def is_known(version: int) -> bool:
    """Whether the keys of its Initial packets are known."""
    return version in (VERSION_1, VERSION_2) or is_draft(version)


def _is_possible(version: int) -> bool:
    """Also those that are registered, Google's, Facebook's, and those that nobody has
    (RFC 9000 §15)."""
    return (
        is_known(version)
        or version & 0x0F0F0F0F == 0x0A0A0A0A
        or version >> 8 == 0xFACEB0
        or 0xFF000000 < version < 0xFF000100
        or (version >> 16 in (0x5130, 0x5430) and all(0x30 <= b <= 0x39 for b in _low(version)))
    )


def _low(version: int) -> bytes:
    return (version & 0xFFFF).to_bytes(2, "big")


def version_name(version: int) -> str:
    """`1`, `2`, `draft-29`, `Q046`, or the number in hex."""
    if version in (VERSION_1, VERSION_2):
        return "1" if version == VERSION_1 else "2"
    if 0xFF000000 < version < 0xFF000100:
        return f"draft-{version & 0xFF}"
    if version >> 24 in (ord("Q"), ord("T")):
        return version.to_bytes(4, "big").decode("latin-1")
    return f"0x{version:08x}"


def read_packet(reader: Reader) -> Packet:
    """The next packet, whose header is long. Moves to its end, which may be beyond what was
    captured."""
    start = reader.at
    first = reader.uint(1, LONG)
    version = reader.uint(4)
    if version and not (first & FIXED and _is_possible(version)):
        raise ProtocolError("no version of QUIC")
    if _has_short_ids(version):
        return _of_google(reader, start, version)
    longest = MAX_CONNECTION_ID if version else 0xFF
    destination = reader.take(reader.uint(1, 0, longest))
    source = reader.take(reader.uint(1, 0, longest))
    if not version:
        return _negotiation(reader, start, destination, source)
    kind = Kind((first >> 4) - (1 if version == VERSION_2 else 0) & 0x03)
    token, at = b"", 0
    if kind is Kind.RETRY:
        token = reader.take(reader.left)
    else:
        if kind is Kind.INITIAL:
            token = reader.take(_varint(reader))
        length = _varint(reader)
        at = reader.at - start
        if length < 4 or at + length > 0xFFFF:
            raise ProtocolError("a packet of QUIC that is too short or too long")
        reader.at += length
    raw = reader.data[start : reader.at]
    return Packet(
        kind=kind,
        version=version,
        destination=destination,
        source=source,
        raw=raw,
        payload_at=at,
        token=token,
    )


def _has_short_ids(version: int) -> bool:
    """Google's versions up to Q048."""
    return 0x51303433 <= version <= 0x51303438


def _of_google(reader: Reader, start: int, version: int) -> Packet:
    """Both lengths of the ids are in one byte; what follows is not TLS."""
    reader.uint(1, 0x00, 0x55)
    destination = reader.take(8)
    reader.take(reader.left)
    return Packet(
        kind=Kind.INITIAL,
        version=version,
        destination=destination,
        source=b"",
        raw=reader.data[start:],
    )


def _negotiation(reader: Reader, start: int, destination: bytes, source: bytes) -> Packet:
    """RFC 9000 §17.2.1: the versions up to the end of the datagram."""
    count, odd = divmod(reader.left, 4)
    if not count or odd or not (destination or source):
        raise ProtocolError("no list of versions")
    versions = tuple(reader.uint(4) for _ in range(count))
    if not any(map(_is_possible, versions)):
        raise ProtocolError("no version of QUIC")
    return Packet(
        kind=Kind.NEGOTIATION,
        version=0,
        destination=destination,
        source=source,
        raw=reader.data[start:],
        versions=versions,
    )


def packets(datagram: bytes) -> Iterator[Packet]:
    """Those with long headers at the beginning of a datagram."""
    reader = Reader(datagram, end=len(datagram))
    while reader.at < len(datagram) and datagram[reader.at] & LONG:
        yield read_packet(reader)


def _varint(reader: Reader) -> int:
    """RFC 9000 §16."""
    first = reader.uint(1)
    value = first & 0x3F
    for _ in range((1 << (first >> 6)) - 1):
        value = value << 8 | reader.uint(1)
    return value


_PADDING, _PING, _ACK, _ACK_ECN, _CRYPTO = 0x00, 0x01, 0x02, 0x03, 0x06


def crypto_frames(payload: bytes) -> Iterator[tuple[int, bytes]]:
    """Offset and data of the CRYPTO frames of an Initial packet; what closes the connection ends
    them (RFC 9000 §19)."""
    reader = Reader(payload, end=len(payload))
    while reader.left:
        kind = reader.uint(1)
        if kind == _CRYPTO:
            offset = _varint(reader)
            yield offset, reader.take(_varint(reader))
        elif kind in (_ACK, _ACK_ECN):
            _skip_ack(reader, counts=kind == _ACK_ECN)
        elif kind == _PADDING:
            rest = payload[reader.at :]
            reader.at += len(rest) - len(rest.lstrip(b"\0"))
        elif kind != _PING:
            return


def _skip_ack(reader: Reader, *, counts: bool) -> None:
    """RFC 9000 §19.3: largest, delay, number of ranges, the first, and pairs."""
    _varint(reader)
    _varint(reader)
    ranges = _varint(reader)
    for _ in range(min(1 + 2 * ranges + (3 if counts else 0), len(reader.data))):
        _varint(reader)


_MAX_STREAM: Final = 1 << 16
_MAX_PIECES: Final = 512


class CryptoStream:
    """The handshake messages of one side, out of frames in any order, with overlaps."""

    def __init__(self) -> None:
        self._pieces: dict[int, bytes] = {}
        self.size = 0
        """Bytes of all pieces."""

    def add(self, offset: int, data: bytes) -> None:
        """Raises ProtocolError for more than is kept."""
        known = self._pieces.get(offset, b"")
        if len(known) >= len(data):
            return
        if offset + len(data) > _MAX_STREAM or len(self._pieces) >= _MAX_PIECES:
            raise ProtocolError("a hello of QUIC that is too long")
        self._pieces[offset] = data
        self.size += len(data) - len(known)
        if self.size > 2 * _MAX_STREAM:
            raise ProtocolError("a hello of QUIC that is too long")

    def message(self) -> tuple[int, bytes] | None:
        """Type and body of the first message; None as long as it is not whole."""
        stream = bytearray()
        for offset in sorted(self._pieces):
            if offset > len(stream):
                break
            piece = self._pieces[offset]
            stream += piece[max(len(stream) - offset, 0) :]
        if len(stream) < 4:
            return None
        end = 4 + int.from_bytes(stream[1:4], "big")
        return (stream[0], bytes(stream[4:end])) if len(stream) >= end else None
