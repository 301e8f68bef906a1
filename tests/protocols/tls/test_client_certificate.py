"""A client's answer to a request for its certificate, as real handshakes show it from outside."""

from __future__ import annotations

from contextlib import suppress
from itertools import product
from pathlib import Path

import pytest
import trustme
from OpenSSL import SSL

from mitml4.protocols.conversation import FORWARD_ALL, Direction
from mitml4.protocols.tls.client_certificate import answers_empty
from mitml4.protocols.tls.hello import ServerHello
from mitml4.protocols.tls.protocol import TlsConversation
from mitml4.protocols.tls.records import Message, RecordType

AES_128_GCM, AES_256_GCM, CHACHA20, AES_128_CCM_8 = 0x1301, 0x1302, 0x1303, 0x1305
SUITES = {
    AES_128_GCM: "TLS_AES_128_GCM_SHA256",
    AES_256_GCM: "TLS_AES_256_GCM_SHA384",
    CHACHA20: "TLS_CHACHA20_POLY1305_SHA256",
    AES_128_CCM_8: "TLS_AES_128_CCM_8_SHA256",
}


@pytest.fixture
def identity(tmp_path: Path) -> Path:
    """A PEM file with a certificate and its key."""
    pem = tmp_path / "identity.pem"
    issued = trustme.CA().issue_cert("example.test")
    issued.private_key_and_cert_chain_pem.write_to_path(pem)
    return pem


def endpoint(
    identity: Path | None, version: int, suite: str | None, *, asks: bool = False
) -> SSL.Connection:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(version)
    context.set_max_proto_version(version)
    context.set_cipher_list(b"ALL:@SECLEVEL=0")  # of the short tag, too
    if suite:
        context.set_tls13_ciphersuites(suite.encode())
    if identity:
        context.use_certificate_chain_file(identity)
        context.use_privatekey_file(identity)
    if asks:
        context.set_verify(SSL.VERIFY_PEER, lambda *_: True)
    return SSL.Connection(context, None)


Script = list[tuple[Direction, bytes]]


def shake_hands(client: SSL.Connection, server: SSL.Connection) -> Script:
    client.set_connect_state()
    server.set_accept_state()
    script: Script = []
    for _ in range(4):
        for end, other, direction in (
            (client, server, Direction.UP),
            (server, client, Direction.DOWN),
        ):
            with suppress(SSL.WantReadError):
                end.do_handshake()
            try:
                said = end.bio_read(65536)
            except SSL.WantReadError:
                continue
            script.append((direction, said))
            other.bio_write(said)
    return script


def fed(script: Script, *, client_first: bool) -> list[bool]:
    """What is told of a handshake, of which a side may be shown before the other has been."""
    heard: list[bool] = []
    conversation = TlsConversation(on_client_certificate=heard.append)
    script = sorted(script, key=lambda part: part[0] is Direction.DOWN) if client_first else script
    for direction, data in script:
        if conversation.directive(direction) is not FORWARD_ALL:
            conversation.feed(direction, data)
    assert conversation.up is FORWARD_ALL  # and nothing is looked at any more
    assert conversation.down is FORWARD_ALL
    return heard


@pytest.mark.parametrize(
    ("asks", "has", "told"),
    [(False, False, []), (False, True, []), (True, False, [True]), (True, True, [False])],
)
def test_the_answer_is_seen_in_every_version_and_suite(
    identity: Path, asks: bool, has: bool, told: list[bool]
) -> None:
    kinds = [(SSL.TLS1_2_VERSION, None), *product([SSL.TLS1_3_VERSION], SUITES.values())]
    for version, suite in kinds:
        client = endpoint(identity if has else None, version, suite)
        script = shake_hands(client, endpoint(identity, version, suite, asks=asks))
        for client_first in (False, True):
            assert fed(script, client_first=client_first) == told, (version, suite)


def test_without_somebody_to_tell_the_client_passes_behind_its_hello() -> None:
    conversation = TlsConversation()
    client = endpoint(None, SSL.TLS1_3_VERSION, None)
    client.set_connect_state()
    with pytest.raises(SSL.WantReadError):
        client.do_handshake()
    conversation.feed(Direction.UP, client.bio_read(65536))
    assert conversation.up is FORWARD_ALL


@pytest.mark.parametrize(
    ("suite", "content", "told"),
    [
        (AES_128_GCM, 8, True),
        (AES_128_GCM, 8 + 36, True),  # with Finished, as BoringSSL writes it
        (AES_256_GCM, 8 + 52, True),
        (AES_128_CCM_8, 8 + 36, True),
        (AES_128_GCM, 36, None),  # Finished alone
        (AES_256_GCM, 52, None),
        (AES_256_GCM, 36 + 8, None),  # of the other hash
        (AES_128_GCM, 2, None),  # an alert
        (AES_128_GCM, 600, False),
    ],
)
def test_the_size_of_the_first_record_tells(suite: int, content: int, told: bool | None) -> None:
    server = ServerHello(
        legacy_version=0x0303,
        random=bytes(32),
        session_id=b"",
        cipher_suite=suite,
        compression=0,
        selected_version=0x0304,
    )
    tag = 8 if suite == AES_128_CCM_8 else 16
    record = Message(RecordType.APPLICATION_DATA, 0, bytes(content + 1 + tag))
    assert answers_empty(record, server) is told
