"""Both ends of connections of the bridge, without a handshake, and in the place of OpenSSL's."""

from __future__ import annotations

import os
from collections.abc import Sequence

from mitml4.crypto.records import Protection, protection_1_2, protection_1_3
from mitml4.crypto.suites import suite_of
from mitml4.net.stream import Stream
from mitml4.tls.bridge.connection import Connection
from mitml4.tls.bridge.records import RecordsIn, RecordsOut
from mitml4.tls.bridged_stream import BridgedStream

TLS_AES_128_GCM_SHA256 = 0x1301
ECDHE_RSA_AES128_GCM_SHA256 = 0xC02F


def connection(
    opens: Protection, seals: Protection, *, is_client: bool, is_tls12: bool = False
) -> Connection:
    records_in, records_out = RecordsIn(), RecordsOut()
    records_in.protection, records_out.protection = opens, seals
    records_in.is_tls12 = is_tls12
    return Connection(records_in, records_out, is_client=is_client)


def connections(cipher: int = TLS_AES_128_GCM_SHA256) -> tuple[Connection, Connection]:
    """The client's end of a new connection, and the server's."""
    suite = suite_of(cipher)
    assert suite
    is_tls12 = cipher >> 8 != 0x13
    master, randoms = os.urandom(48), (os.urandom(32), os.urandom(32))
    secrets = [os.urandom(48 if suite.hash == "sha384" else 32) for _ in range(2)]

    def protection(*, of_client: bool) -> Protection:
        if not is_tls12:
            return protection_1_3(suite, secrets[of_client])
        client_random, server_random = randoms
        return protection_1_2(
            suite,
            master,
            client_random=client_random,
            server_random=server_random,
            of_client=of_client,
            encrypt_then_mac=False,
        )

    return (
        connection(
            protection(of_client=False),
            protection(of_client=True),
            is_client=True,
            is_tls12=is_tls12,
        ),
        connection(
            protection(of_client=True),
            protection(of_client=False),
            is_client=False,
            is_tls12=is_tls12,
        ),
    )


def bridged(one: Stream, other: Stream) -> tuple[BridgedStream, BridgedStream]:
    """A new connection: the client's end over one stream, the server's over the other."""
    client, server = connections()
    return BridgedStream(one, client), BridgedStream(other, server)


def in_place_of(
    below: Stream, keylog: Sequence[bytes], *, is_client: bool, sent: int = 0
) -> BridgedStream:
    """Goes on where OpenSSL has done the handshake of TLS 1.3 with TLS_AES_128_GCM_SHA256.

    `sent`: how many records it has sent since; it has received none.
    """
    suite = suite_of(TLS_AES_128_GCM_SHA256)
    assert suite
    secrets = {words[0]: bytes.fromhex(words[2].decode()) for words in map(bytes.split, keylog)}
    client = protection_1_3(suite, secrets[b"CLIENT_TRAFFIC_SECRET_0"])
    server = protection_1_3(suite, secrets[b"SERVER_TRAFFIC_SECRET_0"])
    opens, seals = (server, client) if is_client else (client, server)
    seals.sequence = sent
    return BridgedStream(below, connection(opens, seals, is_client=is_client))
