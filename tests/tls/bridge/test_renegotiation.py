"""A server of OpenSSL's that renegotiates, and what it may not do."""

from __future__ import annotations

from contextlib import suppress
from hashlib import sha256
from typing import Any

import pytest
import trio
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL

from mitml4.net.memory import memory_pair
from mitml4.net.stream import StreamTruncated
from mitml4.protocols.tls.alerts import Alert
from mitml4.tls.bridge.connection import MIN_ROOM, Connection
from mitml4.tls.bridge.identity import Identity
from mitml4.tls.bridged_stream import BridgedStream
from tests.tls.bridge.peers import (
    Flow,
    certificate,
    client_context,
    server_context,
    taken,
)

MAX_RENEGOTIATIONS = 8


class Ends:
    """A server, and the bridge's end of the connection to it."""

    def __init__(self, *, options: int = 0, **given: Any) -> None:
        client, server = client_context(), server_context()
        server.set_max_proto_version(SSL.TLS1_2_VERSION)
        server.set_options(options)
        self.lines: list[bytes] = []
        flow = Flow.of(client, server, keylog=self.lines.append, **given).run()
        leaf, _ = certificate("ec-p256")
        digest = sha256(leaf.public_bytes(Encoding.DER)).digest()
        leg = flow.bridged.server
        self.server = flow.server
        self.connection = Connection(leg.records_in, leg.records_out, is_client=True)
        self.connection.renegotiable = flow.bridged.renegotiable(digest)
        self.noted: list[str] = []
        self.connection.on_request = lambda: self.noted.append("request")
        self.connection.on_renegotiation = lambda: self.noted.append("declined")

    def read(self) -> bytes:
        """What the server has sent, which the bridge's end answers."""
        into = memoryview(bytearray(MIN_ROOM))
        count = self.connection.open(memoryview(taken(self.server)), into)
        self.answer()
        return bytes(into[:count])

    def answer(self) -> None:
        if records := self.connection.seal_due():
            self.server.bio_write(records)

    def ask(self) -> None:
        """The server says that it wants to renegotiate."""
        self.server.renegotiate()
        self.server.do_handshake()

    def move(self) -> None:
        """The server takes what has come: no data."""
        with suppress(SSL.WantReadError):
            self.server.recv(1)

    def renegotiate(self) -> None:
        self.ask()
        for _ in range(3):
            self.read()
            self.move()
        self.read()

    def send(self, data: bytes) -> None:
        into = memoryview(bytearray(MIN_ROOM))
        _, length = self.connection.seal(memoryview(data), into)
        self.server.bio_write(into[:length])


def test_a_server_renegotiates_as_often_as_that_is_bounded() -> None:
    ends = Ends()
    for done in range(1, MAX_RENEGOTIATIONS + 1):
        ends.renegotiate()
        assert not ends.connection.is_renegotiating
        assert ends.server.total_renegotiations() == done
        ends.send(b"up")
        assert ends.server.recv(9) == b"up"
        ends.server.send(b"down")
        assert ends.read() == b"down"
    assert (ends.noted, ends.connection.failure) == ([], "")
    secrets = {line.split()[2] for line in ends.lines}
    assert len(secrets) == 2 + MAX_RENEGOTIATIONS  # of both sides, and of each renegotiation
    with pytest.raises(SSL.Error, match="no renegotiation"):
        ends.renegotiate()
    assert ends.noted == ["declined"]


@pytest.mark.parametrize("has_one", [True, False])
def test_the_server_may_ask_for_a_certificate_then(has_one: bool) -> None:
    made, key = certificate("rsa")
    der = made.public_bytes(Encoding.DER)
    ends = Ends(identity=Identity((der,), key) if has_one else None)
    ends.server.set_verify(SSL.VERIFY_PEER, lambda *_: True)
    ends.renegotiate()
    assert ends.connection.failure == ""
    shown = ends.server.get_peer_certificate(as_cryptography=True)
    assert shown == (made if has_one else None)
    assert ends.noted == ["request"]


def test_data_may_come_in_between_and_waits_on_its_way_to_the_server() -> None:
    ends = Ends()
    ends.server.send(b"before")
    ends.ask()
    assert ends.read() == b"before"
    assert ends.connection.is_renegotiating
    for _ in range(2):
        ends.move()
        assert ends.read() == b""
    assert not ends.connection.is_renegotiating


async def test_a_stream_sends_no_data_in_the_middle_of_it() -> None:
    ends = Ends()
    below, wire = memory_pair()
    stream = BridgedStream(below, ends.connection)
    sent = []

    async def send() -> None:
        await stream.send_all(memoryview(b"late"))
        sent.append(b"late")

    async def carry() -> None:
        """What the server says, and what it hears."""
        await wire.send_all(memoryview(taken(ends.server)))
        assert stream.receive_nowait(memoryview(bytearray(MIN_ROOM))) is None
        heard = wire.peek_nowait(1 << 16)
        wire.discard(len(heard))
        if heard:
            ends.server.bio_write(heard)

    async with trio.open_nursery() as nursery:
        ends.ask()
        await carry()
        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked()
        assert stream.send_nowait(b"never") == 0
        for _ in range(2):
            assert sent == []
            ends.move()
            await carry()
    await carry()
    assert ends.server.recv(9) == b"late"


@pytest.mark.parametrize("how", ["FIN", "reset"])
async def test_who_waits_for_its_end_hears_that_there_is_none(how: str) -> None:
    ends = Ends()
    below, wire = memory_pair()
    stream = BridgedStream(below, ends.connection)
    ends.ask()
    await wire.send_all(memoryview(taken(ends.server)))
    buffer = memoryview(bytearray(MIN_ROOM))
    assert stream.receive_nowait(buffer) is None
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_eof)
            await trio.testing.wait_all_tasks_blocked()
            if how == "FIN":
                await wire.send_eof()
            else:
                wire.abort()
            with pytest.raises((StreamTruncated, OSError)):
                stream.receive_nowait(buffer)


async def test_a_client_that_is_reset_meanwhile_waits_no_longer() -> None:
    ends = Ends()
    below, wire = memory_pair()
    source, client = memory_pair()
    stream = BridgedStream(below, ends.connection)
    ends.ask()
    await wire.send_all(memoryview(taken(ends.server)))
    assert stream.receive_nowait(memoryview(bytearray(MIN_ROOM))) is None

    async def send() -> None:
        with pytest.raises(ConnectionResetError):
            await stream.send_all(memoryview(b"late"), fed_by=source)

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await trio.testing.wait_all_tasks_blocked()
            client.abort()


def test_another_certificate_is_refused() -> None:
    ends = Ends()
    other, key = certificate("ec-p384")
    ends.server.use_certificate(other)
    ends.server.use_privatekey(key)
    with pytest.raises(SSL.Error, match="illegal parameter"):
        ends.renegotiate()
    assert ends.connection.failure == "another certificate than before"


def test_the_handshake_of_another_connection_is_refused() -> None:
    """RFC 5746 §3.5."""
    ends = Ends()
    kept = ends.connection.renegotiable
    assert kept
    kept.ends = kept.ends[0], bytes(12)
    with pytest.raises(SSL.Error, match="handshake failure"):
        ends.renegotiate()
    assert ends.connection.failure == "a renegotiation of another connection"


def test_who_does_not_take_part_declines() -> None:
    ends = Ends()
    ends.connection.renegotiable = None
    with pytest.raises(SSL.Error, match="no renegotiation"):
        ends.renegotiate()
    assert ends.noted == ["declined"]


def test_a_change_of_keys_that_nobody_began_is_refused() -> None:
    ends = Ends()
    record = ends.connection._opens.seal(20, b"\x01")
    ends.connection._opens.sequence -= 1
    ends.connection.open(memoryview(record), memoryview(bytearray(MIN_ROOM)))
    assert "unexpected TLS record of type 20" in ends.connection.failure
    assert Alert.UNEXPECTED_MESSAGE in ends.connection.due[0][1]
