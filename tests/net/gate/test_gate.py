"""The gate by itself, with a channel of the tests' own; with real ones it is in tests/e2e."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from mitml4.address import Address
from mitml4.net.gate.gate import HeldSyn, Refusal, SynGate
from mitml4.net.gate.nflog import LoggedPacket
from mitml4.net.gate.syn import Syn
from mitml4.net.listener import Ends, IncomingConnection, Listener

SERVER = Address("198.51.100.2", 443)


class Channel:
    """A client's port is what is read of its SYN; it is let in by connecting to the listener."""

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self.log, self.client_side = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.admitted: list[int] = []
        self.refused: list[tuple[int, Refusal]] = []
        self.withdrawn: list[int] = []
        self.disowned: list[tuple[Address, Address]] = []
        self.lets_in = True
        self.loses = False
        self.repeated: list[int] = []
        self.error = errno.ENOMEM
        self.clients: list[socket.socket] = []

    def ask(self, port: int, client: int = 2, server_port: int = 443) -> None:
        """A client's SYN is held."""
        payload = port.to_bytes(2) + bytes([client]) + server_port.to_bytes(2) + b"..."
        attribute = (4 + len(payload)).to_bytes(2, "little") + (9).to_bytes(2, "little") + payload
        body = b"\2\0\0\0" + attribute
        head = (16 + len(body)).to_bytes(4, "little") + (4 << 8).to_bytes(2, "little") + bytes(10)
        self.client_side.send(head + body)

    def held(self, packets: Iterator[LoggedPacket]) -> Iterator[HeldSyn]:
        for packet in packets:
            port, host, server_port = struct.unpack_from("!HBH", packet.payload)
            client = Address(f"192.0.2.{host}", port)
            server = Address(SERVER.ip, server_port)
            syn = Syn(client, server, b"", b"")
            yield HeldSyn(syn=syn, destination=server, source=client, interface="lan")

    def admit(self, held: HeldSyn) -> Ends:
        self.admitted.append(held.syn.client.port)
        if not self.lets_in:
            raise OSError(self.error, "cannot")
        if self.loses:
            return held.syn.client, held.destination
        client = socket.create_connection(("127.0.0.1", self.listener.address.port))
        self.clients.append(client)
        return Address.of(client.getsockname()), Address.of(client.getpeername())

    def repeat(self, held: HeldSyn) -> None:
        self.repeated.append(held.syn.client.port)

    def withdraw(self, held: HeldSyn) -> None:
        self.withdrawn.append(held.syn.client.port)

    def disown(self, own: Address, peer: Address) -> None:
        self.disowned.append((own, peer))

    def refuse(self, held: HeldSyn, refusal: Refusal) -> None:
        self.refused.append((held.syn.client.port, refusal))

    def close(self) -> None:
        for sock in (self.log, self.client_side, *self.clients):
            sock.close()


@contextmanager
def made() -> Iterator[tuple[SynGate, Channel]]:
    listener = Listener()
    channel = Channel(listener)
    try:
        yield SynGate(listener, channel), channel
    finally:
        channel.close()
        listener.close()


async def accept_and_close(connection: IncomingConnection) -> None:
    (await connection.accept()).close()


@pytest.fixture
async def gate() -> AsyncIterator[Any]:
    with made() as (gate, _):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(gate.run)
            yield gate
            nursery.cancel_scope.cancel()


async def test_a_connection_waits_until_it_is_accepted(gate: Any) -> None:
    gate.channel.ask(1001)
    connection = await gate.accept()
    assert (connection.client.port, connection.destination, connection.interface) == (
        1001,
        SERVER,
        "lan",
    )
    assert gate.channel.admitted == []
    with trio.fail_after(5):
        stream = await connection.accept()
        gate.channel.clients[0].sendall(b"x")
        assert await stream.peek(0, 1) == b"x"
        stream.close()
    assert (gate.pending, gate.admitted) == ({}, {})


async def test_a_client_whose_connection_does_not_arrive_may_ask_again(
    gate: Any, monkeypatch
) -> None:
    monkeypatch.setattr("mitml4.net.gate.gate._ARRIVES_SOON_S", 0)
    gate.channel.loses = True

    async def give_up() -> None:
        await gate.wait_missing()
        gate.give_up()

    for times in (1, 2):
        gate.channel.ask(1001)
        connection = await gate.accept()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(give_up)
            with trio.fail_after(4), pytest.raises(ConnectionResetError):
                await connection.accept()
        connection.refuse(None)
        assert gate.channel.withdrawn == [1001] * times
        assert gate.missing_in_a_row == times
    assert gate.channel.refused == []
    assert gate.admitted == {}


async def test_a_syn_that_comes_again_is_no_second_connection(gate: Any) -> None:
    for port in (1001, 1001, 1002):
        gate.channel.ask(port)
    assert [(await gate.accept()).client.port for _ in range(2)] == [1001, 1002]
    await wait_all_tasks_blocked()
    assert await gate.waiting() == []


async def test_room_is_left_for_others_whoever_asks_for_how_much(gate: Any) -> None:
    """For other servers of the same client, and for other clients."""

    async def flood(client: int, server_port: int) -> int:
        before = len(gate.pending)
        for port in range(1, 16_000):
            gate.channel.ask(port, client, server_port)
            if port % 64 == 0:
                await wait_all_tasks_blocked()
        await wait_all_tasks_blocked()
        return len(gate.pending) - before

    one_server = await flood(2, 443)
    another_server = await flood(2, 80)
    another_client = await flood(3, 443)
    assert 0 < another_server < one_server < 16_000 // 3
    assert another_client > 1000
    for connection in await gate.waiting():
        connection.refuse(None)
    assert gate.pending == {}
    assert await flood(2, 443) == one_server


async def test_those_who_come_together_are_handed_over_together(gate: Any) -> None:
    """A turn each, the last of a crowd would wait for as many turns as there are before it."""
    for port in range(1001, 1041):
        gate.channel.ask(port)
    await wait_all_tasks_blocked()
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        for _ in range(40):
            await gate.accept()
        nursery.cancel_scope.cancel()
    assert turns < 3


async def test_who_asks_again_while_being_let_in_is_let_in_again(gate: Any) -> None:
    gate.channel.lets_in = False
    gate.channel.ask(1001)
    connection = await gate.accept()
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept_and_close, connection)
            await wait_all_tasks_blocked()
            gate.channel.lets_in = True
            gate.channel.ask(1001)
    assert gate.channel.admitted == [1001, 1001]


@pytest.mark.parametrize("is_known", [False, True])
async def test_who_asks_again_costs_no_second_admission(gate: Any, is_known: bool) -> None:
    """Neither once it is admitted, nor where it cannot be, since it is known already."""
    gate.channel.loses, gate.channel.lets_in = True, not is_known
    gate.channel.error = errno.EEXIST
    gate.channel.ask(1001)
    connection = await gate.accept()
    with trio.fail_after(5), pytest.RaisesGroup(ConnectionResetError):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept_and_close, connection)
            for _ in range(3):
                await wait_all_tasks_blocked()
                gate.channel.ask(1001)
            await wait_all_tasks_blocked()
            gate.pending[connection.client, SERVER].give_up()
    assert gate.channel.admitted == [1001]
    assert gate.channel.repeated == ([] if is_known else [1001] * 3)


@pytest.mark.parametrize(
    ("reason", "refused"),
    [
        (None, [(1001, Refusal.RESET)]),
        (ConnectionRefusedError(errno.ECONNREFUSED, ""), [(1001, Refusal.RESET)]),
        (OSError(errno.EHOSTUNREACH, ""), [(1001, Refusal.UNREACHABLE)]),
        (OSError(errno.ENETUNREACH, ""), [(1001, Refusal.UNREACHABLE)]),
        (TimeoutError(), []),
    ],
)
async def test_a_client_is_refused_as_the_server_refused_us(gate: Any, reason, refused) -> None:
    gate.channel.ask(1001)
    (await gate.accept()).refuse(reason)
    assert gate.channel.refused == refused
    gate.channel.ask(1001)
    assert (await gate.accept()).client.port == 1001


async def test_a_client_that_has_gone_is_not_waited_for_for_ever(gate: Any, autojump_clock) -> None:
    gate.channel.lets_in = False
    gate.channel.ask(1001)
    connection = await gate.accept()
    with pytest.raises(ConnectionResetError):
        await connection.accept()
    assert (gate.pending, gate.admitted) == ({}, {})


async def test_the_end_of_one_that_was_given_up_leaves_the_next_of_its_client_alone(
    gate: Any, autojump_clock
) -> None:
    """Its flow may take a while to end."""
    gate.channel.loses = True
    gate.channel.ask(1001)
    first = await gate.accept()
    with pytest.raises(ConnectionResetError):
        await first.accept()
    assert gate.channel.withdrawn == [1001]
    gate.channel.ask(1001)
    second = await gate.accept()
    second.let_in(lambda _: None)
    first.refuse(None)
    assert list(gate.pending.values()) == list(gate.admitted.values()) == [second]
    gate.channel.ask(1001)
    await wait_all_tasks_blocked()
    assert await gate.waiting() == []
    assert gate.channel.withdrawn == [1001]


@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_a_client_that_has_arrived_when_it_is_refused_is_reset(
    gate: Any, is_cancelled: bool
) -> None:
    """Not withdrawn: nothing would tell it any more."""
    gate.channel.ask(1001)
    connection = await gate.accept()
    if is_cancelled:
        with trio.CancelScope() as scope:
            scope.cancel()
            await connection.accept()
    else:
        connection.let_in(lambda _: pytest.fail("it was refused"))
        connection.refuse(None)
    assert (gate.pending, gate.admitted, gate.awaited) == ({}, {}, {})
    assert gate.channel.withdrawn == []
    (client,) = gate.channel.clients
    with pytest.raises(ConnectionResetError):
        client.recv(1)


async def test_a_client_that_has_not_arrived_when_it_is_refused_is_withdrawn(gate: Any) -> None:
    gate.channel.loses = True
    gate.channel.ask(1001)
    connection = await gate.accept()
    connection.let_in(lambda _: pytest.fail("it was refused"))
    connection.refuse(None)
    assert gate.channel.withdrawn == [1001]
    assert (gate.pending, gate.admitted, gate.awaited) == ({}, {}, {})


async def test_who_has_arrived_is_not_given_up_after_a_time_without_turns(gate: Any) -> None:
    """As in a session that was stopped."""
    gate.channel.ask(1001)
    connection = await gate.accept()
    found: list[socket.socket | None] = []
    connection.let_in(found.append)
    gate._look_for_missing(trio.current_time() + 60)
    (sock,) = found
    assert sock
    sock.close()
    assert gate.channel.withdrawn == []


async def test_whoever_comes_to_the_listener_itself_is_reset(gate: Any) -> None:
    address = ("127.0.0.1", gate.channel.listener.address.port)
    with socket.create_connection(address) as client:
        client.setblocking(False)
        await trio.lowlevel.wait_readable(client)
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        own = Address.of(address)
        assert gate.channel.disowned == [(own, Address.of(client.getsockname()))]


async def test_a_port_whose_connection_was_reset_may_be_used_again(gate: Any) -> None:
    """The last one that was let in is forgotten, and no later one because of an earlier one."""
    connections = []
    for _ in range(2):
        gate.channel.ask(1001)
        connections.append(await gate.accept())
        connections[-1].was_reset()  # it waits
        await accept_and_close(connections[-1])
    assert gate.channel.withdrawn == []
    earlier, later = connections
    earlier.was_reset()
    assert gate.channel.withdrawn == []
    later.was_reset()
    assert gate.channel.withdrawn == [1001]
    del connections, earlier, later
    assert not gate.latest


async def test_what_waits_is_handed_over_at_the_end() -> None:
    """Also what has not been read yet."""
    with made() as (gate, channel):
        for port in (1001, 1002):
            channel.ask(port)
        assert [each.client.port for each in await gate.waiting()] == [1001, 1002]
        assert await gate.waiting() == []
