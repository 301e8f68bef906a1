"""The PROXY protocol, versions 1 and 2: one header from the client's side, then the inner bytes.

Source: "The PROXY protocol, versions 1 & 2" (haproxy, doc/proxy-protocol.txt), §2.1 and §2.2. The
server does not answer the header, so its side is SWITCH from the start.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import ClassVar, Final

from mitml4.address import Address
from mitml4.dataclass import dataclass
from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import (
    FORWARD_ALL,
    PEEK,
    SWITCH,
    Conversation,
    Details,
    Direction,
    Directive,
    Forward,
    Opening,
    Protocol,
    Target,
    Unreadable,
    Verdict,
)

__all__ = ["PROTOCOL", "ProxyProtocol", "ProxyProtocolDetails"]

V1_PREFIX: Final = b"PROXY "
V1_MAX: Final = 107
V1_FAMILIES: Final = {b"TCP4": 4, b"TCP6": 6}
V1_WORDS: Final = (*V1_FAMILIES, b"UNKNOWN")
V2_SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
V2_HEAD: Final = 16

V2_VERSION: Final = 0x20
V2_COMMANDS: Final = {0: "local", 1: "proxy"}
V2_ADDRESS_SIZES: Final = {0: 0, 1: 4, 2: 16, 3: 108}
"""Bytes of one address by family: unspecified, IPv4, IPv6, Unix path."""
V2_MAX_TRANSPORT: Final = 2
V2_AUTHORITY: Final = 0x02
"""PP2_TYPE_AUTHORITY: the host name that the client asked for, as in SNI."""
MAX_TLVS: Final = 8192
"""Bytes of TLVs that are read; longer ones pass unread."""


@dataclass(frozen=True, slots=True)
class Header:
    """The values of a header. `size` bytes of it have been read; `rest` (TLVs) follow unread."""

    version: int
    source: Address | None
    destination: Address | None
    size: int
    rest: int = 0


def parse(data: bytes) -> Header | None:
    """The header at the start of these bytes; None as long as it is not whole.

    Raises ProtocolError at the first byte that cannot fit.
    """
    if data[:1] == b"\r":
        return _parse_v2(data)
    return _parse_v1(data)


def _parse_v1(data: bytes) -> Header | None:
    """`PROXY TCP4 192.0.2.1 192.0.2.2 56324 443` CRLF, or `PROXY UNKNOWN` and anything."""
    if not V1_PREFIX.startswith(data[: len(V1_PREFIX)]):
        raise ProtocolError("PROXY: no header")
    family = data[len(V1_PREFIX) : len(V1_PREFIX) + len(b"UNKNOWN")]
    if not any(family.startswith(known) or known.startswith(family) for known in V1_WORDS):
        raise ProtocolError("PROXY: an unknown family")
    line, newline, _ = data[:V1_MAX].partition(b"\r\n")
    if not newline:
        if len(data) >= V1_MAX:
            raise ProtocolError("PROXY: the header does not end within 107 bytes")
        return None
    size = len(line) + 2
    words = line.split(b" ")
    if words[1] == b"UNKNOWN":
        return Header(1, None, None, size)
    if len(words) != 6 or words[1] not in V1_FAMILIES:
        raise ProtocolError("PROXY: a malformed header")
    _, family, source, destination, source_port, destination_port = words
    version = V1_FAMILIES[family]
    return Header(
        1,
        _v1_address(version, source, source_port),
        _v1_address(version, destination, destination_port),
        size,
    )


def _v1_address(version: int, host: bytes, port: bytes) -> Address:
    try:
        address = ipaddress.ip_address(host.decode("ascii"))
    except ValueError:
        raise ProtocolError("PROXY: a malformed address") from None
    if address.version != version or not port.isdigit() or len(port) > 5 or int(port) > 65535:
        raise ProtocolError("PROXY: a malformed address or port")
    return Address(str(address), int(port))


def _parse_v2(data: bytes) -> Header | None:
    """Signature, version and command, family and transport, length; addresses, then TLVs."""
    if not V2_SIGNATURE.startswith(data[: len(V2_SIGNATURE)]):
        raise ProtocolError("PROXY: no header")
    if len(data) > 12 and (data[12] & 0xF0 != V2_VERSION or data[12] & 0x0F not in V2_COMMANDS):
        raise ProtocolError("PROXY: unknown version or command")
    if len(data) > 13 and (
        data[13] >> 4 not in V2_ADDRESS_SIZES or data[13] & 0x0F > V2_MAX_TRANSPORT
    ):
        raise ProtocolError("PROXY: unknown address family or transport")
    if len(data) < V2_HEAD:
        return None
    length, family = int.from_bytes(data[14:16], "big"), data[13] >> 4
    address_size = V2_ADDRESS_SIZES[family]
    if V2_COMMANDS[data[12] & 0x0F] == "local":
        return Header(2, None, None, V2_HEAD, length)
    block = 2 * address_size + (4 if family in (1, 2) else 0)
    if length < block:
        raise ProtocolError("PROXY: the length is too small for the addresses")
    if len(data) < V2_HEAD + block:
        return None
    if family not in (1, 2):
        return Header(2, None, None, V2_HEAD, length)
    addresses = data[V2_HEAD : V2_HEAD + block]
    source, destination = addresses[:address_size], addresses[address_size:-4]
    return Header(
        2,
        Address(str(ipaddress.ip_address(source)), int.from_bytes(addresses[-4:-2], "big")),
        Address(str(ipaddress.ip_address(destination)), int.from_bytes(addresses[-2:], "big")),
        V2_HEAD + block,
        length - block,
    )


def _tlvs(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The type and value of each TLV (§2.2.1)."""
    at = 0
    while at < len(data):
        value = at + 3
        end = value + int.from_bytes(data[at + 1 : value], "big")
        if end > len(data):
            raise ProtocolError("PROXY: a TLV that is longer than the header")
        yield data[at], data[value:end]
        at = end


def detect(opening: Opening) -> Verdict:
    """A whole version 1 line, or a version 2 header to the end of its addresses."""
    if opening.down and not opening.up:
        # §2: a receiver waits for the header before it processes anything.
        return Verdict.REJECT
    try:
        header = parse(opening.up)
    except ProtocolError:
        return Verdict.REJECT
    return Verdict.MATCH if header else Verdict.NEED_MORE


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyProtocolDetails(Details):
    """Client and destination of the first proxy's connection; null if not given (health checks)."""

    version: int | None = None
    source: Address | None = None
    destination: Address | None = None


@dataclass(slots=True)
class ProxyProtocol(Conversation):
    """Reads the header; what follows is SWITCH."""

    name: ClassVar[str] = "proxy-protocol"

    down: Directive = SWITCH
    elsewhere: bool = True
    header: Header | None = None

    def feed(self, direction: Direction, data: bytes) -> int:
        self.header = header = parse(data)
        if header is None:
            return 0
        end = header.size + header.rest
        if len(data) < end and header.rest <= MAX_TLVS:
            return 0
        self._name_hosts(header, data[header.size : end])
        self.details_ready = True
        self.up = Forward(header.rest) if header.rest else SWITCH
        return header.size

    def _name_hosts(self, header: Header, tlvs: bytes) -> None:
        """Name the destination that the client wants, and the host name that it used for it."""
        asked = header.destination
        if asked:
            self.named.append(Target(asked.ip, asked.port))
        port = asked.port if asked else None
        try:
            if header.rest > MAX_TLVS:
                raise ProtocolError("PROXY: too many TLVs to be read")
            for kind, value in _tlvs(tlvs):
                if kind == V2_AUTHORITY and port is not None:
                    self.named.append(Target(value.decode("utf-8", "backslashreplace"), port))
        except ProtocolError as error:
            self.named.append(Unreadable(error.message, port))

    def passed(self, direction: Direction, count: int) -> None:
        super(ProxyProtocol, self).passed(direction, count)
        if self.up is PEEK:
            self.up = SWITCH

    def end(self, direction: Direction) -> None:
        """If the client ends within the header, no inner protocol begins."""
        if direction is Direction.UP:
            self.details_ready = True
            self.up = self.down = FORWARD_ALL

    def details(self) -> ProxyProtocolDetails:
        if self.header is None:
            return ProxyProtocolDetails()
        return ProxyProtocolDetails(
            version=self.header.version,
            source=self.header.source,
            destination=self.header.destination,
        )


PROTOCOL: Final = Protocol(
    name=ProxyProtocol.name,
    detect=detect,
    converse=lambda context: ProxyProtocol(context=context),
    client_first=b"P\r",
    server_first=b"",
    conclusive=True,
)
