"""What is said of a hello that is not the client's own."""

from __future__ import annotations

from dataclasses import replace

from mitml4.protocols.tls.differences import differences, lacks
from mitml4.protocols.tls.hello import ClientHello

HELLO = ClientHello(
    legacy_version=0x0303,
    random=b"r" * 32,
    session_id=b"s" * 32,
    cipher_suites=(0x1301, 0x1302, 0xC02B),
    extensions=(0, 10, 13, 16, 35, 43, 51),
    sni="example.test",
    alpn=(b"h2",),
    supported_versions=(0x0304, 0x0303),
    groups=(0x001D, 0x0017),
    signature_algorithms=(0x0403, 0x0804),
    key_shares=(0x001D,),
)


def test_each_difference_is_named() -> None:
    for client, server_got, named, lacking in (
        ({}, {}, (), False),
        ({"random": b"x" * 32, "session_id": b"y" * 32}, {}, (), False),
        ({"session_id": b""}, {}, ("session_id",), False),
        ({"legacy_version": 0x0302}, {}, ("legacy_version",), False),
        ({"compression": (1, 0)}, {}, ("compression",), False),
        ({"point_formats": (0,)}, {"point_formats": (0, 1, 2)}, ("point_formats",), False),
        ({}, {"alpn": (b"http/1.1",)}, ("alpn",), False),
        ({"cipher_suites": (0x8A8A, *HELLO.cipher_suites)}, {}, ("grease",), False),
        ({"extensions": (*HELLO.extensions, 0x1A1A)}, {}, ("grease",), False),
        ({"groups": (0x2A2A, *HELLO.groups)}, {}, ("grease",), False),
        ({"extensions": HELLO.extensions[::-1]}, {}, ("extension_order",), False),
        ({}, {"extensions": HELLO.extensions[:-1]}, ("extension key_share",), False),
        (
            {"extensions": (*HELLO.extensions, 41, 42)},
            {},
            ("extension pre_shared_key", "extension early_data"),
            False,
        ),
        (
            {},
            {"extensions": (*HELLO.extensions, 22)},
            ("extension encrypt_then_mac (added)",),
            False,
        ),
        (
            {},
            {"cipher_suites": (0xC02B, 0x1301)},
            ("cipher TLS_AES_256_GCM_SHA384", "cipher_order"),
            True,
        ),
        (
            {},
            {"cipher_suites": (*HELLO.cipher_suites, 0xFF)},
            ("cipher TLS_EMPTY_RENEGOTIATION_INFO_SCSV (added)",),
            False,
        ),
        (
            {"cipher_suites": (*HELLO.cipher_suites, 0xFF)},
            {},
            ("cipher TLS_EMPTY_RENEGOTIATION_INFO_SCSV",),
            False,
        ),
        ({"groups": (0x6399, *HELLO.groups)}, {}, ("group X25519Kyber768Draft00",), True),
        ({"groups": HELLO.groups[::-1]}, {}, ("group_order",), False),
        ({"key_shares": (0x11EC, 0x001D)}, {}, ("key_share X25519MLKEM768",), False),
        (
            {"signature_algorithms": (0x0403, 0x0804, 0x0201)},
            {},
            ("signature_algorithm rsa_pkcs1_sha1",),
            True,
        ),
        ({"supported_versions": (0x0304, 0x0303, 0x0302)}, {}, ("version TLSv1.1",), False),
        # a list that only one of them has is an extension that only one of them has
        (
            {"groups": (), "extensions": (0, 13, 16, 35, 43, 51)},
            {},
            ("extension supported_groups (added)",),
            False,
        ),
    ):
        said, got = replace(HELLO, **client), replace(HELLO, **server_got)
        assert differences(said, got) == named
        assert lacks(said, got) == lacking
