"""Connections that others announce are named after what was said of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mitml4.capture.follow import follow
from mitml4.capture.packet import Packet
from mitml4.capture.reports import Closed

CLIENT, SERVER = "192.0.2.1", "198.51.100.2"
UP, DOWN = True, False


class Wired:
    """Makes the packets of connections, 10 ms apart."""

    def __init__(self, wire: Any) -> None:
        self.wire = wire
        self.time_s = 1000.0

    def connection(
        self, said: Iterable[tuple[bool, bytes]], port: int, *, client_port: int = 40000,
        client: str = CLIENT, server: str = SERVER,
    ) -> list[Packet]:  # fmt: skip
        ends = {UP: (client, client_port), DOWN: (server, port)}
        at = {UP: 100, DOWN: 500}
        syn, ack, fin = self.wire.SYN, self.wire.ACK, self.wire.FIN
        packets = [
            self._packet(ends, UP, b"", at, syn),
            self._packet(ends, DOWN, b"", at, syn | ack),
        ]
        at[UP], at[DOWN] = 101, 501
        for up, data in said:
            packets.append(self._packet(ends, up, data, at, ack))
            at[up] += len(data)
        return [*packets, *(self._packet(ends, up, b"", at, ack | fin) for up in (UP, DOWN))]

    def _packet(
        self,
        ends: dict[bool, tuple[str, int]],
        up: bool,
        data: bytes,
        at: dict[bool, int],
        flags: int,
    ) -> Packet:
        self.time_s += 0.01
        segment = self.wire.tcp(
            data, source=ends[up][1], destination=ends[not up][1],
            seq=at[up], ack=at[not up] if flags & 16 else 0, flags=flags,
        )  # fmt: skip
        packet = self.wire.ipv4(segment, source=ends[up][0], destination=ends[not up][0])
        return self.time_s, 101, packet, 0, len(packet)


LOGIN = [(DOWN, b"220 FTP\r\n"), (UP, b"USER a\r\n"), (DOWN, b"331 ?\r\n"), (UP, b"PASS b\r\n")]
LOGIN += [(DOWN, b"230 in\r\n")]
FILE = [(DOWN, b"\x00\x01\x02 some bytes of a file")]


def stacks(packets: Iterable[Packet]) -> dict[int, tuple[str, ...]]:
    """By the port of the destination."""
    closed = (each for each in follow(packets) if isinstance(each, Closed))
    return {each.flow.destination.port: each.stack for each in closed}


def test_passive_data_of_ftp_is_known_by_the_reply(wire: Any) -> None:
    wired = Wired(wire)
    packets = wired.connection(
        [
            *LOGIN,
            *((UP, b"PASV\r\n"), (DOWN, b"227 Entering (198,51,100,2,31,64)\r\n")),
            *((UP, b"EPSV\r\n"), (DOWN, b"229 Entering (|||8001"), (DOWN, b"|)\r\n")),
        ],
        21,
    )
    for port in (8000, 8001, 8002):
        packets += wired.connection(FILE, port)
    assert stacks(packets) == {
        21: ("ftp",),
        8000: ("ftp-data",),
        8001: ("ftp-data",),
        8002: ("unknown",),
    }


def test_active_data_of_ftp_is_known_by_the_command(wire: Any) -> None:
    wired = Wired(wire)
    said = [*LOGIN, (UP, b"PORT 192,0,2,1,35,40\r\n"), (UP, b"EPRT |1|192.0.2.1|9001|\r\n")]
    packets = wired.connection(said, 21)
    for port in (9000, 9001):
        packets += wired.connection(
            [(UP, FILE[0][1])], port, client=SERVER, server=CLIENT, client_port=20
        )
    assert stacks(packets) == {21: ("ftp",), 9000: ("ftp-data",), 9001: ("ftp-data",)}


def test_what_the_bytes_show_counts_more_than_what_was_announced(wire: Any) -> None:
    wired = Wired(wire)
    packets = wired.connection([*LOGIN, (DOWN, b"229 Entering (|||8000|)\r\n")], 21)
    request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    packets += wired.connection([(UP, request)], 8000)
    assert stacks(packets)[8000] == ("http/1",)


def test_an_announcement_is_used_once_and_not_for_long(wire: Any) -> None:
    wired = Wired(wire)
    announcing = [*LOGIN, (DOWN, b"229 Entering (|||8000|)\r\n229 Entering (|||8001|)\r\n")]
    packets = wired.connection(announcing, 21)
    first = wired.connection(FILE, 8000)
    again = wired.connection(FILE, 8000, client_port=40001)
    wired.time_s += 200
    late = wired.connection(FILE, 8001)
    closed = [
        each for each in follow([*packets, *first, *again, *late]) if isinstance(each, Closed)
    ]
    assert sorted(each.stack for each in closed) == [
        ("ftp",), ("ftp-data",), ("unknown",), ("unknown",)
    ]  # fmt: skip


def test_a_file_over_irc_is_known_by_its_offer(wire: Any) -> None:
    wired = Wired(wire)
    said = [
        (UP, b"NICK a\r\nUSER a 0 * :a\r\n"),
        (DOWN, b":irc.example 001 a :Welcome\r\n"),
        (DOWN, b":b!b@host PRIVMSG a :\x01DCC SEND x.bin 3221225993 5000 100\x01\r\n"),
        (UP, b"PRIVMSG b :\x01DCC CHAT chat 2001:db8::1 5001\x01\r\n"),
    ]
    packets = wired.connection(said, 6667)
    packets += wired.connection(FILE, 5000, server="192.0.2.9")
    assert stacks(packets) == {6667: ("irc",), 5000: ("irc-dcc",)}


def test_media_of_rtsp_are_known_by_the_answer_to_setup(wire: Any) -> None:
    wired = Wired(wire)
    said = [
        (UP, b"OPTIONS rtsp://a/ RTSP/1.0\r\nCSeq: 1\r\n\r\n"),
        (DOWN, b"RTSP/1.0 200 OK\r\nCSeq: 1\r\n\r\n"),
        (UP, b"SETUP rtsp://a/1 RTSP/1.0\r\nTransport: RTP/AVP;client_port=7000-7001\r\n\r\n"),
        (DOWN, b"RTSP/1.0 200 OK\r\nCSeq: 2\r\nTransport: RTP/AVP;unicast;client_port=7000-7001;"),
        (DOWN, b"server_port=8000-8001\r\n\r\n"),
    ]  # fmt: skip
    packets = wired.connection(said, 554)
    rtp = wire.udp(b"\x80\x60\x00\x01" + bytes(168), source=8000, destination=7000)
    packet = wire.ipv4(rtp, source=SERVER, destination=CLIENT, protocol=17)
    packets.append((wired.time_s + 1, 101, packet, 0, len(packet)))
    assert stacks(packets) == {554: ("rtsp",), 7000: ("rtp",)}
