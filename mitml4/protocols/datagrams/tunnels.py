"""VPNs and tunnels. Named only; capture/network/tunnels.py reads those in plain text.

wireguard   01|02 000000 … of a fixed length; 04 000000 …     WireGuard's paper §5.4
openvpn     a reset, as over TCP without its length           OpenVPN's ssl_pkt.h
ike         SPIs, payload, version, exchange, flags, length   RFC 7296 §3.1, RFC 2408; RFC 3948
esp         SPI, number, what is encrypted                      RFC 4303 §2, RFC 3948, port 4500
l2tp        flags, version 2                                  RFC 2661 §3.1, port 1701
vxlan       08 000000, network, 00                            RFC 7348 §5, port 4789
geneve      version 0, options, protocol                      RFC 8926 §3.4, port 6081
gtp         version, type, length                             3GPP TS 29.281, 29.060, 29.274
teredo      IPv6, behind an authentication or an origin       RFC 4380 §5.1.1, port 3544
"""

from __future__ import annotations

from typing import Final

from mitml4.errors import ProtocolError
from mitml4.protocols.datagram import DatagramProtocol, Evidence
from mitml4.protocols.named.vpn import CLIENT_RESET, SERVER_RESET
from mitml4.protocols.parts.evidence import Rule, either
from mitml4.protocols.parts.fields import Reader

__all__ = ["PROTOCOLS"]

HANDSHAKES: Final = {1: 148, 2: 92}
COOKIE: Final = {3: 64}
DATA: Final = 4


def read_wireguard(reader: Reader) -> None:
    """A handshake, whose messages have a fixed length."""
    kind = reader.uint(1, 1, 2)
    reader.one_of(bytes(3))
    if len(reader.data) != HANDSHAKES[kind]:
        raise ProtocolError("another length")


def read_wireguard_data(reader: Reader) -> None:
    """Data, padded to sixteens; or a cookie."""
    kind = reader.uint(1, 3, DATA)
    reader.one_of(bytes(3))
    size = len(reader.data)
    if size < 32 or size % 16 or (kind != DATA and size != COOKIE[kind]):
        raise ProtocolError("another length")


def datagram(reset: Rule) -> Rule:
    """A reset of OpenVPN, without the length that it has over TCP."""

    def read(reader: Reader) -> None:
        data = len(reader.data).to_bytes(2, "big") + reader.data
        reset(Reader(data, end=len(data)))

    return read


NON_ESP: Final = bytes(4)
"""RFC 3948 §2.2: before IKE on the port of ESP."""
VERSIONS: Final = (0x10, 0x20)
EXCHANGES: Final = frozenset({2, 4, 5, 6, 32, 33, *range(34, 45)})
MAX_PAYLOAD: Final = 55


def read_ike(reader: Reader) -> None:
    """A header whose length is the datagram's."""
    if reader.data.startswith(NON_ESP):
        reader.take(4)
    length = reader.left
    initiator = reader.take(8)
    reader.take(8)
    payload, version, exchange = reader.uint(1), reader.uint(1), reader.uint(1)
    reader.take(5)
    if not any(initiator) or version not in VERSIONS or exchange not in EXCHANGES:
        raise ProtocolError("no IKE")
    if payload > MAX_PAYLOAD or reader.uint(4) != length:
        raise ProtocolError("a message that does not fill its datagram")


FIRST_SPI: Final = 256
"""RFC 4303 §2.1: those below are reserved, and 0 is the marker of IKE."""


def read_esp(reader: Reader) -> None:
    """A packet; or a byte that keeps a NAT open (RFC 3948 §2.3)."""
    if reader.data == b"\xff":
        return
    reader.uint(4, FIRST_SPI)
    reader.take(4 + 8)


def read_l2tp(reader: Reader) -> None:
    """Version 2, with only those flags that exist."""
    reader.uint(1)
    if reader.data[0] & 0x34 or reader.uint(1) != 2:
        raise ProtocolError("no L2TP")
    reader.take(4)


def read_vxlan(reader: Reader) -> None:
    """One flag, and reserved zeros; or the flags of the generic extension."""
    reader.one_of(b"\x08\0\0\0", b"\x0c\0\0\1", b"\x0c\0\0\2", b"\x0c\0\0\3")
    reader.take(3)
    reader.one_of(b"\0")
    reader.take(1)


def read_geneve(reader: Reader) -> None:
    """Version 0, and options that are there."""
    words = reader.uint(1, 0, 0x3F)
    reader.uint(1)
    if reader.data[1] & 0x3F:
        raise ProtocolError("reserved bits")
    reader.uint(2, 0x0600)
    reader.take(4 + 4 * words)


def read_gtp(reader: Reader) -> None:
    """Versions 0 to 2, whose length is the datagram's."""
    flags = reader.uint(1)
    version = flags >> 5
    reader.take(1)
    length = reader.uint(2)
    head = {0: 20, 1: 8, 2: 4}.get(version)
    if head is None or (version < 2 and not flags & 0x10) or length + head > len(reader.data):
        raise ProtocolError("no GTP")


def read_teredo(reader: Reader) -> None:
    """A packet of IPv6 that is whole, behind what a relay puts before it. Trailers may follow it
    (RFC 6081 §4)."""
    if reader.data.startswith(b"\0\1"):
        reader.take(2)
        client, authentication = reader.uint(1), reader.uint(1)
        reader.take(client + authentication + 9)
    if reader.data[reader.at :].startswith(b"\0\0"):
        reader.take(8)
    reader.uint(1, 0x60, 0x6F)
    reader.take(3)
    payload = reader.uint(2)
    reader.take(34 + payload)


PROTOCOLS: Final = (
    DatagramProtocol(
        name="wireguard",
        request=read_wireguard,
        ports=frozenset({51820}),
        evidence=Evidence.MAGIC,
    ),
    DatagramProtocol(name="wireguard", request=read_wireguard_data, ports=frozenset({51820})),
    DatagramProtocol(
        name="openvpn",
        request=datagram(either(CLIENT_RESET, SERVER_RESET)),
        ports=frozenset({1194}),
        evidence=Evidence.MAGIC,
    ),
    DatagramProtocol(
        name="ike", request=read_ike, ports=frozenset({500, 4500}), evidence=Evidence.MAGIC
    ),
    DatagramProtocol(name="esp", request=read_esp, ports=frozenset({4500}), evidence=Evidence.PORT),
    DatagramProtocol(
        name="l2tp", request=read_l2tp, ports=frozenset({1701}), evidence=Evidence.PORT
    ),
    DatagramProtocol(
        name="vxlan",
        request=read_vxlan,
        ports=frozenset({4789, 4790, 8472}),
        evidence=Evidence.PORT,
    ),
    DatagramProtocol(
        name="geneve", request=read_geneve, ports=frozenset({6081}), evidence=Evidence.PORT
    ),
    DatagramProtocol(
        name="gtp", request=read_gtp, ports=frozenset({2123, 2152, 3386}), evidence=Evidence.PORT
    ),
    DatagramProtocol(
        name="teredo", request=read_teredo, ports=frozenset({3544}), evidence=Evidence.PORT
    ),
)
