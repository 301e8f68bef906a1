"""Packets that only move a number are kept from everybody, and nobody can tell from the reports."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitml4.capture import follow as follow_module
from mitml4.capture.fast_path import Step, fast_path
from mitml4.capture.follow import follow
from mitml4.capture.network.dissector import Datagram, Dissector
from mitml4.capture.packet import Packet
from mitml4.capture.reports import Closed, Report
from mitml4.capture.sharing import Part
from mitml4.engine import interpreter

MASK = 0xFFFFFFFF
MACS = b"\x02" * 12
LINKS = {
    "Ethernet": (1, {4: MACS + b"\x08\x00", 6: MACS + b"\x86\xdd"}),
    "VLAN": (1, {4: MACS + b"\x81\x00\x20\x07\x08\x00", 6: MACS + b"\x81\x00\x20\x07\x86\xdd"}),
    "raw": (101, {4: b"", 6: b""}),
    "loopback": (0, {4: b"\x02\x00\x00\x00", 6: b"\x1e\x00\x00\x00"}),
    "cooked": (113, {4: bytes(14) + b"\x08\x00", 6: bytes(14) + b"\x86\xdd"}),
    "cooked v2": (276, {4: b"\x08\x00" + bytes(18), 6: b"\x86\xdd" + bytes(18)}),
}
OPAQUE = b"\xf5\xe1 in no protocol " * 20


class Talk:
    """The packets of one connection, each with bytes of another packet around it."""

    def __init__(self, wire: Any, link: str = "Ethernet", version: int = 4, isn: int = 100) -> None:
        self.wire = wire
        self.link_type, heads = LINKS[link]
        self.head = heads[version]
        self.version = version
        self.isn = isn

    def packet(self, up: bool, seq: int, data: bytes = b"", **tcp: Any) -> Packet:
        ports = (40000, 9000) if up else (9000, 40000)
        segment = self.wire.tcp(
            data, source=ports[0], destination=ports[1], seq=self.isn + seq, **tcp
        )
        if self.version == 4:
            ends = ("192.0.2.1", "198.51.100.2")[:: 1 if up else -1]
            ip = self.wire.ipv4(segment, source=ends[0], destination=ends[1])
        else:
            ends = ("2001:db8::1", "2001:db8::2")[:: 1 if up else -1]
            ip = self.wire.ipv6(segment, source=ends[0], destination=ends[1])
        frame = self.head + ip
        return (
            1.0 + seq / 1000,
            self.link_type,
            b"\xff" * 7 + frame + b"\xff" * 7,
            7,
            7 + len(frame),
        )

    def opening(self) -> list[Packet]:
        """A handshake, and enough for everybody to look away."""
        syn, ack = self.wire.SYN, self.wire.ACK
        return [
            self.packet(True, 0, flags=syn),
            self.packet(False, 0, flags=syn | ack, ack=self.isn + 1),
            self.packet(True, 1, ack=self.isn + 1),
            self.packet(True, 1, OPAQUE, ack=self.isn + 1),
        ]


def told(reports: Iterable[Report]) -> list[object]:
    """Reports without the flow's own state, which moves on; the counts where it closes."""
    said: list[object] = []
    for report in reports:
        flow = report.flow
        said.append((type(report), flow.number, replace(report, flow=None)))
        if isinstance(report, Closed):
            said.append((flow.bytes_up, flow.bytes_down, flow.opened_s, flow.last_s))
    return said


def dissected(
    packets: Iterable[Packet], _: object, _datagrams: object, dissector: Dissector, **_how: object
) -> Iterator[Step]:
    """All segments and datagrams, by the way that reads every header."""
    for number, (time_s, link_type, data, start, end) in enumerate(packets):
        unit = dissector.unit(link_type, data[start:end])
        for each in (*dissector.carriers, unit):
            if each is not None:
                yield number, time_s, each
        dissector.carriers.clear()


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[Packet]:
    """The packets that took the long way."""
    seen: list[Packet] = []

    def watching(
        packets: Iterable[Packet], halves: Any, datagrams: Any, dissector: Dissector, **how: Any
    ) -> Iterator[Step]:
        for packet in packets:
            units, skipped = 0, dissector.skipped.total()
            for step in fast_path([packet], halves, datagrams, dissector, **how):
                units += step[-1] is not None
                yield step
            if units or dissector.skipped.total() > skipped:
                seen.append(packet)

    monkeypatch.setattr(follow_module, "fast_path", watching)
    return seen


def test_the_short_way_finds_the_same_segment(wire: Any) -> None:
    """Also where there is padding behind it, and wherever the capture has cut it."""
    for link in LINKS:
        for version in (4, 6):
            for options in (b"", b"\1" * 12):
                for beyond in (6, 0, -5, -100, -420, -425, -500):
                    talk = Talk(wire, link, version)
                    time_s, link_type, data, start, end = talk.packet(
                        True, 5, OPAQUE, ack=9, options=options
                    )
                    packet = (time_s, link_type, data, start, max(end + beyond, start))
                    short, long = Dissector(), Dissector()
                    assert list(fast_path([packet], {}, {}, short)) == list(
                        dissected([packet], {}, {}, long)
                    )
                    assert short.skipped == long.skipped


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("version", [4, 6])
def test_what_goes_on_in_a_named_flow_is_only_counted(
    wire: Any, looked_at: list[Packet], link: str, version: int
) -> None:
    talk = Talk(wire, link, version, isn=MASK - 2000)  # the numbers wrap on the way
    opening, size = talk.opening(), len(OPAQUE)
    rest = [talk.packet(False, 1 + number * size, OPAQUE) for number in range(20)]
    rest += [talk.packet(True, 1 + size, ack=1 + 20 * size, options=b"\1" * 12)]
    rest += [talk.packet(True, 1 + number * size, OPAQUE) for number in range(1, 10)]
    closed = list(follow(opening + rest))[-1]
    assert looked_at == opening
    assert isinstance(closed, Closed)
    assert closed.stack == ("unknown",)
    assert (closed.flow.bytes_up, closed.flow.bytes_down) == (10 * size, 20 * size)
    assert closed.flow.last_s == rest[-1][0]


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("version", [4, 6])
def test_of_the_processes_that_share_a_capture_one_sees_a_packet(
    wire: Any, link: str, version: int
) -> None:
    """The others pass over it, also where a length is wrong, once they know its flow."""
    talk = Talk(wire, link, version)
    syn = talk.packet(True, 0, flags=wire.SYN)
    ((_, _, segment),) = fast_path([syn], {}, {}, Dissector())
    assert segment
    parts = [Part(index, 3) for index in range(3)]
    others = [part for part in parts if part.is_foreign(segment[0])]
    assert len(others) == 2
    time_s, link_type, data, start, end = talk.packet(True, 1, OPAQUE)
    words = start + len(talk.head) + (20 if version == 4 else 40) + 12
    broken = (time_s, link_type, data[:words] + b"\x10" + data[words + 1 :], start, end)
    for part in parts:
        dissector = Dissector()
        steps = list(fast_path([syn, broken], {}, {}, dissector, share=part))
        is_other = part in others
        assert bool(steps) is not is_other
        assert bool(dissector.skipped) is not is_other


@pytest.mark.parametrize("port", [53, 4789])
def test_one_process_sees_a_datagram_but_all_see_one_that_may_carry_packets(
    wire: Any, port: int
) -> None:
    ip = wire.ipv4(wire.udp(b"\xff" * 20, source=40000, destination=port), protocol=17)
    packet = (1.0, 101, ip, 0, len(ip))
    seen = [list(fast_path([packet], {}, {}, Dissector(), share=Part(of, 3))) for of in range(3)]
    assert sum(map(bool, seen)) == (1 if port == 53 else 3)


def test_datagrams_of_a_named_flow_are_only_counted(wire: Any, looked_at: list[Packet]) -> None:
    def packet(time_s: float, size: int, source: int = 5000) -> Packet:
        ip = wire.ipv4(wire.udp(b"x" * size, source=source, destination=9), protocol=17)
        return time_s, 101, ip, 0, len(ip)

    first = [packet(1.0 + number, 20) for number in range(8)]  # then it is unknown
    rest = [packet(10.0 + number, 30) for number in range(20)]
    other, late = packet(31.0, 30, source=5001), packet(100.0, 30)
    reports = list(follow([*first, *rest, other, late]))
    assert looked_at == [*first, other, late]
    closed = [report for report in reports if isinstance(report, Closed)]
    assert [(each.flow.number, each.flow.bytes_up, each.reason) for each in closed] == [
        (1, 8 * 20 + 20 * 30, "closed"),
        (2, 30, "closed"),
        (3, 30, "closed"),
    ]
    assert (closed[0].stack, closed[0].time_s) == (("unknown",), 29.0)


def changed(wire: Any, **tcp: Any) -> Packet:
    return Talk(wire).packet(False, tcp.pop("seq", 1), b"more", **tcp)


def broken(packet: Packet, at: int, byte: int) -> Packet:
    time_s, link_type, data, start, end = packet
    data = data[: start + at] + bytes([byte]) + data[start + at + 1 :]
    return time_s, link_type, data, start, end


@pytest.mark.parametrize(
    "other",
    {
        "another number": lambda wire: changed(wire, seq=7),
        "a FIN": lambda wire: changed(wire, flags=wire.FIN | wire.ACK),
        "a RST": lambda wire: changed(wire, flags=wire.RST),
        "a SYN": lambda wire: changed(wire, flags=wire.SYN),
        "a fragment": lambda wire: broken(changed(wire), 20, 0x20),
        "UDP": lambda wire: broken(changed(wire), 23, 17),
        "another EtherType": lambda wire: broken(changed(wire), 13, 0x06),
        "IP options": lambda wire: broken(changed(wire), 14, 0x46),
        "a broken TCP header": lambda wire: broken(changed(wire), 46, 0x40),
        "a TCP header longer than the packet": lambda wire: broken(changed(wire), 46, 0xF0),
        "no total length": lambda wire: broken(broken(changed(wire), 16, 0), 17, 0),
        "a header that is cut off": lambda wire: (*changed(wire)[:4], 7 + 47),
    }.items(),
    ids=lambda other: other[0],
)
def test_what_is_special_is_looked_at(
    wire: Any, looked_at: list[Packet], other: tuple[str, Any]
) -> None:
    packets = [*Talk(wire).opening(), other[1](wire)]
    list(follow(packets))
    assert looked_at == packets


def test_a_hole_and_what_fills_it_are_looked_at(wire: Any, looked_at: list[Packet]) -> None:
    talk, size = Talk(wire), len(OPAQUE)
    at = 1 + size
    packets = [
        *talk.opening(),
        talk.packet(False, 1 + size, OPAQUE),
        talk.packet(True, at, ack=talk.isn + 1),
        talk.packet(False, 1, OPAQUE),
    ]
    after = talk.packet(False, 1 + 2 * size, OPAQUE)
    closed = list(follow([*packets, after]))[-1]
    assert looked_at == packets
    assert closed.flow.bytes_down == 3 * size


def test_behind_a_fin_there_are_acknowledgements_and_no_data(
    wire: Any, looked_at: list[Packet]
) -> None:
    talk, size = Talk(wire), len(OPAQUE)
    packets = [
        *talk.opening(),
        talk.packet(False, 1, OPAQUE, flags=wire.FIN | wire.ACK),
        talk.packet(False, 2 + size, OPAQUE),
    ]
    after = talk.packet(False, 2 + size, ack=talk.isn + 1 + size)
    closed = list(follow([*packets, after]))[-1]
    assert looked_at == packets
    assert closed.flow.bytes_down == size
    assert closed.flow.last_s == after[0]


def test_what_clears_an_early_acknowledgement_is_looked_at(
    wire: Any, looked_at: list[Packet]
) -> None:
    """The server's first bytes, acknowledged before they come, leave no mark on a later hole."""
    talk, size = Talk(wire), len(OPAQUE)
    syn, ack = wire.SYN, wire.ACK
    packets = [
        talk.packet(True, 0, flags=syn),
        talk.packet(False, 0, flags=syn | ack, ack=talk.isn + 1),
        talk.packet(True, 1, OPAQUE, ack=talk.isn + 1 + size),
        talk.packet(False, 1, OPAQUE),
        talk.packet(False, 1 + 2 * size, OPAQUE),
        talk.packet(False, 1 + size, OPAQUE),
    ]
    closed = list(follow(packets))[-1]
    assert looked_at == packets
    assert closed.flow.bytes_down == 3 * size


STREAM = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 300\r\n\r\n" + bytes(300)
    + b"HTTP/1.1 200 OK\r\n\r\n" + bytes(200)
)  # fmt: skip
ASKED = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 2


@settings(max_examples=150)
@given(st.data())
def test_no_report_tells_whether_packets_took_the_fast_path(wire: Any, data: st.DataObject) -> None:
    talk = Talk(wire, isn=data.draw(st.sampled_from([100, MASK - 150])))
    packets = talk.opening()[:3]
    for up, stream in ((True, ASKED), (False, STREAM)):
        cuts = sorted({0, len(stream), *data.draw(st.sets(st.integers(1, len(stream) - 1)))})
        for start, end in itertools.pairwise(cuts):
            flags = talk.wire.ACK | (talk.wire.FIN if end == len(stream) else 0)
            ack = talk.isn + 1 + data.draw(st.integers(0, 600))
            packets.append(talk.packet(up, 1 + start, stream[start:end], flags=flags, ack=ack))
    for _ in range(data.draw(st.integers(0, 6))):
        at, to = (data.draw(st.integers(0, len(packets) - 1)) for _ in range(2))
        packets.insert(to, packets[at] if data.draw(st.booleans()) else packets.pop(at))
    with pytest.MonkeyPatch.context() as patch:
        # A layer that has worked for long lets others go on, and so shows less at a time.
        patch.setattr(interpreter, "time", SimpleNamespace(perf_counter=lambda: 0.0))
        quick = told(follow(packets))
        patch.setattr(follow_module, "fast_path", dissected)
        assert quick == told(follow(packets))


def datagrams_of(way: Any, packet: Packet, *, tunnels: bool) -> list[Datagram]:
    """The datagrams in a packet, outermost first."""
    steps = way([packet], {}, {}, Dissector(tunnels=tunnels))
    return [unit for _, _, unit in steps if len(unit) == 3]


VXLAN, TEREDO, DNS, OTHER = 4789, 3544, 53, 40000


@settings(max_examples=300)
@given(
    link=st.sampled_from(list(LINKS)),
    version=st.sampled_from([4, 6]),
    ports=st.tuples(*[st.sampled_from([VXLAN, TEREDO, DNS, OTHER])] * 2),
    data=st.binary(max_size=60),
    errors=st.tuples(*[st.sampled_from([0, 0, 0, 1, 9, -1, -9, -100])] * 3),
    tunnels=st.booleans(),
)
def test_a_datagram_is_what_the_dissector_finds(
    wire: Any,
    link: str,
    version: int,
    ports: tuple[int, int],
    data: bytes,
    errors: tuple[int, int, int],
    tunnels: bool,
) -> None:
    """`errors`: of the lengths of datagram and packet, and of what was captured."""
    udp = wire.udp(data, source=ports[0], destination=ports[1])
    size = max(len(udp) + errors[0], 0)
    udp = udp[:4] + size.to_bytes(2, "big") + udp[6:]
    length = max(len(udp) + errors[1], 0)
    ip = (
        wire.ipv4(udp, protocol=17, total=20 + length)
        if version == 4
        else wire.ipv6(udp, header=17, length=length)
    )
    link_type, heads = LINKS[link]
    frame = heads[version] + ip
    captured = min(max(len(frame) + errors[2], 0), len(frame))
    packet = (1.0, link_type, b"\xff" * 7 + frame + b"\xff" * 7, 7, 7 + captured)
    expected = datagrams_of(dissected, packet, tunnels=tunnels)
    assert datagrams_of(fast_path, packet, tunnels=tunnels) == expected
