"""What is read of QUIC that was refused: each client's flow is told once."""

from __future__ import annotations

import math
import socket
import struct

from mitml4.address import Address
from mitml4.net.gate.nflog import LoggedPacket
from mitml4.net.gate.quic import RefusedFlows, refusal_of_quic
from tests.crypto.quic_packets import crypto, initial, vectors

HELLO = vectors()[0].client_payload[4:]
WHOLE = initial(crypto(0, HELLO) + bytes(900))
FIRST = initial(crypto(200, HELLO[200:]) + bytes(900))
SECOND = initial(crypto(0, HELLO[:200]) + bytes(900), 1)
SERVER = Address("198.51.100.2", 443)


def packet(datagram: bytes, port: int = 5000, *, v6: bool = False) -> LoggedPacket:
    udp = struct.pack("!HHHH", port, 443, 8 + len(datagram), 0) + datagram
    if v6:
        ends = b"".join(socket.inet_pton(socket.AF_INET6, f"2001:db8::{each}") for each in (1, 2))
        return LoggedPacket(struct.pack("!IHBB", 6 << 28, len(udp), 17, 64) + ends + udp)
    head = struct.pack("!BxHHHBBH", 0x45, 20 + len(udp), 0, 0, 64, 17, 0)
    return LoggedPacket(head + socket.inet_aton("192.0.2.1") + socket.inet_aton(SERVER.ip) + udp)


def test_a_hello_in_one_datagram_is_told_at_once_and_once() -> None:
    flows = RefusedFlows()
    for v6 in (False, True):
        told = flows.take(packet(WHOLE, v6=v6), 0.0)
        assert told is not None
        assert told.details.sni == "example.com"
        assert told.client.port == 5000
        assert flows.take(packet(WHOLE, v6=v6), 1.0) is None
    assert flows.next_s is None
    assert list(flows.overdue(math.inf)) == []


def test_a_hello_in_two_datagrams_is_told_with_the_second() -> None:
    flows = RefusedFlows()
    assert flows.take(packet(FIRST), 0.0) is None
    told = flows.take(packet(SECOND), 0.1)
    assert told is not None
    assert (told.client, told.destination) == (Address("192.0.2.1", 5000), SERVER)
    assert told.details.sni == "example.com"


def test_what_stays_incomplete_is_told_without_a_name() -> None:
    flows = RefusedFlows()
    assert flows.take(packet(FIRST), 10.0) is None
    assert flows.next_s == 11.0
    assert list(flows.overdue(10.9)) == []
    (told,) = flows.overdue(11.0)
    assert (told.details.sni, told.details.ja4) == (None, None)
    assert flows.take(packet(SECOND), 11.1) is None
    assert list(flows.overdue(math.inf)) == []


def test_what_is_no_quic_is_not_told() -> None:
    flows = RefusedFlows()
    for datagram in (b"", b"\x40" * 50, b"\x01\0\0\0" + bytes(144)):
        assert flows.take(packet(datagram), 0.0) is None
    for broken in (b"", b"\x45", packet(WHOLE).payload[:30], b"\x75" + bytes(60)):
        assert flows.take(LoggedPacket(broken), 0.0) is None
    assert flows.next_s is None


def test_flows_are_bounded() -> None:
    flows = RefusedFlows()
    for port in range(1, 5000):
        flows.take(packet(FIRST, port), 0.0)
    assert len(list(flows.overdue(math.inf))) == 1024


def test_the_first_datagram_is_dropped_only_where_that_is_no_error() -> None:
    assert refusal_of_quic(7)[4:6] == [
        f"add @quic_{family} {{ {ip} saddr . udp sport . {ip} daddr }} "
        "limit rate 200/second burst 200 packets log group 7 drop"
        for family, ip in (("ipv4", "ip"), ("ipv6", "ip6"))
    ]
    assert [line.split()[-1] for line in refusal_of_quic(7, dropped=False)[4:]] == [
        *("accept", "accept", "reject")
    ]
