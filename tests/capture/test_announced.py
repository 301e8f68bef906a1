"""Connections that others announce are named after what was said of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mitml4.capture.follow import follow
from mitml4.capture.packet import Packet
from mitml4.capture.reports import Closed
from mitml4.capture.tls.secrets import Secrets
from mitml4.protocols.conversation import Direction
from tests.capture.tls.test_decryption import Peers

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


def stacks(packets: Iterable[Packet], secrets: Secrets | None = None) -> dict[int, tuple[str, ...]]:
    """By the port of the destination."""
    closed = (each for each in follow(packets, secrets=secrets) if isinstance(each, Closed))
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


def test_data_of_ftp_is_known_inside_tunnels_by_the_server_that_is_asked_for(wire: Any) -> None:
    """As `curl -x socks5h://… ftp://ftp.example/`: both connections go to one proxy."""
    wired = Wired(wire)

    def tunnel(said: list[tuple[bool, bytes]], port: int, client_port: int) -> list[Packet]:
        asked = b"\x05\x01\x00\x03\x0bftp.example" + port.to_bytes(2, "big")
        greeting = [(UP, b"\x05\x01\x00"), (DOWN, b"\x05\x00"), (UP, asked)]
        granted = (DOWN, b"\x05\x00\x00\x01" + bytes(6))
        return wired.connection([*greeting, granted, *said], 1080, client_port=client_port)

    packets = tunnel([*LOGIN, (UP, b"EPSV\r\n"), (DOWN, b"229 Entering (|||8001|)\r\n")], 21, 40000)
    packets += tunnel(FILE, 8001, 40001) + tunnel(FILE, 8001, 40002) + tunnel(FILE, 8002, 40003)
    closed = (each for each in follow(packets) if isinstance(each, Closed))
    assert {each.flow.client.port - 40000: each.stack[1:] for each in closed} == {
        0: ("ftp",),
        1: ("ftp-data",),
        2: ("unknown",),
        3: ("unknown",),
    }


def test_protected_data_of_ftp_is_known_inside_its_tls(wire: Any) -> None:
    """As a session of `curl --ssl-reqd`: AUTH TLS, then PROT P and EPSV where nobody else reads."""
    control, data = Peers("TLS_AES_128_GCM_SHA256"), Peers("ECDHE-RSA-AES256-GCM-SHA384")
    for peers in (control, data):
        peers.shake_hands()
    for peers, source, said in (
        (control, control.client, b"USER a\r\n"),
        (control, control.server, b"230 in\r\n"),
        (control, control.client, b"PBSZ 0\r\nPROT P\r\nEPSV\r\n"),
        (control, control.server, b"200 ok\r\n200 Private\r\n229 Entering (|||8000|)\r\n"),
        (data, data.server, FILE[0][1]),
    ):
        peers.say(source, said)
    began = [(DOWN, b"220 FTP\r\n"), (UP, b"AUTH TLS\r\n"), (DOWN, b"234 go on\r\n")]
    of_control, of_data = ([(way is Direction.UP, each) for way, each in peers.script]
                           for peers in (control, data))  # fmt: skip
    wired = Wired(wire)
    packets = wired.connection([*began, *of_control], 21) + wired.connection(of_data, 8000)
    for keys_of, expected in (
        ((control, data), {21: ("ftp", "tls", "ftp"), 8000: ("tls", "ftp-data")}),
        ((control,), {21: ("ftp", "tls", "ftp"), 8000: ("tls",)}),
        ((), {21: ("ftp", "tls"), 8000: ("tls",)}),
    ):
        secrets = Secrets()
        for line in (line for peers in keys_of for line in peers.keylog):
            secrets.add(line)
        assert stacks(packets, secrets) == expected


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


def test_frames_inside_rtsp_are_a_layer(wire: Any) -> None:
    transport = b"Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n\r\n"
    said = [
        (UP, b"SETUP rtsp://a/1 RTSP/1.0\r\n" + transport),
        (DOWN, b"RTSP/1.0 200 OK\r\n" + transport),
        (UP, b"PLAY rtsp://a/1 RTSP/1.0\r\n\r\n"),
        (DOWN, b"RTSP/1.0 200 OK\r\n\r\n$\0\0\x10" + bytes(16)),
        (UP, b"$\1\0\4" + bytes(4)),
    ]
    assert stacks(Wired(wire).connection(said, 554)) == {554: ("rtsp", "rtp")}


def test_media_of_sip_over_tcp_are_known_by_any_message(wire: Any) -> None:
    wired = Wired(wire)
    sdp = b"v=0\r\nc=IN IP4 192.0.2.1\r\nm=audio 7000 RTP/AVP 0\r\n"
    head = b"INVITE sip:b SIP/2.0\r\nc: application/sdp\r\nl: %d\r\n\r\n" % len(sdp)
    said = [
        (UP, b"REGISTER sip:a SIP/2.0\r\nContent-Length: 0\r\n\r\n"),
        (DOWN, b"SIP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n"),
        *((UP, (head + sdp)[start : start + 50]) for start in range(0, len(head + sdp), 50)),
    ]
    packets = wired.connection(said, 5060)
    packets += datagrams(wired, [(DOWN, b"\x80\0\0\1" + bytes(168))], 9000, client_port=7000)
    assert stacks(packets) == {5060: ("sip",), 7000: ("rtp",)}


def words(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(4, "big") for number in numbers)


def rpc_call(procedure: int, version: int, *arguments: int) -> bytes:
    return words(7, 0, 2, 100000, version, procedure, 0, 0, 0, 0, *arguments)


ACCEPTED = words(7, 1, 0, 0, 0, 0)
NFS_CALL = words(8, 0, 2, 100005, 3, 0, 0, 0, 0, 0)


def record(body: bytes) -> bytes:
    return words(1 << 31 | len(body)) + body


def datagrams(
    wired: Wired, said: Iterable[tuple[bool, bytes]], port: int, *, client_port: int = 40000
) -> list[Packet]:
    packets = []
    for up, data in said:
        wired.time_s += 0.01
        ends = [(CLIENT, client_port), (SERVER, port)][:: 1 if up else -1]
        udp = wired.wire.udp(data, source=ends[0][1], destination=ends[1][1])
        packet = wired.wire.ipv4(udp, source=ends[0][0], destination=ends[1][0], protocol=17)
        packets.append((wired.time_s, 101, packet, 0, len(packet)))
    return packets


def test_ports_of_programs_are_known_by_the_port_mapper(wire: Any) -> None:
    address = b"192.0.2.1.80.1".ljust(16, b"\0")
    listed = words(1, 100005, 3, 17, 20481, 1, 100021, 4, 6, 20482, 0)
    netid = int.from_bytes(b"udp\0", "big")
    for call, reply in (
        (rpc_call(3, 2, 100005, 3, 17, 0), words(20481)),
        (rpc_call(4, 2), listed),
        (rpc_call(3, 4, 100005, 3, 3, netid, 0, 0), words(14) + address),
    ):
        said = [(UP, call), (DOWN, ACCEPTED + reply)]
        for over_tcp in (False, True):
            wired = Wired(wire)
            if over_tcp:
                packets = wired.connection([(up, record(data)) for up, data in said], 111)
            else:
                packets = datagrams(wired, said, 111)
            packets += datagrams(wired, [(UP, NFS_CALL)], 20481, client_port=700)
            packets += datagrams(wired, [(UP, NFS_CALL)], 20489, client_port=701)
            expected = {111: ("rpc", "portmap"), 20481: ("rpc",), 20489: ("unknown",)}
            assert stacks(packets) == expected, (call, over_tcp)


def test_a_program_on_a_listed_port_of_tcp_is_rpc_whatever_the_capture_shows(wire: Any) -> None:
    wired = Wired(wire)
    said = [(UP, rpc_call(3, 2, 100005, 3, 6, 0)), (DOWN, ACCEPTED + words(20482))]
    packets = datagrams(wired, said, 111)
    packets += wired.connection([(UP, b"\xf5\xe1 the rest of a record")], 20482)
    assert stacks(packets) == {111: ("rpc", "portmap"), 20482: ("rpc",)}
