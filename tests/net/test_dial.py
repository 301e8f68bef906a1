from __future__ import annotations

import socket
import struct

import pytest
import trio

from mitml4.address import Address
from mitml4.net import dial
from mitml4.net.place import HERE


@pytest.fixture
def listening():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


async def test_it_connects_with_what_a_stream_needs(listening: socket.socket) -> None:
    with await dial.connect(Address.of(listening.getsockname())) as sock:
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8) == struct.pack("ii", 1, 0)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE)
        accepted, _ = listening.accept()
        accepted.close()


async def test_ipv6_too() -> None:
    with (
        socket.create_server(("::1", 0), family=socket.AF_INET6) as server,
        await dial.connect(Address.of(server.getsockname())),
    ):
        server.accept()[0].close()


async def test_it_leaves_from_the_source_s_ip_by_a_port_of_its_own(
    listening: socket.socket,
) -> None:
    destination = Address.of(listening.getsockname())
    with await dial.connect(destination, source=Address("127.0.0.77", 1234)) as sock:
        host, port = sock.getsockname()
        assert host == "127.0.0.77"
        assert port != 1234
        listening.accept()[0].close()


async def test_whoever_asks_is_told_what_it_connects_from_before_it_does(
    listening: socket.socket,
) -> None:
    told = []

    def bound(sock: socket.socket) -> None:
        told.append(sock.getsockname())
        with pytest.raises(OSError, match="not connected"):
            sock.getpeername()

    destination = Address.of(listening.getsockname())
    with await dial.connect(destination, bound=bound) as sock:
        assert told == [sock.getsockname()]
        listening.accept()[0].close()


async def test_a_refusal_is_the_kernel_s_own() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = Address.of(server.getsockname())
    with pytest.raises(ConnectionRefusedError):
        await dial.connect(address)


async def test_a_caller_that_gives_up_leaks_no_socket() -> None:
    """The socket would warn when it is collected, and warnings are errors here."""
    with trio.CancelScope() as scope:
        scope.cancel()
        await dial.connect(Address("127.0.0.1", 9))
    assert scope.cancelled_caught


async def test_an_abort_reaches_the_other_side_as_a_reset(listening: socket.socket) -> None:
    sock = await dial.connect(Address.of(listening.getsockname()))
    accepted, _ = listening.accept()
    with accepted:
        dial.abort(sock)
        with pytest.raises(ConnectionResetError):
            accepted.recv(1)


def test_source_addresses_are_remembered_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    now, asked = [5.0], []

    def source_towards(destination: Address, *, place: object) -> str:
        asked.append(destination.ip)
        return f"192.0.2.{len(asked)}"

    monkeypatch.setattr(dial, "source_towards", source_towards)
    sources = dial.SourceAddresses(HERE, clock=lambda: now[0])
    one, other = Address("198.51.100.1", 1), Address("198.51.100.2", 1)
    assert [sources.towards(each) for each in (one, other, one)] == [
        "192.0.2.1",
        "192.0.2.2",
        "192.0.2.1",
    ]
    now[0] += 0.1
    assert sources.towards(one) == "192.0.2.3"
    for number in range(2000):
        sources.towards(Address(f"2001:db8::{number}", 1))
    assert len(sources._known) <= 1024
