"""Flows of UDP in captures: their layers, their names, and how they end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from mitml4.capture.datagrams import DatagramFlows
from mitml4.capture.follow import Statistics, follow
from mitml4.capture.packet import Packet
from mitml4.capture.reports import Closed, Layer, Opened
from mitml4.protocols.datagrams.quic import QuicDetails
from mitml4.protocols.dns import DnsDetails
from tests.crypto.quic_packets import vectors

CLIENT, SERVER, RESOLVER = "192.0.2.1", "93.184.216.34", "192.0.2.53"
QUERY = bytes.fromhex("1a2b01000001000000000000") + b"\7example\3com\0\0\1\0\1"
ANSWER = (
    bytes.fromhex("1a2b81800001000100000000") + QUERY[12:]
    + b"\xc0\x0c\0\1\0\1\0\0\1\x2c\0\4\x5d\xb8\xd8\x22"
)  # fmt: skip


class Sender:
    """Makes packets, 10 ms apart."""

    def __init__(self, wire: Any) -> None:
        self.wire = wire
        self.time_s = 1000.0

    def udp(
        self, data: bytes, source: tuple[str, int], to: tuple[str, int], after_s: float = 0.01
    ) -> Packet:
        self.time_s += after_s
        datagram = self.wire.udp(data, source=source[1], destination=to[1])
        packet = self.wire.ipv4(datagram, source=source[0], destination=to[0], protocol=17)
        return self.time_s, 101, packet, 0, len(packet)

    def exchange(self, up: bytes, down: bytes, ends: tuple[tuple[str, int], ...]) -> list[Packet]:
        client, server = ends
        return [self.udp(up, client, server), self.udp(down, server, client)]


def stacks(packets: Iterable[Packet]) -> list[tuple[str, ...]]:
    return [each.stack for each in follow(packets) if isinstance(each, Closed)]


def test_an_answer_of_dns_names_the_flows_that_follow_it(wire: Any) -> None:
    sender = Sender(wire)
    quic = vectors()[0]
    packets = sender.exchange(QUERY, ANSWER, ((CLIENT, 5353), (RESOLVER, 53)))
    packets += sender.exchange(quic.client, quic.server, ((CLIENT, 40000), (SERVER, 443)))
    packets += [sender.udp(quic.client, ("192.0.2.9", 40000), (SERVER, 443))]
    syn = wire.ipv4(wire.tcp(flags=wire.SYN, destination=443), source=CLIENT, destination=SERVER)
    packets += [(1002.0, 101, syn, 0, len(syn))]
    reports = list(follow(packets))
    opened = [each for each in reports if isinstance(each, Opened)]
    assert [each.flow.number for each in opened] == [1, 2, 3, 4]
    assert [each.name for each in opened] == [None, "example.com", None, "example.com"]
    assert [each.flow.transport for each in opened] == ["udp", "udp", "udp", "tcp"]
    details = [each.details for each in reports if isinstance(each, Layer)]
    assert isinstance(details[0], DnsDetails)
    assert details[0].addresses == (SERVER,)
    assert isinstance(details[1], QuicDetails)
    assert (details[1].sni, details[1].cipher) == ("example.com", "TLS_AES_128_GCM_SHA256")


def test_a_flow_ends_after_a_minute_without_a_datagram(wire: Any) -> None:
    sender = Sender(wire)
    ends = (CLIENT, 5000), (RESOLVER, 53)
    packets = [
        *sender.exchange(QUERY, ANSWER, ends),
        sender.udp(QUERY, *ends, after_s=59.0),
        sender.udp(QUERY, *ends, after_s=61.0),
        sender.udp(QUERY, (CLIENT, 5001), ends[1]),
    ]
    closed = [each for each in follow(packets) if isinstance(each, Closed)]
    assert [each.flow.bytes_up // len(QUERY) for each in closed] == [2, 1, 1]
    assert closed[0].flow.bytes_down == len(ANSWER)
    assert {(each.reason, each.stack) for each in closed} == {("closed", ("dns",))}


def test_what_keeps_a_port_open_does_not_hide_what_follows(wire: Any) -> None:
    sender = Sender(wire)
    ends = (CLIENT, 40000), (SERVER, 443)
    assert stacks([sender.udp(b"\0", *ends), sender.udp(vectors()[0].client, *ends)]) == [("quic",)]


def test_noise_is_unknown_and_silence_is_nothing(wire: Any) -> None:
    sender = Sender(wire)
    packets = [sender.udp(b"\xf5\xe1 nothing", (CLIENT, 1), (SERVER, 2)) for _ in range(9)]
    assert stacks([*packets, sender.udp(b"", (CLIENT, 3), (SERVER, 4))]) == [("unknown",), ()]


def test_what_is_said_over_stun_s_ports_is_a_layer(wire: Any) -> None:
    sender = Sender(wire)
    ends = (CLIENT, 40000), (SERVER, 50000)
    stun = b"\0\1\0\0\x21\x12\xa4\x42" + bytes(12)
    hello = b"\x16\xfe\xff" + bytes(8) + b"\0\x31\1\0\0\x25\0\0\0\0\0\0\0\0\x25\xfe\xfd" + bytes(35)
    assert stacks([*sender.exchange(stun, stun, ends), sender.udp(hello, *ends)]) == [
        ("stun", "dtls")
    ]


def test_media_are_known_by_the_call_that_announces_them(wire: Any) -> None:
    sender = Sender(wire)
    sdp = f"v=0\r\nc=IN IP4 {CLIENT}\r\nm=audio 7000 RTP/AVP 0\r\na=sendrecv\r\n".encode()
    invite = (
        b"INVITE sip:a@192.0.2.2 SIP/2.0\r\nCall-ID: 1\r\nContent-Type: application/sdp\r\n\r\n"
    )
    rtp, rtcp = b"\x80\x00\x00\x01" + bytes(168), b"\x80\xc8\x00\x06" + bytes(24)
    packets = [
        sender.udp(rtp, (SERVER, 9000), (CLIENT, 7002)),
        sender.udp(invite + sdp, (CLIENT, 5060), (SERVER, 5060)),
        sender.udp(rtp, (SERVER, 9000), (CLIENT, 7000)),
        sender.udp(rtcp, (CLIENT, 7001), (SERVER, 9001)),
    ]
    assert stacks(packets) == [("unknown",), ("sip",), ("rtp",), ("rtcp",)]


def test_the_file_of_tftp_comes_from_another_port(wire: Any) -> None:
    sender = Sender(wire)
    packets = [
        sender.udp(b"\0\1boot\0octet\0", (CLIENT, 2000), (SERVER, 69)),
        sender.udp(b"\0\3\0\1data", (SERVER, 3000), (CLIENT, 2000)),
    ]
    assert stacks(packets) == [("tftp",), ("tftp",)]


def test_a_tunnel_and_the_flow_inside_it_are_told(wire: Any) -> None:
    sender = Sender(wire)
    inner = sender.udp(QUERY, (CLIENT, 5000), (RESOLVER, 53))[2]
    vxlan = b"\x08" + bytes(7) + wire.ethernet(inner)
    packets = [sender.udp(vxlan, ("10.0.0.1", 6000), ("10.0.0.2", 4789)) for _ in range(20)]
    closed = [each for each in follow(packets) if isinstance(each, Closed)]
    assert [(each.stack, each.flow.bytes_up) for each in closed] == [
        (("vxlan",), 20 * len(vxlan)),
        (("dns",), 20 * len(QUERY)),
    ]
    assert stacks(packets[:0]) == []
    assert [each.stack for each in follow(packets, tunnels=False) if isinstance(each, Closed)] == [
        ("vxlan",)
    ]


def test_flows_beyond_the_limit_are_closed_and_counted(wire: Any) -> None:
    sender, statistics = Sender(wire), Statistics()
    packets = [sender.udp(QUERY, (CLIENT, port), (RESOLVER, 53)) for port in range(1, 51)]
    closed = [
        each
        for each in follow(packets, max_flows=10, statistics=statistics)
        if isinstance(each, Closed)
    ]
    assert len(closed) == 50
    assert statistics.evicted == 40
    assert [each.reason for each in closed] == ["shutdown"] * 40 + ["closed"] * 10


def test_what_listeners_keep_is_bounded(wire: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DatagramFlows.__init__, "__kwdefaults__", {
        **(DatagramFlows.__init__.__kwdefaults__ or {}), "max_kept_bytes": 100_000,
    })  # fmt: skip
    sender, statistics = Sender(wire), Statistics()
    half = b"\x41" + bytes(999)  # of no protocol yet: NTP's shape would do as well
    ntp = bytes([0x23, 0, 6, 0xEC]) + bytes(996)
    packets = [sender.udp(ntp, (CLIENT, port), (SERVER, 9)) for port in range(1000, 1299)]
    packets += [sender.udp(half, (CLIENT, 400), (SERVER, 9))]
    assert len(stacks(packets)) == 300
    list(follow(packets, statistics=statistics))
    assert statistics.evicted == 299 - 100
