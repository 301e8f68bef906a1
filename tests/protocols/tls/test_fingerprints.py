"""Fingerprints against the examples that their authors published."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mitml4.protocols.tls.fingerprints import (
    ja3,
    ja3_text,
    ja3s,
    ja3s_text,
    ja4,
    ja4s,
    kind_of_client,
)
from mitml4.protocols.tls.hello import ClientHello, ServerHello


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


@pytest.mark.parametrize(
    ("fingerprint", "ciphers", "extensions", "algorithms", "versions", "alpn"),
    [
        # …/python/test/testdata/badcurveball.pcap.json
        (
            "t13d1615h2_46e7e9700bed_45f260be83e2",
            "1301,1302,1303,c02b,c02f,c02c,c030,cca9,cca8,c013,c014,009c,009d,002f,0035,000a",
            "0000,0017,ff01,000a,000b,0023,0010,0005,000d,0012,0033,002d,002b,001b,0015",
            "0403,0804,0401,0503,0805,0501,0806,0601,0201",
            "0304,0303,0302,0301",
            b"h2",
        ),
        # …/python/test/testdata/latest.pcapng.json: TLS 1.2, no ALPN; and a session resumed
        (
            "t12d190800_d83cc789557e_7af1ed941c26",
            "c02c,c02b,c030,c02f,c024,c023,c028,c027,c00a,c009,c014,c013,009d,009c,003d,003c,"
            "0035,002f,000a",
            "0000,0005,000a,000b,000d,0023,0017,ff01",
            "0804,0805,0806,0401,0501,0201,0403,0503,0203,0202,0601,0603",
            "",
            b"",
        ),
        (
            "t13d1516h2_8daaf6152771_9b887d9acb53",
            "1301,1302,1303,c02b,c02f,c02c,c030,cca9,cca8,c013,c014,009c,009d,002f,0035",
            "000d,0010,0000,000b,0023,4469,ff01,0033,000a,002d,002b,0005,0017,0012,001b,0029",
            "0403,0804,0401,0503,0805,0501,0806,0601",
            "0304,0303",
            b"h2",
        ),
    ],
)
def test_ja4_of_the_authors_captures(
    fingerprint: str, ciphers: str, extensions: str, algorithms: str, versions: str, alpn: bytes
) -> None:
    hello = client(
        cipher_suites=hexes(ciphers),
        extensions=hexes(extensions),
        signature_algorithms=hexes(algorithms),
        supported_versions=hexes(versions) if versions else (),
        alpn=(alpn, b"http/1.1") if alpn else None,
    )
    assert ja4(hello) == fingerprint


def test_ja4_counts_and_hashes_no_grease() -> None:
    plain = client(cipher_suites=(0x1301,), extensions=(43, 13), signature_algorithms=(0x0403,))
    greased = client(
        cipher_suites=(0xFAFA, 0x1301),
        extensions=(0x0A0A, 43, 13, 0x1A1A),
        signature_algorithms=(0x2A2A, 0x0403),
        supported_versions=(0x3A3A, 0x0303),
    )
    assert ja4(greased) == ja4(plain)


def test_ja4_tells_a_name_from_none() -> None:
    assert ja4(client(cipher_suites=(), extensions=(0,))).startswith("t12d000100_")
    assert ja4(client(cipher_suites=(), extensions=(10,))).startswith("t12i000100_")


@pytest.mark.parametrize(
    ("version", "shown"), [(0x0300, "s3"), (0x0301, "10"), (0x0302, "11"), (0x0305, "00")]
)
def test_ja4_names_the_version(version: int, shown: str) -> None:
    hello = ClientHello(legacy_version=version, random=bytes(32), cipher_suites=())
    assert ja4(hello).startswith(f"t{shown}i")


def test_ja4_without_signature_algorithms_has_no_underscore_in_its_last_hash() -> None:
    hello = client(cipher_suites=CIPHERS, extensions=EXTENSIONS, supported_versions=VERSIONS)
    assert ja4(hello) == "t13d151600_8daaf6152771_6d807ffa2a79"


def test_ja4_with_nothing_to_hash_says_zeros() -> None:
    assert ja4(client(cipher_suites=())) == "t12i000000_000000000000_000000000000"


def test_ja4_counts_stop_at_99() -> None:
    assert ja4(client(cipher_suites=tuple(range(1, 150)))).startswith("t12i990000_")


def test_ja4_shows_the_ends_of_the_first_alpn() -> None:
    for alpn, shown in (
        (b"h2", "h2"),
        (b"http/1.1", "h1"),
        (b"x", "xx"),
        (b"", "00"),
        (b"\xab", "ab"),
        (b"\xab\xcd", "ad"),
        (b"0\xab", "3b"),
        (b"01\xab\xcd", "3d"),
        (b"0\xab\xcd1", "01"),
        (b" ", "20"),
        (b"a ", "60"),
    ):
        assert (
            ja4(client(cipher_suites=(), alpn=(alpn,))) == f"t12i0000{shown}_{'0' * 12}_{'0' * 12}"
        )


def test_ja4s_of_the_published_example() -> None:
    # github.com/FoxIO-LLC/ja4, technical_details/JA4S.md
    hello = server(0x0303, 0xC030, *hexes("0005,0017,ff01,0000"))
    assert ja4s(hello) == "t120400_c030_4e8089b08790"


def test_ja4s_of_tls13() -> None:
    # github.com/FoxIO-LLC/ja4, python/test/testdata/sigalg-grease.pcapng.json
    hello = server(0x0303, 0x1302, 0x33, 0x2B, selected_version=0x0304)
    assert ja4s(hello) == "t130200_1302_234ea6891581"


@pytest.mark.parametrize(
    ("fingerprint", "version", "cipher", "extensions", "alpn"),
    [
        # …/python/test/testdata/badcurveball.pcap.json and latest.pcapng.json
        ("t1205h1_c02b_845f7282a956", 0x0303, 0xC02B, "0000,ff01,000b,0023,0010", b"http/1.1"),
        ("t1206h2_c02f_3603f09c43ba", 0x0303, 0xC02F, "0000,000b,ff01,0010,0023,0017", b"h2"),
        ("t120600_c02f_51ad275821ba", 0x0303, 0xC02F, "0000,000b,ff01,0005,0023,0017", None),
        ("t130300_1301_6bbbaf601ed8", 0x0304, 0x1301, "0029,0033,002b", None),
    ],
)
def test_ja4s_of_the_authors_captures(
    fingerprint: str, version: int, cipher: int, extensions: str, alpn: bytes | None
) -> None:
    hello = server(0x0303, cipher, *hexes(extensions), selected_version=version, alpn=alpn)
    assert ja4s(hello) == fingerprint


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


def test_a_client_is_of_one_kind_whatever_it_resumes() -> None:
    """A session that is resumed, early data, a retry, padding: of a connection, not of a client."""
    usual = ClientHello(
        legacy_version=0x0303,
        random=bytes(32),
        cipher_suites=(0x1301, 0xC02B),
        extensions=(0, 10, 13, 16, 43, 51, 21),
        supported_versions=(0x0304,),
        signature_algorithms=(0x0403,),
    )
    for extensions in ((0, 10, 13, 16, 43, 51, 41), (0, 10, 13, 16, 42, 43, 44, 51, 41)):
        resumed = replace(usual, extensions=extensions)
        assert ja4(resumed) != ja4(usual)
        assert kind_of_client(resumed) == kind_of_client(usual)
    for other in (
        replace(usual, extensions=(*usual.extensions, 35)),
        replace(usual, cipher_suites=(0x1301,)),
        replace(usual, alpn=(b"h2",)),
        replace(usual, supported_versions=(0x0303,)),
    ):
        assert kind_of_client(other) != kind_of_client(usual)
