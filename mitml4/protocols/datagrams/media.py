"""Calls and media: how two ends find each other, and what they send.

stun    type length 2112A442 transaction(12) …          RFC 8489 §5; without the cookie RFC 3489
rtp     10xxxxxx type number time source …              RFC 3550 §5.1; only where it is announced
rtcp    10xxxxxx 200–207 length source …                RFC 3550 §6.4; only where it is announced

What goes over the pair of ports that STUN has found, is told apart by its first byte (RFC 7983).
"""

from __future__ import annotations

from typing import ClassVar, Final

from mitml4.dataclass import dataclass
from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import Direction
from mitml4.protocols.datagram import DatagramConversation, DatagramProtocol, Evidence
from mitml4.protocols.parts.fields import Reader

__all__ = ["PROTOCOLS"]

MAGIC_COOKIE: Final = b"\x21\x12\xa4\x42"
MAX_STUN: Final = 0x3FFF
DTLS: Final = range(20, 64)
CHANNELS: Final = range(64, 80)


def read_stun(reader: Reader) -> None:
    """A message whose attributes fill its datagram."""
    reader.uint(2, 0, MAX_STUN)
    length = reader.uint(2)
    reader.one_of(MAGIC_COOKIE)
    reader.take(12)
    if length % 4 or length != reader.left:
        raise ProtocolError("a message that does not fill its datagram")


OLD_TYPES: Final = tuple(bytes.fromhex(kind) for kind in ("0001", "0101", "0111", "0002", "0102"))


def read_old_stun(reader: Reader) -> None:
    """Without the cookie: a binding or a shared secret, whose attributes fill its datagram."""
    reader.one_of(*OLD_TYPES)
    length = reader.uint(2)
    reader.take(16)
    if length != reader.left:
        raise ProtocolError("a message that does not fill its datagram")
    while reader.left:
        reader.uint(2)
        reader.take(reader.uint(2))


@dataclass(slots=True)
class Stun(DatagramConversation):
    """Until something else is said on the same ports."""

    name: ClassVar[str] = "stun"

    details_ready: bool = True

    def take(self, direction: Direction, datagram: bytes) -> None:
        first = datagram[0] if datagram else 0
        if first < DTLS.start or first in CHANNELS:
            return
        self.over = True
        if first in DTLS:
            self.inner = "dtls"


RTCP_TYPES: Final = range(200, 208)


def read_rtp(reader: Reader) -> None:
    """A packet that is no RTCP (RFC 5761 §4)."""
    first = reader.uint(1, 0x80, 0xBF)
    if reader.uint(1) in RTCP_TYPES:
        raise ProtocolError("RTCP")
    reader.take(10)
    reader.take(4 * (first & 0x0F))


def read_rtcp(reader: Reader) -> None:
    """Packets that fill their datagram; SRTCP has more behind them."""
    reader.uint(1, 0x80, 0xBF)
    reader.uint(1, RTCP_TYPES.start, RTCP_TYPES.stop - 1)
    reader.take(4 * reader.uint(2))


PROTOCOLS: Final = (
    DatagramProtocol(
        name=Stun.name,
        request=read_stun,
        ports=frozenset({3478, 19302}),
        evidence=Evidence.MAGIC,
        converse=lambda context: Stun(context=context),
    ),
    DatagramProtocol(
        name=Stun.name,
        request=read_old_stun,
        ports=frozenset({3478}),
        evidence=Evidence.PORT_OR_ANSWER,
        converse=lambda context: Stun(context=context),
    ),
    DatagramProtocol(name="rtp", request=None, announced=read_rtp),
    DatagramProtocol(name="rtcp", request=None, announced=read_rtcp),
)
