"""Packets that are no proper beginning of a connection do not get past a session to a server."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import pytest

from mitml4.lab.network import CLIENT_V4, CLIENT_V6, SERVER_V4, SERVER_V6, LabNetwork

FIN, SYN, RST, PSH, ACK, URG = (1 << bit for bit in range(6))
PORT, OPEN_BEFORE = 7101, 7102
TCP, FRAGMENT, DESTINATION_OPTIONS, HOP_BY_HOP = 6, 44, 60, 0
ETH_P_ALL = 3
SOURCE = {SERVER_V4: CLIENT_V4, SERVER_V6: CLIENT_V6}

MALFORMED = {
    "SYN and FIN": SYN | FIN,
    "SYN and RST": SYN | RST,
    "SYN, FIN, RST and PSH": SYN | FIN | RST | PSH,
    "FIN alone": FIN,
    "FIN, PSH and URG": FIN | PSH | URG,
    "nothing": 0,
}
WITHOUT_A_BEGINNING = {
    "ACK": ACK,
    "data": ACK | PSH,
    "FIN and ACK": FIN | ACK,
    "RST": RST,
    "RST and ACK": RST | ACK,
    "SYN and ACK": SYN | ACK,
}


def checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def packed(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def segment(target: str, flags: int, port: int, *, wrong: int = 0) -> bytes:
    """From a port that tells what it is, with a checksum that may be wrong."""
    head = struct.pack("!HHIIBBHHH", 20000 + flags, port, 1000, 2000, 5 << 4, flags, 1024, 0, 0)
    body = head + (b"data" if flags & PSH else b"")
    pseudo = packed(SOURCE[target]) + packed(target) + struct.pack("!II", len(body), TCP)
    right = checksum(pseudo + body)
    return body[:16] + struct.pack("!H", right ^ wrong) + body[18:]


def datagram(target: str, payload: bytes, protocol: int = TCP, *, fragment: int = 0) -> bytes:
    if ":" in target:
        head = struct.pack("!IHBB", 6 << 28, len(payload), protocol, 64)
        return head + packed(CLIENT_V6) + packed(target) + payload
    ends = packed(CLIENT_V4) + packed(target)
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 77, fragment, 64, protocol, 0)
    head = head[:10] + struct.pack("!H", checksum(head + ends)) + ends
    return head + payload


class Wire:
    """What the client sends as it is, and what of it the server's machine receives."""

    def __init__(self, lab: LabNetwork) -> None:
        self.lab = lab
        self.out = lab.client.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        lab.client.call(lambda: self.out.bind(("eth0", 0)))
        self.seen = lab.server.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
        self.macs = mac(lab, "router", "lan") + mac(lab, "client", "eth0")

    def send(self, packet: bytes) -> None:
        kind = b"\x86\xdd" if packet[0] >> 4 == 6 else b"\x08\x00"
        self.out.send(self.macs + kind + packet)

    def received(self, target: str) -> list[int]:
        """The flags of the TCP segments from the client's own address, once a datagram of UDP that
        was sent behind them has come through."""
        mark = struct.pack("!HHHH", 9, 9, 8, 0)
        if ":" in target:
            pseudo = packed(CLIENT_V6) + packed(target) + struct.pack("!II", 8, 17)
            mark = mark[:6] + struct.pack("!H", checksum(pseudo + mark))
        self.send(datagram(target, mark, 17))
        self.seen.settimeout(20)
        found = []
        while True:
            packet = self.seen.recv(65535)
            v6 = packet[0] >> 4 == 6
            source = packet[8:24] if v6 else packet[12:16]
            if source != packed(SOURCE[target]):
                continue
            protocol, start = (packet[6], 40) if v6 else (packet[9], (packet[0] & 15) * 4)
            if protocol == 17:
                return found
            if protocol == TCP:
                found.append(packet[start + 13])
            elif protocol in (FRAGMENT, DESTINATION_OPTIONS, HOP_BY_HOP):
                found.append(-protocol)

    def close(self) -> None:
        self.out.close()
        self.seen.close()


def mac(lab: LabNetwork, host: str, interface: str) -> bytes:
    shown = getattr(lab, host).run("cat", f"/sys/class/net/{interface}/address", check=False).stdout
    if not shown:  # /sys is of another network: ask the kernel
        shown = getattr(lab, host).run("ip", "-br", "link", "show", interface).stdout.split()[2]
    return bytes.fromhex(shown.strip().replace(":", ""))


@pytest.fixture
def wire(lab) -> Iterator[Wire]:
    wire = Wire(lab)
    yield wire
    wire.close()


def fragments(target: str) -> list[bytes]:
    """The first one of a SYN, of which no more comes; IPv6's in several shapes."""
    syn = segment(target, SYN, PORT)
    if ":" not in target:
        return [datagram(target, syn[:16], fragment=0x2000), datagram(target, syn, fragment=0x2000)]
    head = struct.pack("!BBHI", TCP, 0, 1, 77)
    options = bytes([FRAGMENT, 0, 1, 4, 0, 0, 0, 0])
    return [
        datagram(target, head + syn + bytes(4), FRAGMENT),
        datagram(target, head + syn[:16], FRAGMENT),
        datagram(target, options + head + syn[:16], DESTINATION_OPTIONS),
    ]


@pytest.mark.parametrize("target", [SERVER_V4, SERVER_V6])
def test_what_is_malformed_reaches_no_server(intercept, wire, target: str) -> None:
    """Without a session it does: this is what shows that the test can fail."""
    for flags in MALFORMED.values():
        wire.send(datagram(target, segment(target, flags, PORT)))
    assert wire.received(target) == list(MALFORMED.values())
    intercept()
    for flags in MALFORMED.values():
        wire.send(datagram(target, segment(target, flags, PORT)))
    wire.send(datagram(target, segment(target, SYN, PORT, wrong=1)))
    for packet in fragments(target):
        wire.send(packet)
    assert wire.received(target) == []


@pytest.mark.parametrize("target", [SERVER_V4, SERVER_V6])
def test_what_has_no_beginning_does_not_reach_who_is_blocked(intercept, wire, target: str) -> None:
    intercept("--block", target)
    for flags in (*MALFORMED.values(), *WITHOUT_A_BEGINNING.values()):
        wire.send(datagram(target, segment(target, flags, PORT)))
    for packet in fragments(target):
        wire.send(packet)
    assert wire.received(target) == []


def test_a_block_of_a_port_leaves_others_alone(intercept, wire) -> None:
    intercept("--block", f"{SERVER_V4}:{PORT}", "--block", "*:7103")
    for port in (PORT, 7103, 7104):
        wire.send(datagram(SERVER_V4, segment(SERVER_V4, ACK, port)))
    assert wire.received(SERVER_V4) == [ACK]


def test_extension_headers_before_a_syn_are_no_way_round(lab, intercept, wire) -> None:
    """The connection comes to us like any other."""
    session = intercept()
    watch = session.watch()
    options = bytes([TCP, 0, 1, 4, 0, 0, 0, 0])
    wire.send(datagram(SERVER_V6, options + segment(SERVER_V6, SYN, PORT), DESTINATION_OPTIONS))
    assert wire.received(SERVER_V6) == []
    flow = watch.flow()
    assert flow.opened["destination"] == {"ip": SERVER_V6, "port": PORT}


@pytest.fixture
def tracked(lab) -> Iterator[None]:
    """The host knows its connections already."""
    rules = (
        "table inet t { chain c { type filter hook forward priority 0; ct state new accept; }; }"
    )
    lab.router.run("nft", "-f", "-", input=rules)
    yield
    lab.router.run("nft", "delete", "table", "inet", "t")


def test_a_connection_from_before_lives_on_though_its_server_is_blocked(
    tracked, intercept, client, serve_once
) -> None:
    listen = f"TCP-LISTEN:{OPEN_BEFORE},fork,reuseaddr"
    serve_once("socat", listen, "EXEC:cat", port=OPEN_BEFORE)
    with client.connect(SERVER_V4, OPEN_BEFORE) as sock:
        sock.sendall(b"before")
        assert sock.recv(100) == b"before"
        intercept("--block", SERVER_V4)
        sock.sendall(b"during")
        assert sock.recv(100) == b"during"
