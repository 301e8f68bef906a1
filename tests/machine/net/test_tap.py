"""A tap sees every TCP packet of its interface, and nothing else."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import trio

from mitml4.errors import MachineError
from mitml4.net.netns import NetNamespace
from mitml4.net.tap import LOOPBACK, Seen, Tap

CHUNK = 1 << 16


@pytest.fixture
def alone() -> Iterator[NetNamespace]:
    with NetNamespace() as namespace:
        namespace.run("ip", "link", "set", LOOPBACK, "up")
        yield namespace


@pytest.fixture
def tap(alone: NetNamespace) -> Iterator[Tap]:
    tap = alone.call(lambda: Tap.open(LOOPBACK))
    yield tap
    tap.close()


async def take(tap: Tap, until: bytes) -> list[Seen]:
    """All packets, up to the first that ends in these bytes."""
    seen: list[Seen] = []
    with trio.fail_after(5):
        while not any(each.frame.endswith(until) for each in seen):
            await tap.wait()
            seen += tap.take()
    return seen


def talk(
    namespace: NetNamespace,
    family: int,
    host: str,
    data: bytes,
    pause: Callable[[int], None] = lambda sent: None,
) -> tuple[int, int]:
    """Send this over a connection, with a pause behind each piece; the ports of both ends."""
    with namespace.socket(family) as listener, namespace.socket(family) as client:
        listener.bind((host, 0))
        listener.listen()
        client.connect(listener.getsockname())
        server, _ = listener.accept()
        with server:
            for start in range(0, len(data), CHUNK):
                chunk = data[start : start + CHUNK]
                client.sendall(chunk)
                assert server.recv(len(chunk), socket.MSG_WAITALL) == chunk
                pause(start + len(chunk))
        return client.getsockname()[1], listener.getsockname()[1]


@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
)
async def test_it_sees_each_packet_once(
    alone: NetNamespace, tap: Tap, family: int, host: str
) -> None:
    with alone.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.sendto(b"not TCP", ("127.0.0.1", 9))
    client, server = talk(alone, family, host, b"a line of text")
    seen = await take(tap, b"a line of text")
    tcp = seen[0].network + (20 if family == socket.AF_INET else 40)
    ports = [
        tuple(int.from_bytes(each.frame[at : at + 2]) for at in (tcp, tcp + 2)) for each in seen
    ]
    flags = [each.frame[tcp + 13] for each in seen]
    assert flags[:3] == [0x02, 0x12, 0x10]
    assert ports[:3] == [(client, server), (server, client), (client, server)]
    assert seen[3].frame.endswith(b"a line of text")
    assert not any(each.outgoing for each in seen)
    assert [each.time_ns for each in seen] == sorted(each.time_ns for each in seen)
    assert tap.link_type == 1


async def test_much_goes_round_the_ring_and_nothing_is_missing(
    alone: NetNamespace, monkeypatch
) -> None:
    monkeypatch.setattr("mitml4.net.tap._BLOCKS", 4)
    tap = alone.call(lambda: Tap.open(LOOPBACK))
    data = os.urandom(1 << 20) * 24
    seen: list[Seen] = []

    async def read_up_to(sent: int) -> None:
        """No more is sent meanwhile than fits the ring."""
        while sum(len(payload(each)) for each in seen) < sent:
            await tap.wait()
            seen.extend(tap.take())

    def pause(sent: int) -> None:
        if sent % (1 << 20) == 0:
            trio.from_thread.run(read_up_to, sent)

    with trio.fail_after(60):
        client, _ = await trio.to_thread.run_sync(
            partial(talk, alone, socket.AF_INET, "127.0.0.1", data, pause=pause)
        )
    _, missing = tap.statistics()
    assert missing == 0
    assert all(each.length == len(each.frame) for each in seen)
    assert in_order([each for each in seen if is_from(client, each)]) == data
    tap.close()


def is_from(port: int, seen: Seen) -> bool:
    return int.from_bytes(seen.frame[34:36]) == port


def in_order(packets: list[Seen]) -> bytes:
    """What one end has sent, some of it twice on a busy machine; it begins with a SYN."""
    sent = bytearray()
    begin = sequence(packets[0]) + 1
    for each in packets:
        at = (sequence(each) - begin) % (1 << 32)
        if part := payload(each):
            sent[at : at + len(part)] = part
    return bytes(sent)


def payload(seen: Seen) -> bytes:
    """Of TCP in IPv4 without options."""
    return seen.frame[34 + (seen.frame[46] >> 4) * 4 :]


def sequence(seen: Seen) -> int:
    return int.from_bytes(seen.frame[38:42])


async def test_an_interface_without_frames_gives_ip_packets(alone: NetNamespace) -> None:
    device = alone.call(tunnel)
    alone.run("ip", "address", "add", "192.0.2.1/24", "dev", "tun0")
    alone.run("ip", "link", "set", "tun0", "up")
    tap = alone.call(lambda: Tap.open("tun0"))
    assert tap.link_type == 101
    with alone.socket() as client:
        client.setblocking(False)
        client.connect_ex(("192.0.2.2", 80))
        with trio.fail_after(5):
            await tap.wait()
    (seen,) = tap.take()
    assert (seen.network, seen.outgoing, seen.frame[0] >> 4) == (0, True, 4)
    assert seen.frame[16:20] == socket.inet_aton("192.0.2.2")
    tap.close()
    os.close(device)


def tunnel() -> int:
    """A device of IP packets, up as long as its descriptor is open (linux/if_tun.h)."""
    device = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(device, 0x400454CA, struct.pack("16sH22x", b"tun0", 0x1001))
    return device


def test_an_interface_that_is_not_there_is_said(alone: NetNamespace) -> None:
    with pytest.raises(MachineError, match="cannot see the packets of eth7: No such device"):
        alone.call(lambda: Tap.open("eth7"))
