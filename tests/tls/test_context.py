"""What a server is offered: what the client offered, in its order, as far as OpenSSL can."""

from __future__ import annotations

from dataclasses import replace

import pytest
from OpenSSL import SSL

from mitml4.protocols.tls.hello import ClientHello, parse_client_hello
from mitml4.tls.context import Contexts, Offer

AES_128_GCM, AES_256_GCM, CHACHA20 = 0x1301, 0x1302, 0x1303
AES_128_CCM, AES_128_CCM_8 = 0x1304, 0x1305
ECDHE_ECDSA_AES_128, RSA_AES_128 = 0xC02B, 0x002F
UNKNOWN = 0xFEFE
POST_HANDSHAKE_AUTH = 49  # RFC 8446 §4.2.6
EMPTY_RENEGOTIATION_INFO = 0x00FF  # RFC 5746 §3.3, OpenSSL's own


def hello_of(offer: Offer) -> tuple[ClientHello, tuple[str, ...]]:
    """The ClientHello that a server gets, and what is said not to be in it."""
    mirrored = Contexts().egress(offer)
    connection = SSL.Connection(mirrored.context, None)
    connection.set_connect_state()
    with pytest.raises(SSL.WantReadError):
        connection.do_handshake()
    hello = parse_client_hello(connection.bio_read(65536))
    assert hello is not None
    return hello, mirrored.not_mirrored


def offer(
    *cipher_suites: int, groups: tuple[int, ...] = (), algorithms: tuple[int, ...] = ()
) -> Offer:
    return Offer(
        cipher_suites=cipher_suites,
        lowest_version=0x0303,
        highest_version=0x0304,
        groups=groups,
        signature_algorithms=algorithms,
    )


@pytest.mark.parametrize(
    "suites",
    [
        (CHACHA20, AES_128_GCM, RSA_AES_128, ECDHE_ECDSA_AES_128),
        (AES_256_GCM, CHACHA20, AES_128_GCM, AES_128_CCM, ECDHE_ECDSA_AES_128),  # GnuTLS's
        (AES_128_CCM_8, AES_128_CCM),
    ],
    ids=str,
)
def test_the_cipher_suites_are_the_clients(suites: tuple[int, ...]) -> None:
    hello, missing = hello_of(offer(*suites))
    assert tuple(s for s in hello.cipher_suites if s != EMPTY_RENEGOTIATION_INFO) == suites
    assert missing == ()


def test_another_order_than_the_clients_is_named() -> None:
    hello, missing = hello_of(offer(RSA_AES_128, AES_128_GCM))  # as Go's
    assert hello.cipher_suites[:2] == (AES_128_GCM, RSA_AES_128)
    assert missing == ("cipher_order",)


@pytest.mark.parametrize(
    "groups",
    [
        (0x0018, 0x001E, 0x001D),
        (0x11EC, 0x001D, 0x0017, 0x0018, 0x0100),  # a browser's, and ffdhe2048
        (0x0201, 0x0200, 0x0202, 0x001F, 0x0017),  # ML-KEM alone, and a curve of Brainpool's
        (0x11EE, 0x11EC, 0x0029, 0x001D),  # with curveSM2, as OpenSSL 4 offers
    ],
    ids=str,
)
def test_the_groups_are_the_clients(groups: tuple[int, ...]) -> None:
    hello, missing = hello_of(offer(AES_128_GCM, groups=groups))
    assert hello.groups == groups
    assert missing == ()


def test_the_signature_algorithms_are_the_clients() -> None:
    algorithms = (0x0905, 0x0807, 0x0804, 0x0403, 0x0708, 0x0401, 0x0203)
    hello, missing = hello_of(offer(AES_128_GCM, ECDHE_ECDSA_AES_128, algorithms=algorithms))
    assert hello.signature_algorithms == algorithms
    assert missing == ()


@pytest.mark.parametrize("offered", [False, True])
def test_authentication_after_the_handshake_is_offered_if_the_client_does(offered: bool) -> None:
    hello, _ = hello_of(replace(offer(AES_128_GCM), post_handshake_auth=offered))
    assert (POST_HANDSHAKE_AUTH in hello.extensions) == offered


def test_what_openssl_does_not_have_is_named_and_left_out() -> None:
    hello, missing = hello_of(
        offer(UNKNOWN, AES_128_GCM, groups=(UNKNOWN, 0x001D), algorithms=(UNKNOWN, 0x0403))
    )
    assert UNKNOWN not in hello.cipher_suites
    assert hello.groups == (0x001D,)
    assert hello.signature_algorithms == (0x0403,)
    assert missing == ("cipher 0xFEFE", "groups 0xFEFE", "signature_algorithms 0xFEFE")
