"""What a server is offered: what the client offered, in its order, as far as OpenSSL can."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trustme
from OpenSSL import SSL

from mitml4.protocols.tls.differences import differences, lacks
from mitml4.protocols.tls.fingerprints import ja4
from mitml4.protocols.tls.hello import ClientHello, Extension
from mitml4.tls.client_identity import ClientIdentity
from mitml4.tls.context import Contexts

TLS_1_2, TLS_1_3 = 0x0303, 0x0304
AES_128_GCM, AES_256_GCM, CHACHA20 = 0x1301, 0x1302, 0x1303
AES_128_CCM, AES_128_CCM_8 = 0x1304, 0x1305
ECDHE_ECDSA_AES_128, RSA_AES_128 = 0xC02B, 0x002F
UNKNOWN = 0xFEFE
GREASE = 0x6A6A
POST_HANDSHAKE_AUTH = 49  # RFC 8446 §4.2.6
RENEGOTIATION_SCSV, FALLBACK_SCSV = 0x00FF, 0x5600
RENEGOTIATION_INFO = 65281


def the_server_gets(hello: ClientHello) -> ClientHello:
    return Contexts().server_side(hello).hello


def offer(
    *cipher_suites: int,
    groups: tuple[int, ...] = (),
    algorithms: tuple[int, ...] = (),
    **fields: Any,
) -> ClientHello:
    """A client's hello, as far as it decides what OpenSSL says."""
    return ClientHello(
        legacy_version=TLS_1_2,
        random=bytes(32),
        cipher_suites=cipher_suites,
        supported_versions=(TLS_1_3, TLS_1_2),
        groups=groups,
        signature_algorithms=algorithms,
        **fields,
    )


@pytest.mark.parametrize(
    "suites",
    [
        (CHACHA20, AES_128_GCM, RSA_AES_128, ECDHE_ECDSA_AES_128),
        (AES_256_GCM, CHACHA20, AES_128_GCM, AES_128_CCM, ECDHE_ECDSA_AES_128),  # GnuTLS's
        (AES_128_CCM_8, AES_128_CCM),
        (AES_128_GCM, ECDHE_ECDSA_AES_128, RENEGOTIATION_SCSV),
        (AES_128_GCM, ECDHE_ECDSA_AES_128, RENEGOTIATION_SCSV, FALLBACK_SCSV),
    ],
    ids=str,
)
def test_the_cipher_suites_are_the_clients(suites: tuple[int, ...]) -> None:
    assert the_server_gets(offer(*suites)).cipher_suites == suites


def test_another_order_than_the_clients_is_named() -> None:
    hello = offer(RSA_AES_128, AES_128_GCM)  # as Go's
    got = the_server_gets(hello)
    assert got.cipher_suites == (AES_128_GCM, RSA_AES_128)
    assert "cipher_order" in differences(hello, got)


@pytest.mark.parametrize(
    ("groups", "key_shares"),
    [
        ((0x0018, 0x001E, 0x001D), (0x0018,)),
        ((0x11EC, 0x001D, 0x0017, 0x0018, 0x0100), (0x11EC, 0x001D)),  # a browser's, and ffdhe2048
        ((0x0017, 0x001D, 0x0018), (0x0017, 0x001D)),  # GnuTLS's
        ((0x001D, 0x0017, 0x0018), (0x0017,)),
        ((0x0201, 0x0200, 0x0202, 0x001F, 0x0017), (0x0201,)),  # ML-KEM alone, Brainpool's curve
        ((0x11EE, 0x11EC, 0x0029, 0x001D), (0x11EE,)),  # with curveSM2, as OpenSSL 4 offers
    ],
    ids=str,
)
def test_the_groups_and_the_keys_for_them_are_the_clients(
    groups: tuple[int, ...], key_shares: tuple[int, ...]
) -> None:
    got = the_server_gets(offer(AES_128_GCM, groups=groups, key_shares=key_shares))
    assert (got.groups, got.key_shares) == (groups, key_shares)


def test_the_signature_algorithms_are_the_clients() -> None:
    algorithms = (0x0905, 0x0807, 0x0804, 0x0403, 0x0708, 0x0401, 0x0203)
    got = the_server_gets(offer(AES_128_GCM, ECDHE_ECDSA_AES_128, algorithms=algorithms))
    assert got.signature_algorithms == algorithms


@pytest.mark.parametrize(
    "extension",
    [
        POST_HANDSHAKE_AUTH,
        Extension.SESSION_TICKET,
        Extension.ENCRYPT_THEN_MAC,
        Extension.EXTENDED_MASTER_SECRET,
        Extension.STATUS_REQUEST,
        Extension.PADDING,
    ],
)
def test_an_extension_is_sent_if_the_client_sends_it(extension: int) -> None:
    name = "a-host-that-makes-the-hello-long-enough-to-be-padded.example.test"
    hello = offer(AES_128_GCM, ECDHE_ECDSA_AES_128, sni=name, groups=(0x001D, 0x0017))
    for extensions in ((extension,), ()):
        got = the_server_gets(replace(hello, extensions=extensions))
        assert (extension in got.extensions) == (extension in extensions)


@pytest.mark.parametrize("versions", [(TLS_1_3, TLS_1_2), (TLS_1_3, TLS_1_2, 0x0302, 0x0301)])
@pytest.mark.parametrize("signalled", [True, False])
def test_the_versions_are_the_clients_however_it_signals_renegotiation(
    versions: tuple[int, ...], signalled: bool
) -> None:
    suites = (AES_128_GCM, ECDHE_ECDSA_AES_128, *([RENEGOTIATION_SCSV] if signalled else []))
    got = the_server_gets(replace(offer(*suites), supported_versions=versions))
    assert got.supported_versions == versions
    if signalled:
        assert got.cipher_suites == suites
        assert not got.has(RENEGOTIATION_INFO)
    else:  # OpenSSL signals it in any case
        assert (RENEGOTIATION_SCSV in got.cipher_suites) != got.has(RENEGOTIATION_INFO)


def test_the_padding_of_one_name_is_not_that_of_another() -> None:
    """A hello is padded where its length asks for it (RFC 7685): the cached one must not tell."""
    contexts = Contexts()
    padded = offer(AES_128_GCM, groups=(0x001D,), extensions=(Extension.PADDING,))
    seen = {
        length: contexts.server_side(replace(padded, sni="a" * length)).hello.has(Extension.PADDING)
        for length in (1, 20, 60, 200)
    }
    assert set(seen.values()) == {True, False}


def test_what_openssl_does_not_have_is_named_and_left_out() -> None:
    hello = offer(
        *(GREASE, UNKNOWN, AES_128_GCM),
        groups=(GREASE, UNKNOWN, 0x001D),
        key_shares=(GREASE, 0x001D),
        algorithms=(UNKNOWN, 0x0403),
        extensions=(GREASE, 27, 17613, 18, 65037, 34, Extension.SUPPORTED_VERSIONS),
    )
    got = the_server_gets(hello)
    assert got.cipher_suites[0] == AES_128_GCM
    assert got.groups == got.key_shares == (0x001D,)
    assert got.signature_algorithms == (0x0403,)
    named = differences(hello, got)
    assert set(named) >= {
        "grease",
        "cipher 0xfefe",
        "group 0xfefe",
        "signature_algorithm 0xfefe",
        "extension compress_certificate",
        "extension application_settings",
        "extension signed_certificate_timestamp",
        "extension encrypted_client_hello",
        "extension delegated_credential",
    }
    assert not any("key_share 0x" in each or "key_share x" in each for each in named)
    assert lacks(hello, got)


def test_a_client_of_nothing_that_openssl_has_is_not_mirrored() -> None:
    with pytest.raises(SSL.Error):
        the_server_gets(offer(UNKNOWN))
    older = replace(offer(UNKNOWN, AES_128_GCM), supported_versions=(TLS_1_2,))
    with pytest.raises(SSL.Error):  # the suite that is known is for TLS 1.3
        the_server_gets(older)


def test_openssls_own_hello_comes_out_as_it_was() -> None:
    own = the_server_gets(
        offer(
            *(AES_256_GCM, AES_128_GCM, ECDHE_ECDSA_AES_128),
            groups=(0x11EC, 0x001D),
            key_shares=(0x11EC, 0x001D),
            algorithms=(0x0403, 0x0804),
            sni="example.test",
            alpn=(b"h2", b"http/1.1"),
            extensions=(22, 23, 35),
        )
    )
    again = the_server_gets(own)
    assert differences(own, again) == ()
    assert not lacks(own, again)
    assert ja4(again) == ja4(own)


def test_a_client_certificate_is_read_at_once(tmp_path: Path) -> None:
    """Later the session may no longer be able to."""
    authority = trustme.CA()
    issued = authority.issue_cert("client.test")
    path = tmp_path / "client.pem"
    path.write_bytes(
        b"".join(pem.bytes() for pem in (issued.private_key_pem, *issued.cert_chain_pems))
    )
    contexts = Contexts(client_identity=ClientIdentity.read(path))
    path.unlink()
    context = contexts.server_side(offer(AES_128_GCM, ECDHE_ECDSA_AES_128)).context
    context.check_privatekey()


def test_a_name_that_openssl_does_not_take_is_not_offered() -> None:
    assert Contexts().can_offer(offer(AES_128_GCM, sni="ab"))
    assert not Contexts().can_offer(offer(AES_128_GCM, sni="a\0b"))
