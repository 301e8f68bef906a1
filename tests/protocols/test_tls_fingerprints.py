"""Fingerprints against the examples that their authors published."""

from __future__ import annotations

import pytest

from mitml4.protocols.tls_fingerprints import ja3, ja3_text, ja3s, ja3s_text, ja4, ja4s
from mitml4.protocols.tls_hello import ClientHello, ServerHello


def client(**fields: object) -> ClientHello:
    return ClientHello(legacy_version=0x0303, random=bytes(32), **fields)  # type: ignore[arg-type]


def server(version: int, cipher: int, *extensions: int, **fields: object) -> ServerHello:
    return ServerHello(
        legacy_version=version,
        random=bytes(32),
        session_id=b"",
        cipher_suite=cipher,
        compression=0,
        extensions=extensions,
        **fields,  # type: ignore[arg-type]
    )


def hexes(text: str) -> tuple[int, ...]:
    return tuple(int(item, 16) for item in text.split(","))


# github.com/FoxIO-LLC/ja4, technical_details/JA4.md, with GREASE put where browsers put it.
CIPHERS = hexes("8a8a,1301,1302,1303,c02b,c02f,c02c,c030,cca9,cca8,c013,c014,009c,009d,002f,0035")
EXTENSIONS = hexes(
    "dada,001b,0000,0033,0010,4469,0017,002d,000d,0005,0023,0012,002b,ff01,000b,000a,0015"
)
ALGORITHMS = hexes("0403,0804,0401,0503,0805,0501,0806,0601")
VERSIONS = (0x7A7A, 0x0304, 0x0303)


def test_ja4_of_the_published_example() -> None:
    hello = client(
        cipher_suites=CIPHERS,
        extensions=EXTENSIONS,
        signature_algorithms=ALGORITHMS,
        supported_versions=VERSIONS,
        alpn=(b"h2", b"http/1.1"),
    )
    assert ja4(hello) == "t13d1516h2_8daaf6152771_e5627efa2ab1"


def test_ja4_without_signature_algorithms_has_no_underscore_in_its_last_hash() -> None:
    hello = client(cipher_suites=CIPHERS, extensions=EXTENSIONS, supported_versions=VERSIONS)
    assert ja4(hello) == "t13d151600_8daaf6152771_6d807ffa2a79"


def test_ja4_with_nothing_to_hash_says_zeros() -> None:
    assert ja4(client(cipher_suites=())) == "t12i000000_000000000000_000000000000"


def test_ja4_counts_stop_at_99() -> None:
    assert ja4(client(cipher_suites=tuple(range(1, 150)))).startswith("t12i990000_")


@pytest.mark.parametrize(
    ("alpn", "shown"),
    [
        (b"h2", "h2"),
        (b"http/1.1", "h1"),
        (b"x", "xx"),
        (b"", "00"),
        (b"\xab", "ab"),
        (b"\xab\xcd", "ad"),
        (b"0\xab", "3b"),
        (b"01\xab\xcd", "3d"),
        (b"0\xab\xcd1", "01"),
    ],
)
def test_ja4_shows_the_ends_of_the_first_alpn(alpn: bytes, shown: str) -> None:
    assert ja4(client(cipher_suites=(), alpn=(alpn,))) == f"t12i0000{shown}_{'0' * 12}_{'0' * 12}"


def test_ja4s_of_the_published_example() -> None:
    # github.com/FoxIO-LLC/ja4, technical_details/JA4S.md
    hello = server(0x0303, 0xC030, *hexes("0005,0017,ff01,0000"))
    assert ja4s(hello) == "t120400_c030_4e8089b08790"


def test_ja4s_of_tls13() -> None:
    # github.com/FoxIO-LLC/ja4, python/test/testdata/sigalg-grease.pcapng.json
    hello = server(0x0303, 0x1302, 0x33, 0x2B, selected_version=0x0304)
    assert ja4s(hello) == "t130200_1302_234ea6891581"


def test_ja3_of_the_published_example() -> None:
    # github.com/salesforce/ja3, README.md
    hello = ClientHello(
        legacy_version=769,
        random=bytes(32),
        cipher_suites=(47, 53, 5, 10, 49161, 49162, 49171, 49172, 50, 56, 19, 4),
        extensions=(0, 10, 11),
        groups=(23, 24, 25),
        point_formats=(0,),
    )
    assert ja3_text(hello) == (
        "769,47-53-5-10-49161-49162-49171-49172-50-56-19-4,0-10-11,23-24-25,0"
    )
    assert ja3(hello) == "ada70206e40642a3e4461f35503241d5"


def test_ja3_of_a_hello_without_extensions() -> None:
    # github.com/salesforce/ja3, README.md
    hello = ClientHello(
        legacy_version=769,
        random=bytes(32),
        cipher_suites=(4, 5, 10, 9, 100, 98, 3, 6, 19, 18, 99),
    )
    assert ja3_text(hello) == "769,4-5-10-9-100-98-3-6-19-18-99,,,"
    assert ja3(hello) == "de350869b8c85de67a350c8d186f11e6"


def test_ja3_ignores_grease() -> None:
    with_grease = client(cipher_suites=(0x1A1A, 47), groups=(0x2A2A, 23), extensions=(0x3A3A, 10))
    assert ja3_text(with_grease) == "771,47,10,23,"


def test_ja3s_of_the_published_example() -> None:
    # github.com/salesforce/ja3, README.md
    assert ja3s_text(server(769, 47, 65281, 0, 11, 35, 5, 16)) == "769,47,65281-0-11-35-5-16"
    assert ja3s(server(769, 47, 65281, 0, 11, 35, 5, 16)) == "836ce314215654b5b1f85f97c73e506f"
