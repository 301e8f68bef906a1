"""Key exchange: both sides against each other, against OpenSSL, and against broken shares."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import suppress

import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL
from OpenSSL._util import lib

from mitml4.crypto.groups import (
    SUPPORTED,
    client_share_bytes,
    generate,
    respond,
    server_share_bytes,
)
from mitml4.crypto.schedule import Schedule
from mitml4.protocols.tls.alerts import Alert, TlsError
from mitml4.protocols.tls.names import group_name

X25519, X448 = 0x001D, 0x001E
MLKEM768, MLKEM1024 = 0x0201, 0x0202
P256_MLKEM768, X25519_MLKEM768, P384_MLKEM1024 = 0x11EB, 0x11EC, 0x11ED
# Group: bytes of the client's share, of the server's, of the secret.
SIZES = {
    0x0017: (65, 65, 32),
    0x0018: (97, 97, 48),
    0x0019: (133, 133, 66),
    X25519: (32, 32, 32),
    X448: (56, 56, 56),
    0x001F: (65, 65, 32),
    0x0020: (97, 97, 48),
    0x0021: (129, 129, 64),
    MLKEM768: (1184, 1088, 32),
    MLKEM1024: (1568, 1568, 32),
    P256_MLKEM768: (1249, 1153, 64),
    X25519_MLKEM768: (1216, 1120, 64),
    P384_MLKEM1024: (1665, 1665, 80),
}
CURVES = {
    0x0017: ec.SECP256R1(),
    0x0018: ec.SECP384R1(),
    0x0019: ec.SECP521R1(),
    0x001F: ec.BrainpoolP256R1(),
    0x0020: ec.BrainpoolP384R1(),
    0x0021: ec.BrainpoolP512R1(),
}
every_group = pytest.mark.parametrize("group", SIZES, ids=group_name)


def refused(group: int, *, server_share: bytes = b"", client_share: bytes = b"") -> None:
    """Either side refuses the share of the other."""
    for takes, share in (
        (generate(group).agree, server_share),
        (lambda share: respond(group, share), client_share),
    ):
        if share:
            with pytest.raises(TlsError) as caught:
                takes(share)
            assert caught.value.alert is Alert.ILLEGAL_PARAMETER


def test_every_group_is_there() -> None:
    assert frozenset(SIZES) == SUPPORTED


@every_group
def test_both_sides_have_the_same_secret(group: int) -> None:
    ours = generate(group)
    share, secret = respond(group, ours.share)
    assert ours.agree(share) == secret
    assert ours.group == group
    assert (len(ours.share), len(share), len(secret)) == SIZES[group]
    assert (client_share_bytes(group), server_share_bytes(group)) == SIZES[group][:2]
    assert generate(group).share != ours.share


@every_group
def test_shares_of_another_length_are_refused(group: int) -> None:
    ours = generate(group)
    share, _ = respond(group, ours.share)
    for change in (lambda share: share[:-1], lambda share: share + b"\0", lambda share: share[:1]):
        refused(group, server_share=change(share), client_share=change(ours.share))
    with pytest.raises(TlsError, match="a key share of 0 bytes"):
        ours.agree(b"")
    with pytest.raises(TlsError, match="a key share of 0 bytes"):
        respond(group, b"")


@pytest.mark.parametrize("group", CURVES, ids=group_name)
def test_points_that_are_not_on_the_curve_are_refused(group: int) -> None:
    size = client_share_bytes(group) - 1
    moved = bytearray(generate(group).share)
    moved[-1] ^= 1
    for share in (bytes(moved), b"\4" + bytes(size), b"\4" + b"\xff" * size, bytes(1 + size)):
        refused(group, server_share=share, client_share=share)


@pytest.mark.parametrize("group", CURVES, ids=group_name)
def test_points_in_other_forms_are_refused(group: int) -> None:
    public = ec.generate_private_key(CURVES[group]).public_key()
    plain = public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    compressed = public.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    hybrid = bytes([6 + plain[-1] % 2]) + plain[1:]
    padded = compressed.ljust(len(plain), b"\0")
    respond(group, plain)
    for share in (compressed, hybrid, padded):
        refused(group, server_share=share, client_share=share)


# RFC 7748 §6, and the other points of small order: https://cr.yp.to/ecdh.html#validate
@pytest.mark.parametrize(
    ("group", "share"),
    [
        (X25519, bytes(32)),
        (X25519, b"\1" + bytes(31)),
        (X25519, bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f")),
        (X25519, bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800")),
        (X448, bytes(56)),
        (X448, b"\1" + bytes(55)),
    ],
)
def test_secrets_of_zeros_are_refused(group: int, share: bytes) -> None:
    refused(group, server_share=share, client_share=share)
    if group == X25519:
        ours = generate(X25519_MLKEM768)
        good, _ = respond(X25519_MLKEM768, ours.share)
        refused(
            X25519_MLKEM768,
            server_share=good[:1088] + share,
            client_share=ours.share[:1184] + share,
        )


@pytest.mark.parametrize(
    ("group", "at"),
    [
        (MLKEM768, 0),
        (MLKEM1024, 0),
        (X25519_MLKEM768, 0),
        (P256_MLKEM768, 65),
        (P384_MLKEM1024, 97),
    ],
)
def test_encapsulation_keys_with_a_coefficient_out_of_range_are_refused(
    group: int, at: int
) -> None:
    share = generate(group).share
    # FIPS 203 §7.2: each coefficient has 12 bits, and is less than 3329; here one is 4095.
    refused(group, client_share=share[:at] + b"\xff\xff\xff" + share[at + 3 :])


@settings(max_examples=20, deadline=None)
@given(data=st.data())
@every_group
def test_bytes_of_the_right_length_are_a_share_or_refused(group: int, data: st.DataObject) -> None:
    ours = generate(group)
    answer, _ = respond(group, ours.share)
    for takes, share in ((ours.agree, answer), (lambda share: respond(group, share), ours.share)):
        at = data.draw(st.integers(0, len(share)))
        noise = data.draw(st.binary(max_size=len(share) - at))
        with suppress(TlsError):
            takes(share[:at] + noise + share[at + len(noise) :])


def test_a_changed_ciphertext_gives_another_secret() -> None:
    ours = generate(MLKEM768)
    share, secret = respond(MLKEM768, ours.share)
    changed = bytes([share[0] ^ 1]) + share[1:]
    assert len(ours.agree(changed)) == len(secret)
    assert ours.agree(changed) != secret


def test_x25519_stands_behind_mlkem768() -> None:
    """draft-ietf-tls-ecdhe-mlkem §4: of shares and of the secret."""
    kem, curve = MLKEM768PrivateKey.generate(), X25519PrivateKey.generate()
    share = kem.public_key().public_bytes_raw() + curve.public_key().public_bytes_raw()
    answer, secret = respond(X25519_MLKEM768, share)
    peer = X25519PublicKey.from_public_bytes(answer[1088:])
    assert secret == kem.decapsulate(answer[:1088]) + curve.exchange(peer)


def test_p256_stands_before_mlkem768() -> None:
    """draft-ietf-tls-ecdhe-mlkem §4: of shares and of the secret."""
    ours = generate(P256_MLKEM768)
    curve = ec.generate_private_key(ec.SECP256R1())
    kem_secret, ciphertext = MLKEM768PublicKey.from_public_bytes(ours.share[65:]).encapsulate()
    point = curve.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    theirs = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), ours.share[:65])
    secret = curve.exchange(ec.ECDH(), theirs) + kem_secret
    assert ours.agree(point + ciphertext) == secret


# OpenSSL as the other side: a hello each, up to the secrets of the handshake.

SUITE = b"\x13\x01"
SUPPORTED_VERSIONS, KEY_SHARE = 43, 51


class Other:
    """One side of a handshake by OpenSSL, with one group."""

    def __init__(self, group: int) -> None:
        self.context = SSL.Context(SSL.TLS_METHOD)
        self.secrets: dict[bytes, bytes] = {}
        self.context.set_keylog_callback(lambda _, line: self._note(line))
        name = group_name(group).encode()
        assert lib.SSL_CTX_set1_curves_list(self.context._context, name) == 1

    def connection(self) -> SSL.Connection:
        return SSL.Connection(self.context, None)

    def _note(self, line: bytes) -> None:
        label, _, secret = line.split()
        self.secrets[label] = bytes.fromhex(secret.decode())


def vector(body: bytes, length_bytes: int = 2) -> bytes:
    return len(body).to_bytes(length_bytes, "big") + body


def extension(number: int, body: bytes) -> bytes:
    return number.to_bytes(2, "big") + vector(body)


def record(message: bytes) -> bytes:
    return b"\x16\x03\x03" + vector(message)


def hello(kind: int, *fields: bytes) -> bytes:
    return bytes([kind]) + vector(b"\x03\x03" + bytes(range(32)) + b"".join(fields), 3)


def extensions_of(message: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    end = at + 2 + int.from_bytes(message[at : at + 2], "big")
    at += 2
    while at < end:
        length = int.from_bytes(message[at + 2 : at + 4], "big")
        yield int.from_bytes(message[at : at + 2], "big"), message[at + 4 : at + 4 + length]
        at += 4 + length


def server_secret(shared: bytes, *messages: bytes) -> bytes:
    """The one that OpenSSL derives first, on either side."""
    transcript = hashlib.sha256(b"".join(messages)).digest()
    return Schedule("sha256").enter_handshake(shared, transcript).server


def advance(connection: SSL.Connection) -> None:
    with pytest.raises(SSL.WantReadError):
        connection.do_handshake()


@every_group
def test_the_answer_to_an_openssl_client_gives_its_secret(group: int) -> None:
    other = Other(group)
    other.context.set_min_proto_version(SSL.TLS1_3_VERSION)
    client = other.connection()
    client.set_connect_state()
    advance(client)
    client_hello = client.bio_read(1 << 16)[5:]
    session_id = client_hello[38 : 39 + client_hello[38]]
    ciphers_at = 38 + len(session_id)
    ciphers = int.from_bytes(client_hello[ciphers_at : ciphers_at + 2], "big")
    # Behind the ciphers stand a compression method and its length.
    offered = dict(extensions_of(client_hello, ciphers_at + 2 + ciphers + 2))
    number, share = offered[KEY_SHARE][2:4], offered[KEY_SHARE][6:]
    assert number == group.to_bytes(2, "big")
    answer, shared = respond(group, share)
    extensions = extension(SUPPORTED_VERSIONS, b"\x03\x04")
    extensions += extension(KEY_SHARE, number + vector(answer))
    server_hello = hello(2, session_id, SUITE, b"\0", vector(extensions))
    client.bio_write(record(server_hello))
    advance(client)
    expected = server_secret(shared, client_hello, server_hello)
    assert other.secrets[b"SERVER_HANDSHAKE_TRAFFIC_SECRET"] == expected


@every_group
def test_an_openssl_server_gives_the_secret_of_our_share(group: int) -> None:
    other = Other(group)
    trustme.CA().issue_cert("server").configure_cert(other.context)
    server = other.connection()
    server.set_accept_state()
    ours, number = generate(group), group.to_bytes(2, "big")
    extensions = extension(SUPPORTED_VERSIONS, b"\2\x03\x04") + extension(10, vector(number))
    extensions += extension(13, vector(b"\x04\x03\x08\x04"))
    extensions += extension(KEY_SHARE, vector(number + vector(ours.share)))
    client_hello = hello(1, b"\0", vector(SUITE), b"\1\0", vector(extensions))
    server.bio_write(record(client_hello))
    advance(server)
    flight = server.bio_read(1 << 16)
    server_hello = flight[5 : 5 + int.from_bytes(flight[3:5], "big")]
    answered = dict(extensions_of(server_hello, 39 + 2 + 1))
    shared = ours.agree(answered[KEY_SHARE][4:])
    expected = server_secret(shared, client_hello, server_hello)
    assert other.secrets[b"SERVER_HANDSHAKE_TRAFFIC_SECRET"] == expected
