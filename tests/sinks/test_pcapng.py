"""Packets of our flows and no others, behind the secrets that open them, and never in the way."""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from mitml4.address import Address
from mitml4.capture.files.reader import read_packets
from mitml4.errors import MitmError
from mitml4.events import FlowClose, FlowLayer, FlowOpen, SessionStart
from mitml4.net.tap import Seen
from mitml4.sinks import pcapng
from mitml4.sinks.pcapng import PacketFile
from mitml4.sinks.updates import ClientAsked, ServerConnected, TlsSecret

CLIENT, SERVER, OURS = Address("10.0.0.1", 1111), Address("192.0.2.1", 443), Address("10.0.0.9", 5)
CLIENT_V6, SERVER_V6 = Address("2001:db8::1", 1111), Address("2001:db8::2", 443)
SYN, SYN_ACK, ACK, FIN = 0x02, 0x12, 0x10, 0x11


class StandIn:
    """A tap whose packets a test makes."""

    name = "eth0"
    link_type = 101

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[Seen](100_000)
        self._next: list[Seen] = []
        self.closed = False

    def see(self, source: Address, destination: Address, flags: int, data: bytes = b"") -> None:
        self.see_frame(packet(source, destination, flags, data))

    def see_frame(self, frame: bytes) -> None:
        self._send.send_nowait(Seen(1_700_000_000 * 10**9, frame, 0, len(frame), False))

    async def wait(self) -> None:
        self._next.append(await self._receive.receive())

    def take(self) -> Iterator[Seen]:
        while self._next:
            yield self._next.pop()

    def statistics(self) -> tuple[int, int]:
        return 100, 2

    def close(self) -> None:
        self.closed = True


def packet(source: Address, destination: Address, flags: int, data: bytes) -> bytes:
    tcp = source.port.to_bytes(2) + destination.port.to_bytes(2) + bytes(8)
    tcp += bytes([5 << 4, flags]) + bytes(6) + data
    key = pcapng._key(source, destination)
    if source.is_v6:
        return b"\x60" + bytes(7) + key[:-4] + tcp
    return b"\x45" + bytes(11) + key[:-4] + tcp


def summed(frame: bytes) -> bytes:
    """A packet with its checksums."""
    is_v4 = frame[0] >> 4 == 4
    at, ends = (20, frame[12:20]) if is_v4 else (40, frame[8:40])
    segment = frame[at:]
    pseudo = ends + len(segment).to_bytes(4) + bytes([0, 0, 0, 6])
    segment = segment[:16] + checksum(pseudo + segment) + segment[18:]
    return (
        frame[: at - 10] + checksum(frame[:at]) + ends + segment if is_v4 else frame[:at] + segment
    )


def checksum(data: bytes) -> bytes:
    """RFC 1071, of data whose checksum is zero."""
    data += bytes(len(data) % 2)
    total = sum(int.from_bytes(data[at : at + 2]) for at in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return (~total & 0xFFFF).to_bytes(2)


def opened(flow: int = 1, client: Address = CLIENT, server: Address = SERVER) -> FlowOpen:
    return FlowOpen(flow=flow, client=client, destination=server)


def started(listener: Address) -> SessionStart:
    return SessionStart(
        version="1",
        mode="intercept",
        interfaces=("eth0",),
        listeners=(listener,),
        ca=None,
        table=None,
        pid=1,
    )


def layer(protocol: str, depth: int = 0) -> FlowLayer:
    return FlowLayer(flow=1, depth=depth, protocol=protocol, speaker="client", action="relayed")


def closed(flow: int = 1) -> FlowClose:
    return FlowClose(
        flow=flow, stack=("tls",), reason="closed", bytes_up=1, bytes_down=1, duration_s=1.0
    )


@pytest.fixture
def tap() -> StandIn:
    return StandIn()


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock) -> None:
    """A clock that jumps. It would not wait for a thread, so what would be run in one is run by the
    task itself."""

    async def run_sync(function: Callable[..., Any], *args: Any, **_: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return function(*args)

    monkeypatch.setattr(trio.to_thread, "run_sync", run_sync)


@asynccontextmanager
async def writing(path: Path, tap: StandIn):
    sink = PacketFile.to_file(path, [tap])  # type: ignore[list-item]
    async with trio.open_nursery() as nursery:
        await nursery.start(sink.run)
        yield sink
        await sink.aclose()
    assert tap.closed


def read(path: Path) -> tuple[list[bytes], list[bytes]]:
    """Packets, and secrets."""
    secrets: list[bytes] = []
    packets = read_packets(io.BytesIO(path.read_bytes()), "x", on_secrets=secrets.append)
    return [bytes(data[start:end]) for _, _, data, start, end in packets], secrets


def has(path: Path, data: bytes) -> bool:
    return data in path.read_bytes()


async def wait_for(path: Path, data: bytes) -> None:
    """Until the file has it."""
    with trio.fail_after(60):
        while not has(path, data):  # noqa: ASYNC110 - the file tells nobody
            await trio.sleep(0.01)


@pytest.mark.parametrize(
    ("client", "server"), [(CLIENT, SERVER), (CLIENT_V6, SERVER_V6)], ids=["v4", "v6"]
)
async def test_both_directions_of_a_flow_are_written_and_nothing_else(
    tmp_path, tap, client, server
) -> None:
    other = Address(client.ip, 2222)
    async with writing(tmp_path / "x", tap) as sink:
        tap.see(client, server, SYN)
        tap.see(other, server, SYN)
        tap.see(server, client, SYN_ACK)
        await wait_all_tasks_blocked()
        sink.publish(opened(1, client, server))
        tap.see(client, server, ACK, b"up")
        tap.see(other, server, ACK, b"never ours")
        tap.see(server, other, ACK, b"never ours")
        tap.see(server, client, ACK, b"down")
        await wait_all_tasks_blocked()
        sink.publish(closed())
        tap.see(client, server, FIN)
    packets, _ = read(tmp_path / "x")
    assert packets == [
        packet(client, server, SYN, b""),
        packet(server, client, SYN_ACK, b""),
        packet(client, server, ACK, b"up"),
        packet(server, client, ACK, b"down"),
        packet(client, server, FIN, b""),
    ]


async def test_what_a_client_has_asked_for_is_written_where_others_translate_it(
    tmp_path, tap
) -> None:
    """A port that Docker publishes."""
    published = Address("192.0.2.9", 8443)
    async with writing(tmp_path / "x", tap) as sink:
        sink.publish(started(OURS))
        sink.publish(ClientAsked(client=CLIENT, destination=SERVER, asked=published))
        tap.see(CLIENT, published, SYN)
        sink.publish(opened())
        sink.publish(ServerConnected(client=CLIENT, wanted=SERVER, source=OURS, destination=SERVER))
        tap.see(published, CLIENT, SYN_ACK)
        tap.see_frame(summed(packet(CLIENT, OURS, ACK, b"on a bridge")))
    assert read(tmp_path / "x")[0] == [
        packet(CLIENT, published, SYN, b""),
        packet(published, CLIENT, SYN_ACK, b""),
        summed(packet(CLIENT, published, ACK, b"on a bridge")),
    ]


@pytest.mark.parametrize(
    ("client", "server", "ours"),
    [(CLIENT, SERVER, OURS), (CLIENT_V6, SERVER_V6, Address("2001:db8::9", 5))],
    ids=["v4", "v6"],
)
async def test_packets_that_a_bridge_has_translated_are_written_as_they_were_sent(
    tmp_path, tap, client, server, ours
) -> None:
    """br_netfilter shows a tap on the bridge the address of the listener (docker0)."""
    other = Address(client.ip, 2222)
    async with writing(tmp_path / "x", tap) as sink:
        sink.publish(started(ours))
        tap.see_frame(summed(packet(client, ours, ACK, b"early")))
        await wait_all_tasks_blocked()
        sink.publish(opened(1, client, server))
        tap.see_frame(summed(packet(client, ours, ACK, b"up")))
        tap.see(other, ours, ACK, b"of no flow")
        tap.see(client, Address(ours.ip, 6), ACK, b"to another port")
        tap.see(server, client, ACK, b"down")
        await wait_all_tasks_blocked()
        sink.publish(closed())
        tap.see_frame(summed(packet(client, ours, FIN, b"")))
    assert read(tmp_path / "x")[0] == [
        summed(packet(client, server, ACK, b"early")),
        summed(packet(client, server, ACK, b"up")),
        packet(server, client, ACK, b"down"),
        summed(packet(client, server, FIN, b"")),
    ]


async def test_the_servers_side_is_written_once_it_is_known(tmp_path, tap) -> None:
    async with writing(tmp_path / "x", tap) as sink:
        sink.publish(opened())
        tap.see(OURS, SERVER, SYN)
        await wait_all_tasks_blocked()
        sink.publish(ServerConnected(client=CLIENT, wanted=SERVER, source=OURS, destination=SERVER))
        tap.see(SERVER, OURS, SYN_ACK)
    assert len(read(tmp_path / "x")[0]) == 2


async def test_packets_wait_for_the_secrets_that_open_them(tmp_path, tap, no_threads) -> None:
    """A secret of the client's side of a handshake is known only after the packets it opens."""
    path = tmp_path / "x"
    async with writing(path, tap) as sink:
        sink.publish(opened())
        for number in range(2):
            tap.see(CLIENT, SERVER, ACK, b"packet %d" % number)
            await trio.sleep(0.5)
            sink.publish(TlsSecret(b"secret %d" % number))
            sink.publish(TlsSecret(b"secret %d" % number))  # OpenSSL repeats itself
            await wait_for(path, b"packet %d" % number)
    data = path.read_bytes()
    order = [data.index(b"%s %d" % (what, n)) for n in range(2) for what in (b"secret", b"packet")]
    assert order == sorted(order)
    assert read(path)[1] == [b"secret 0\n", b"secret 1\n"]


async def test_a_reader_is_told_what_each_flow_is(tmp_path, tap) -> None:
    path = tmp_path / "x"
    async with writing(path, tap) as sink:
        tap.see(CLIENT, SERVER, SYN)
        sink.publish(opened())
        for depth, protocol in enumerate(("socks5", "tls")):
            sink.publish(layer(protocol, depth))
        tap.see(CLIENT, SERVER, ACK, b"data")
        await wait_all_tasks_blocked()
        sink.publish(closed())
        tap.see(SERVER, CLIENT, FIN)
    said = "flow 1, client's side: socks5 › tls (closed)".encode()
    assert path.read_bytes().count(said) == 2


async def test_addresses_that_are_used_again_belong_to_the_later_flow(
    tmp_path, tap, monkeypatch, no_threads
) -> None:
    monkeypatch.setattr(pcapng, "_REMEMBERED_S", 0.0)
    monkeypatch.setattr(pcapng, "_HELD_S", 0.0)
    path = tmp_path / "x"
    async with writing(path, tap) as sink:
        for flow in (1, 2):
            sink.publish(opened(flow))
            tap.see(CLIENT, SERVER, SYN, b"of %d" % flow)
            await wait_for(path, b"of %d" % flow)
            if flow == 1:
                sink.publish(closed(1))
        tap.see(CLIENT, SERVER, ACK, b"second of 2")
        await wait_for(path, b"second of 2")
        sink.publish(closed(2))
        await trio.sleep(0.3)
        tap.see(CLIENT, SERVER, SYN, b"of nobody")
        await trio.sleep(0.3)
        tap.see(CLIENT, SERVER, ACK, b"of nobody")
    assert [data[40:] for data in read(path)[0]] == [
        b"of 1",
        b"of 2",
        b"second of 2",
        b"of nobody",
    ]


async def test_a_writer_that_stands_still_lets_go_of_flows_that_are_over(
    tmp_path, tap, monkeypatch
) -> None:
    monkeypatch.setattr(pcapng, "_MAX_ENDED", 100)
    monkeypatch.setattr(pcapng, "_MAX_SECRETS", 50)
    sink = pcapng.PacketFile.to_file(tmp_path / "x", [])
    for flow in range(120):
        sink.publish(opened(flow))
        sink.publish(closed(flow))
        sink.publish(TlsSecret(b"a secret"))
    assert len(sink._ended) == pcapng._MAX_ENDED
    assert len(sink._secrets) == pcapng._MAX_SECRETS
    monkeypatch.setattr(pcapng, "_REMEMBERED_S", -1.0)
    sink._forget()
    assert (sink._ended, sink._legs, sink._of_clients) == (deque(), {}, {})
    async with trio.open_nursery() as nursery:
        await nursery.start(sink.run)
        await sink.aclose()


async def test_what_comes_faster_than_it_is_written_is_counted(tmp_path, tap, monkeypatch) -> None:
    monkeypatch.setattr(pcapng, "_HARD_LIMIT", 250)
    async with writing(tmp_path / "x", tap) as sink:
        sink.publish(opened())
        for _ in range(5):
            tap.see(CLIENT, SERVER, ACK, bytes(60))
    assert len(read(tmp_path / "x")[0]) == 3
    assert sink.missing == 2 + 2  # ours, and the kernel's


async def test_many_are_not_held_for_long(tmp_path, tap, monkeypatch) -> None:
    monkeypatch.setattr(pcapng, "_SOFT_LIMIT", 1000)
    monkeypatch.setattr(pcapng, "_HELD_S", 3600.0)
    path = tmp_path / "x"
    async with writing(path, tap) as sink:
        sink.publish(opened())
        for _ in range(100):
            tap.see(CLIENT, SERVER, ACK, bytes(60))
        with trio.fail_after(5):
            while path.stat().st_size < 90 * 100:  # noqa: ASYNC110 - the file tells nobody
                await trio.sleep(0.01)
    assert len(read(path)[0]) == 100


@pytest.mark.parametrize(
    "beginning", [b"\x45" + bytes(9), b"\x45" + bytes(30), b"\x60" + bytes(50)]
)
async def test_odd_frames_do_no_harm(tmp_path, tap, beginning: bytes) -> None:
    async with writing(tmp_path / "x", tap) as sink:
        sink.publish(opened())
        tap._send.send_nowait(Seen(0, beginning, 0, 99, False))
    assert read(tmp_path / "x")[0] == []


async def test_a_full_disk_is_said_and_a_gone_reader_too(tap) -> None:
    async def run(descriptor: int) -> None:
        sink = PacketFile(descriptor, "x.pcapng", [tap])
        await sink.aclose()
        await sink.run()

    full = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(MitmError, match=r"cannot write x\.pcapng: No space left"):
        await run(full)
    read_end, write_end = os.pipe()
    os.close(read_end)
    with pytest.raises(BrokenPipeError):
        await run(write_end)


async def test_a_reader_that_stands_still_does_not_stop_the_end(tap, monkeypatch) -> None:
    monkeypatch.setattr(pcapng, "_DRAIN_TIMEOUT_S", 0.1)
    read_end, write_end = os.pipe()
    sink: Any = PacketFile(write_end, "a pipe", [tap])
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            await nursery.start(sink.run)
            sink.publish(opened())
            for _ in range(100):
                tap.see(CLIENT, SERVER, ACK, bytes(4096))
            await sink.aclose()
    os.close(read_end)  # lets the abandoned write go
