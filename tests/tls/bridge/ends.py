"""Both ends of connections of the bridge without a handshake, and those of a real one."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from mitml4.crypto.records import (
    Protection,
    Protection13,
    Record,
    protection_1_2,
    protection_1_3,
)
from mitml4.crypto.suites import suite_of
from mitml4.net.stream import Stream
from mitml4.protocols.tls.records import HandshakeType, RecordType
from mitml4.tls.bridge.connection import Connection
from mitml4.tls.bridge.flight import ClientFinished, Flight
from mitml4.tls.bridge.legs import Legs
from mitml4.tls.bridge.records import RecordsIn, RecordsOut
from mitml4.tls.bridge.tickets import SiteTickets
from mitml4.tls.bridged_stream import BridgedStream
from tests.tls.bridge.peers import shown

TLS_AES_128_GCM_SHA256 = 0x1301
ECDHE_RSA_AES128_GCM_SHA256 = 0xC02F


def connection(
    opens: Protection, seals: Protection, *, is_client: bool, is_tls12: bool = False
) -> Connection:
    records_in, records_out = RecordsIn(), RecordsOut()
    records_in.protection, records_out.protection = opens, seals
    records_in.is_tls12 = is_tls12
    return Connection(records_in, records_out, is_client=is_client)


def protections(cipher: int) -> Callable[[], tuple[Protection, Protection]]:
    """What a new connection is protected with: the client's records, and the server's. Each end
    calls this once."""
    suite = suite_of(cipher)
    assert suite
    master, client_random, server_random = os.urandom(48), os.urandom(32), os.urandom(32)
    secrets = [os.urandom(48 if suite.hash == "sha384" else 32) for _ in range(2)]

    def protection(*, of_client: bool) -> Protection:
        if not is_tls12(cipher):
            return protection_1_3(suite, secrets[of_client])
        return protection_1_2(
            suite,
            master,
            client_random=client_random,
            server_random=server_random,
            of_client=of_client,
        )

    return lambda: (protection(of_client=True), protection(of_client=False))


def is_tls12(cipher: int) -> bool:
    return cipher >> 8 != 0x13


def connections(cipher: int = TLS_AES_128_GCM_SHA256) -> tuple[Connection, Connection]:
    """The client's end of a new connection, and the server's."""
    make = protections(cipher)
    of_client, of_server = make()
    client = connection(of_server, of_client, is_client=True, is_tls12=is_tls12(cipher))
    of_client, of_server = make()
    return client, connection(of_client, of_server, is_client=False, is_tls12=is_tls12(cipher))


@dataclass
class Far:
    """The far end of a connection, which writes any record."""

    opens: Protection
    seals: Protection

    @classmethod
    def of_new(
        cls, cipher: int = TLS_AES_128_GCM_SHA256, *, is_client: bool = True
    ) -> tuple[Connection, Far]:
        """A new connection, which is the client's end or the server's, and its far end."""
        make = protections(cipher)
        opens, seals = make() if not is_client else make()[::-1]
        near = connection(opens, seals, is_client=is_client, is_tls12=is_tls12(cipher))
        opens, seals = make()[::-1] if not is_client else make()
        return near, cls(opens, seals)

    def record(self, kind: int, content: bytes) -> bytes:
        return self.seals.seal(kind, content)

    def data(self, content: bytes) -> bytes:
        return self.record(RecordType.APPLICATION_DATA, content)

    def alert(self, level: int, alert: int) -> bytes:
        return self.record(RecordType.ALERT, bytes([level, alert]))

    def message(self, kind: int, body: bytes = b"") -> bytes:
        return self.record(
            RecordType.HANDSHAKE, bytes([kind]) + len(body).to_bytes(3, "big") + body
        )

    def key_update(self, *, requested: bool = False) -> bytes:
        """The next record has the next key."""
        record = self.message(HandshakeType.KEY_UPDATE, bytes([requested]))
        assert isinstance(self.seals, Protection13)
        self.seals = self.seals.updated()
        return record

    def read(self, sent: bytes) -> list[tuple[int, bytes]]:
        """The type and the content of each record; follows key updates."""
        got = []
        while sent:
            end = 5 + int.from_bytes(sent[3:5], "big")
            kind, content = self.opens.open(Record(sent[:end]))
            got.append((kind, content))
            if kind == RecordType.HANDSHAKE and content[0] == HandshakeType.KEY_UPDATE:
                assert isinstance(self.opens, Protection13)
                self.opens = self.opens.updated()
            sent = sent[end:]
        return got


def bridged(one: Stream, other: Stream) -> tuple[BridgedStream, BridgedStream]:
    """A new connection: the client's end over one stream, the server's over the other."""
    client, server = connections()
    return BridgedStream(one, client), BridgedStream(other, server)


async def between(
    client_side: Stream, server_side: Stream, tickets: SiteTickets | None = None
) -> tuple[BridgedStream, BridgedStream]:
    """Does the handshakes of a client and a server, and returns the streams to both."""
    hello = await client_side.peek(100, 1 << 16)
    client_side.discard(len(hello))
    legs = Legs(hello, tickets=tickets)
    while not legs.has_server_finished:
        await server_side.send_all(memoryview(legs.server.to_send()))
        while not (event := legs.server_event()) and not legs.has_server_finished:
            legs.server.receive(await some(server_side))
        if legs.has_server_finished:
            break
        assert isinstance(event, Flight)
        legs.show(shown())
        await client_side.send_all(memoryview(legs.client.to_send()))
        while not (answer := legs.client_event()):
            legs.client.receive(await some(client_side))
        assert isinstance(answer, ClientFinished)
    await server_side.send_all(memoryview(legs.server.to_send()))
    await client_side.send_all(memoryview(legs.client.to_send()))
    client = Connection(legs.client.records_in, legs.client.records_out, is_client=False)
    server = Connection(legs.server.records_in, legs.server.records_out, is_client=True)
    return BridgedStream(client_side, client), BridgedStream(server_side, server)


async def some(stream: Stream) -> bytes:
    """What comes next, as far as it is there."""
    buffer = memoryview(bytearray(1000))
    while (count := stream.receive_nowait(buffer)) is None:
        await stream.wait_receivable()
    assert count
    return bytes(buffer[:count])
