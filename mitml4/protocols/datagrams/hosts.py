"""What hosts need to live in a network: time, addresses, management, logs. Named only.

ntp           LI, version, mode; stratum, poll, precision …    RFC 5905 §7.3, port 123
dhcp          op … 63825363 at 236                             RFC 2131 §2
dhcpv6        type, transaction; options                       RFC 8415 §8, ports 546 and 547
snmp          SEQUENCE { version, … }                          RFC 3416, RFC 3412, ports 161 and 162
syslog        "<" priority ">"                                 RFC 5424 §6, RFC 3164, port 514
radius        code, id, length, authenticator, attributes      RFC 2865 §3
ssdp          "M-SEARCH * HTTP/1.1", "NOTIFY * HTTP/1.1"       UPnP Device Architecture §1
coap          version 1, type, code, id, token, options        RFC 7252 §3, port 5683
kerberos      [APPLICATION n] SEQUENCE …                       RFC 4120 §5, §7.2.1
netbios-dgm   type, flags, id, source, port 138                RFC 1002 §4.4
"""

from __future__ import annotations

import re
from typing import Final

from mitml4.errors import ProtocolError
from mitml4.protocols.datagram import DatagramProtocol, Evidence
from mitml4.protocols.named.windows import read_kerberos
from mitml4.protocols.parts.ber import read_head, read_length
from mitml4.protocols.parts.fields import Reader
from mitml4.regex import regex

__all__ = ["PROTOCOLS"]

MODES: Final = range(1, 6)
MAX_STRATUM: Final = 16
POLLS: Final = (-16, 17)
PRECISIONS: Final = (-32, 32)
"""Powers of two, in seconds. 32 is what clients send that say nothing of themselves
(draft-ietf-ntp-data-minimization §4)."""
MAX_ROOT_S: Final = 0xFF
NTP: Final = 48
CONTROL_CODES: Final = frozenset((*range(13), 31))
MAX_CONTROL_TAIL: Final = 3 + 24
"""Padding, and a key's number with a digest."""
MAX_IMPLEMENTATION: Final = 3


def read_ntp(reader: Reader) -> None:
    """A packet of a client, a server or peers; what follows the header are extensions and a
    MAC."""
    first = reader.uint(1)
    if not 1 <= first >> 3 & 7 <= 4 or first & 7 not in MODES:
        raise ProtocolError("an unknown version or mode")
    reader.uint(1, 0, MAX_STRATUM)
    for low, high in (POLLS, PRECISIONS):
        if not low <= int.from_bytes(reader.take(1), signed=True) <= high:
            raise ProtocolError("an interval that no clock has")
    for _ in ("root delay", "root dispersion"):
        reader.uint(2, 0, MAX_ROOT_S)
        reader.take(2)
    reader.take(NTP - 12)
    if reader.left % 4:
        raise ProtocolError("no whole extensions")


def read_ntp_control(reader: Reader) -> None:
    """A query of the state: mode 6 (RFC 9327 §2), or mode 7 of ntpd's ntp_request.h."""
    first = reader.uint(1)
    if not 1 <= first >> 3 & 7 <= 4:
        raise ProtocolError("an unknown version")
    match first & 7:
        case 6 if not first >> 6 and reader.uint(1) & 0x1F in CONTROL_CODES:
            reader.take(8)
            reader.take(reader.uint(2))
            if reader.left > MAX_CONTROL_TAIL:
                raise ProtocolError("more than a control message")
        case 7:
            reader.take(1)
            reader.uint(1, 0, MAX_IMPLEMENTATION)
            reader.take(1)
            items = reader.uint(2) & 0xFFF
            reader.take(items * reader.uint(2, 0, 0xFFF))
        case _:
            raise ProtocolError("no control message")


COOKIE: Final = b"\x63\x82\x53\x63"


def read_dhcp(reader: Reader) -> None:
    """A message with its magic cookie."""
    reader.uint(1, 1, 2)
    reader.take(1)
    reader.uint(1, 0, 16)
    reader.take(233)
    reader.one_of(COOKIE)


def read_dhcpv6(reader: Reader) -> None:
    """A message, or what a relay wraps it in; options to the end."""
    relayed = reader.uint(1, 1, 36) in (12, 13)
    reader.take(33 if relayed else 3)
    while reader.left:
        reader.uint(2, 1, 255)
        reader.take(reader.uint(2))


SEQUENCE, INTEGER, OCTETS = b"\x30", b"\x02", b"\x04"
PDUS: Final = tuple(bytes([tag]) for tag in range(0xA0, 0xA9))


def read_snmp(reader: Reader) -> None:
    """A message that fills its datagram; versions 1 and 2c have a community and a PDU, version 3
    its header."""
    reader.one_of(SEQUENCE)
    if read_length(reader) != reader.left:
        raise ProtocolError("an element that does not fill its message")
    reader.one_of(INTEGER + b"\x01")
    if reader.uint(1, 0, 3) == 3:
        _, length = read_head(reader, SEQUENCE)
        reader.take(length)
        reader.one_of(OCTETS)
        return
    _, length = read_head(reader, OCTETS)
    reader.take(length)
    _, length = read_head(reader, *PDUS)
    if length != reader.left:
        raise ProtocolError("an element that does not fill its message")


SYSLOG: Final = regex(rb"<(?:[0-9]|[1-9][0-9]|1[0-8][0-9]|19[01])>[ -~]")


def read_syslog(reader: Reader) -> None:
    """A priority, and text."""
    if SYSLOG.match(reader.data) is None:
        raise ProtocolError("no priority")


RADIUS_CODES: Final = tuple(bytes([code]) for code in (1, 2, 3, 4, 5, 11, 12, 13, *range(40, 46)))


def read_radius(reader: Reader) -> None:
    """A packet whose attributes fill it."""
    reader.one_of(*RADIUS_CODES)
    reader.take(1)
    length = reader.uint(2, 20, 4096)
    reader.take(16)
    if length != len(reader.data):
        raise ProtocolError("a packet that does not fill its datagram")
    while reader.left:
        reader.uint(1, 1)
        reader.take(reader.uint(1, 2) - 2)


SSDP: Final = regex(
    rb"(?:M-SEARCH \* HTTP/1\.[01]|NOTIFY \* HTTP/1\.[01]|HTTP/1\.[01] 200 OK\r\n"
    rb"(?:[^\r\n]+\r\n)*(?:ST|USN|NT) ?:)",
    re.IGNORECASE,
)


def read_ssdp(reader: Reader) -> None:
    """A search, an announcement, or the answer to a search."""
    if SSDP.match(reader.data) is None:
        raise ProtocolError("no SSDP")


def read_coap(reader: Reader) -> None:
    """A message whose options end with it, or with the marker of its payload."""
    first = reader.uint(1, 0x40, 0x7F)
    if first & 0x0F > 8:
        raise ProtocolError("a token that is too long")
    code = reader.uint(1)
    if code >> 5 not in (0, 2, 4, 5) or code & 0x1F > 0x10:
        raise ProtocolError("an unknown code")
    reader.take(2)
    reader.take(first & 0x0F)
    while reader.left:
        head = reader.uint(1)
        if head == 0xFF:
            reader.take(max(reader.left, 1))
            return
        for nibble in (head >> 4, head & 0x0F):
            if nibble == 15:
                raise ProtocolError("a reserved option")
        reader.take({13: 1, 14: 2}.get(head >> 4, 0))
        length = head & 0x0F
        if length >= 13:
            length = 13 + reader.uint(1) if length == 13 else 269 + reader.uint(2)
        reader.take(length)


def read_kerberos_datagram(reader: Reader) -> None:
    """As over TCP, without the length."""
    data = len(reader.data).to_bytes(4, "big") + reader.data
    read_kerberos(Reader(data, end=len(data)))


def read_netbios_datagram(reader: Reader) -> None:
    """A datagram of a name, or a query."""
    reader.uint(1, 0x10, 0x16)
    reader.uint(1, 0, 0x0F)
    reader.take(8)


PROTOCOLS: Final = (
    DatagramProtocol(name="ntp", request=read_ntp, ports=frozenset({123})),
    DatagramProtocol(
        name="ntp", request=read_ntp_control, ports=frozenset({123}), evidence=Evidence.PORT
    ),
    DatagramProtocol(
        name="dhcp", request=read_dhcp, ports=frozenset({67, 68}), evidence=Evidence.MAGIC
    ),
    DatagramProtocol(
        name="dhcpv6", request=read_dhcpv6, ports=frozenset({546, 547}), evidence=Evidence.PORT
    ),
    DatagramProtocol(name="snmp", request=read_snmp, ports=frozenset({161, 162})),
    DatagramProtocol(
        name="syslog", request=read_syslog, ports=frozenset({514}), evidence=Evidence.PORT
    ),
    DatagramProtocol(
        name="radius", request=read_radius, ports=frozenset({1645, 1646, 1812, 1813, 3799})
    ),
    DatagramProtocol(
        name="ssdp", request=read_ssdp, ports=frozenset({1900}), evidence=Evidence.MAGIC
    ),
    DatagramProtocol(
        name="coap", request=read_coap, ports=frozenset({5683}), evidence=Evidence.PORT
    ),
    DatagramProtocol(
        name="kerberos",
        request=read_kerberos_datagram,
        ports=frozenset({88}),
        evidence=Evidence.MAGIC,
    ),
    DatagramProtocol(
        name="netbios-dgm",
        request=read_netbios_datagram,
        ports=frozenset({138}),
        evidence=Evidence.PORT,
    ),
)
