"""Packets that are made up of what was said: sound in every header, whatever is missing."""

from __future__ import annotations

import random
import socket
import stat
import struct
import subprocess
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import pytest
import trio

from mitml4.address import Address
from mitml4.capture.files.reader import read_packets
from mitml4.capture.follow import follow
from mitml4.capture.reports import Closed, Happened, Opened
from mitml4.engine.plaintext import PlaintextBegun, PlaintextMoved, PlaintextReset
from mitml4.errors import MitmError
from mitml4.events import CloseReason, FlowClose, FlowOpen
from mitml4.protocols.conversation import Direction
from mitml4.protocols.http.events import HttpRequest
from mitml4.sinks import plain
from mitml4.sinks.inline import Inline
from mitml4.sinks.plain import PlainFormat, PlainPackets
from mitml4.sinks.synthetic import ACK, FIN, MAX_SEGMENT, PSH, RST, SYN, SyntheticConnection
from mitml4.sinks.tcp_reader import TcpReader
from mitml4.sinks.updates import Published

UP, DOWN = Direction.UP, Direction.DOWN
CLIENT, SERVER = Address("10.0.0.1", 1111), Address("192.0.2.1", 443)
CLIENT_V6, SERVER_V6 = Address("2001:db8::1", 1111), Address("2001:db8::2", 443)
TIME_NS = 1_700_000_000_123_456_000
REQUEST = b"GET /a HTTP/1.1\r\nHost: www.example\r\n\r\n"


def opened(flow: int = 1, client: Address = CLIENT, server: Address = SERVER) -> FlowOpen:
    return FlowOpen(flow=flow, client=client, destination=server)


def begun(flow: int = 1, protocol: str = "http/1", port: int = 443) -> PlaintextBegun:
    return PlaintextBegun(flow=flow, time_ns=TIME_NS, protocol=protocol, port=port)


def moved(direction: Direction, data: bytes, flow: int = 1) -> PlaintextMoved:
    return PlaintextMoved(flow=flow, time_ns=TIME_NS, direction=direction, data=data)


def closed(flow: int = 1, reason: CloseReason = "closed") -> FlowClose:
    return FlowClose(
        flow=flow,
        time=datetime.fromtimestamp(TIME_NS // 10**9 + 1, UTC),
        stack=("tls", "http/1"),
        reason=reason,
        bytes_up=1,
        bytes_down=1,
        duration_s=1.0,
    )


def write(path: Path, *events: Published) -> None:
    sink = Inline(PlainFormat.to(path))
    for event in events:
        sink.publish(event)
    sink.finish()


def packets(capture: Path) -> list[tuple[tuple[int, int], int, bytes]]:
    """The ports, the flags and the data of each packet over IPv4."""
    found = []
    with capture.open("rb") as stream:
        for _, link_type, data, start, end in read_packets(stream, str(capture)):
            assert link_type == 1
            tcp = bytes(data[start + 34 : end])
            source, target, offset, flags = struct.unpack_from("!HH8xBB", tcp)
            found.append(((source, target), flags, tcp[(offset >> 4) * 4 :]))
    return found


def tshark(capture: Path, condition: str, *names: str) -> list[list[str]]:
    checks = ("-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE")
    argv = ["tshark", "-n", "-r", str(capture), *checks, "-Y", condition, "-T", "fields"]
    argv += [part for name in names for part in ("-e", name)]
    said = subprocess.check_output(argv, text=True, stderr=subprocess.DEVNULL)
    return [line.split("\t") for line in said.splitlines()]


def test_every_checksum_and_number_is_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of both versions of IP, empty, odd and long data, and sequence numbers that wrap."""
    path = tmp_path / "plain.pcap"
    sizes = [1, 2, 3, 1001, MAX_SEGMENT, MAX_SEGMENT + 1, 100_001]
    said = [random.Random(size).randbytes(size) for size in sizes]
    said.append(b"\xff" * 4096)
    monkeypatch.setattr(random, "getrandbits", lambda _: 2**32 - 5000)
    sink = Inline(PlainFormat.to(path))
    for flow, (client, server) in enumerate([(CLIENT, SERVER), (CLIENT_V6, SERVER_V6)], 1):
        sink.publish(opened(flow, client, server))
        sink.publish(begun(flow, "unknown", 4321))
        for data in said:
            sink.publish(moved(UP, data, flow))
            sink.publish(moved(DOWN, data[::-1], flow))
        sink.publish(moved(UP, b"", flow))
        sink.publish(moved(DOWN, b"late", flow))
        sink.publish(closed(flow))
    sink.finish()
    names = ("ip.checksum.status", "tcp.checksum.status", "tcp.analysis.flags")
    rows = tshark(path, "tcp", "tcp.stream", "tcp.srcport", "tcp.flags.fin", "tcp.payload", *names)
    for stream, *_, ip, tcp, flags in rows:
        assert (ip, tcp, flags) == ("1" if stream == "0" else "", "1", "")
    ends = [(stream, port) for stream, port, fin, *_ in rows if fin == "1"]
    assert ends == [("0", "1111"), ("0", "4321"), ("1", "1111"), ("1", "4321")]
    for stream in ("0", "1"):
        for port, whole in (
            ("1111", b"".join(said)),
            ("4321", b"".join(each[::-1] for each in said) + b"late"),
        ):
            pieces = [row[3] for row in rows if row[:2] == [stream, port]]
            assert b"".join(map(bytes.fromhex, pieces)) == whole


def test_our_own_reader_follows_it(tmp_path: Path) -> None:
    path = tmp_path / "plain.pcap"
    write(path, opened(), begun(), moved(UP, REQUEST), closed())
    with path.open("rb") as stream:
        reports = list(follow(read_packets(stream, "plain")))
    (flow,) = [each.flow for each in reports if isinstance(each, Opened)]
    assert (flow.client, flow.destination) == (CLIENT, Address(SERVER.ip, 80))
    assert flow.opened_s == pytest.approx(TIME_NS / 10**9, abs=1e-6)
    happened = [each.protocol_event for each in reports if isinstance(each, Happened)]
    assert isinstance(happened[0], HttpRequest)
    assert [each.reason for each in reports if isinstance(each, Closed)] == ["closed"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_port_is_where_tools_look_for_the_protocol(tmp_path: Path) -> None:
    """A port of TLS becomes that of the protocol without it; HTTP/2 is only seen at HTTP's."""
    path = tmp_path / "plain.pcap"
    for protocol, port, shown in (
        ("http/1", 443, 80),
        ("http/1", 8443, 8443),
        ("http/2", 443, 80),
        ("http/2", 50051, 80),
        ("imap", 993, 143),
        ("smtp", 465, 25),
        ("smtp", 587, 587),
        ("redis", 6379, 6379),
    ):
        write(path, opened(), begun(1, protocol, port), closed())
        assert packets(path)[0][0] == (1111, shown), protocol


def test_how_a_flow_ends(tmp_path: Path) -> None:
    path = tmp_path / "plain.pcap"
    fins, reset = [(1111, 80), (80, 1111)], [(80, 1111)]
    for reason in get_args(CloseReason):
        write(path, opened(), begun(), moved(UP, REQUEST), closed(reason=reason))
        for flag, ends in ((FIN, fins if reason == "closed" else []),
                           (RST, reset if reason != "closed" else [])):  # fmt: skip
            assert [ports for ports, flags, _ in packets(path) if flags & flag] == ends, reason
    for direction, ports in ((UP, (1111, 80)), (DOWN, (80, 1111))):
        broken = PlaintextReset(flow=1, time_ns=TIME_NS, direction=direction)
        write(path, opened(), begun(), moved(UP, REQUEST), broken, closed(reason="reset"))
        assert [at for at, flags, _ in packets(path) if flags & (FIN | RST)] == [ports]
        write(path, opened(), broken, closed(reason="reset"))
        assert packets(path) == []
    write(path, opened(), closed())  # no TLS was opened
    assert packets(path) == []


def test_tls_inside_the_opened_tls_is_a_connection_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "plain.pcap"
    outer = (begun(), moved(UP, REQUEST))
    write(path, opened(), *outer, begun(), moved(UP, REQUEST), moved(DOWN, b"x"), closed())
    one = [SYN, SYN | ACK, ACK, PSH | ACK, ACK, FIN | ACK, ACK, FIN | ACK, ACK]
    other = [*one[:5], PSH | ACK, ACK, *one[5:]]
    assert [flags for _, flags, _ in packets(path)] == one + other


def test_what_is_missing_is_a_gap(tmp_path: Path) -> None:
    """Packets are dropped behind their numbers, so that what follows stands where it belongs."""
    connection = SyntheticConnection(1, CLIENT, SERVER)
    first, _, lost, _, third, _ = (
        packet for data in (b"abc", b"defgh", b"ij") for packet in connection.say(UP, data, 0)
    )
    assert lost.sequence == first.sequence + 3
    assert third.sequence == lost.sequence + 5


async def test_a_slow_reader_costs_packets_and_no_flow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is dropped is counted; handshakes and ends are not dropped."""
    monkeypatch.setattr(plain, "_CAPACITY", 4 << 20)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sink = PlainPackets(PlainFormat.to(TcpReader("127.0.0.1", listener.getsockname()[1])))
        reader, _ = listener.accept()
    received = bytearray()

    def read() -> None:
        while data := reader.recv(1 << 20):
            received.extend(data)

    total = 30
    async with trio.open_nursery() as nursery:
        await nursery.start(sink.run)
        sink.publish(opened())
        sink.publish(begun())
        for _ in range(total):
            sink.publish(moved(DOWN, bytes(1 << 20)))
        sink.publish(closed())
        reading = threading.Thread(target=read)
        reading.start()
        await sink.aclose()
    reading.join()
    reader.close()
    segments = total * ((1 << 20) // MAX_SEGMENT)
    assert 0 < sink.missing < segments
    assert sink.dropped == 0
    path = tmp_path / "plain.pcap"
    path.write_bytes(received)
    found = packets(path)
    assert sum(bool(data) for *_, data in found) == segments - sink.missing
    assert [ports for ports, flags, _ in found if flags & FIN] == [(1111, 80), (80, 1111)]


async def test_a_reader_that_goes_away_is_no_failure() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sink = PlainPackets(PlainFormat.to(TcpReader("127.0.0.1", listener.getsockname()[1])))
        reader, _ = listener.accept()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    reader.close()
    with pytest.RaisesGroup(BrokenPipeError):
        async with trio.open_nursery() as nursery:
            await nursery.start(sink.run)
            sink.publish(opened())
            sink.publish(begun())


def test_a_reader_has_to_be_there(unused_port: Callable[[], int]) -> None:
    port = unused_port()
    with pytest.raises(MitmError) as caught:
        PlainFormat.to(TcpReader("127.0.0.1", port))
    assert caught.value.message == f"cannot connect to tcp:127.0.0.1:{port}: Connection refused"


@pytest.fixture
def unused_port() -> Callable[[], int]:
    def find() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])

    return find
