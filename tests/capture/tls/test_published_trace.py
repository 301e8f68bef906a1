"""A published trace, opened with its secrets, and what may follow it."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mitml4.capture.tls.decryption import TlsDecryption
from mitml4.capture.tls.secrets import Secrets
from mitml4.crypto.schedule import expand_label, updated
from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import Direction
from mitml4.protocols.tls.protocol import TlsDetails
from tests.crypto.rfc8448 import ONE_RTT

UP, DOWN = Direction.UP, Direction.DOWN
SENDERS = {"client": UP, "server": DOWN}
RECORDS = [(SENDERS[sender], record) for sender, _, record in ONE_RTT.records]
HANDSHAKE = RECORDS[:5]
"""Up to the server's ticket."""
CLIENT_TRAFFIC = ONE_RTT.secrets["c ap traffic"]
LABELS = {
    "CLIENT_HANDSHAKE_TRAFFIC_SECRET": "c hs traffic",
    "SERVER_HANDSHAKE_TRAFFIC_SECRET": "s hs traffic",
    "CLIENT_TRAFFIC_SECRET_0": "c ap traffic",
    "SERVER_TRAFFIC_SECRET_0": "s ap traffic",
}
KEY_LOG = "\n".join(
    f"{name} {ONE_RTT.messages[0][1][6:38].hex()} {ONE_RTT.secrets[label].hex()}"
    for name, label in LABELS.items()
)


def opened(records: list[tuple[Direction, bytes]]) -> TlsDecryption:
    secrets = Secrets()
    secrets.add(KEY_LOG.encode())
    conversation = TlsDecryption(secrets=secrets)
    for direction, record in records:
        assert conversation.feed(direction, record) == len(record)
    return conversation


def test_the_published_trace_is_opened() -> None:
    conversation = opened(RECORDS)
    said = [(piece.direction, piece.data, piece.ended) for piece in conversation.plaintext]
    assert said == [
        (UP, bytes(range(50)), False),
        (DOWN, bytes(range(50)), False),
        (UP, b"", True),
        (DOWN, b"", True),
    ]
    details = conversation.details()
    assert isinstance(details, TlsDetails)
    assert details.certificate is not None
    assert (details.certificate.subject, details.certificate.key) == ("CN=rsa", "RSA-1024")


def encrypted(secret: bytes, number: int, kind: int, content: bytes, padding: int = 0) -> bytes:
    """The record that a sender of TLS_AES_128_GCM_SHA256 would send (RFC 8446 §5.2)."""
    inner = content + bytes([kind]) + bytes(padding)
    header = b"\x17\x03\x03" + (len(inner) + 16).to_bytes(2, "big")
    iv = int.from_bytes(expand_label("sha256", secret, b"iv", b"", 12), "big")
    nonce = (iv ^ number).to_bytes(12, "big")
    return header + AESGCM(expand_label("sha256", secret, b"key", b"", 16)).encrypt(
        nonce, inner, header
    )


def test_keys_are_updated_as_often_as_the_sender_says_so() -> None:
    secret = CLIENT_TRAFFIC
    update, records = b"\x18\0\0\1\0", []
    for number in range(3):
        records.append(
            (UP, encrypted(secret, 0, 23, b"under key %d" % number, padding=number * 50))
        )
        records.append((UP, encrypted(secret, 1, 22, update)))
        secret = updated("sha256", secret)
    conversation = opened([*HANDSHAKE, *records])
    assert [piece.data for piece in conversation.plaintext] == [
        b"under key 0",
        b"under key 1",
        b"under key 2",
    ]


def test_messages_may_be_cut_anywhere_by_records() -> None:
    secret = CLIENT_TRAFFIC
    halves = [(UP, encrypted(secret, 0, 22, b"\x18\0")), (UP, encrypted(secret, 1, 22, b"\0\1\0"))]
    secret = updated("sha256", secret)
    conversation = opened([*HANDSHAKE, *halves, (UP, encrypted(secret, 0, 23, b"after"))])
    assert [piece.data for piece in conversation.plaintext] == [b"after"]


def test_a_record_of_padding_alone_is_a_protocol_error() -> None:
    secret = CLIENT_TRAFFIC
    with pytest.raises(ProtocolError, match="without a type"):
        opened([*HANDSHAKE, (UP, encrypted(secret, 0, 0, b"", padding=9))])
