"""Hellos are read back field by field; broken ones raise ProtocolError and nothing else."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import MAX_PEEK
from mitml4.protocols.tls.hello import ClientHello, parse_client_hello, parse_server_hello


def vector(width: int, body: bytes) -> bytes:
    return len(body).to_bytes(width, "big") + body


def numbers(*values: int, width: int = 2) -> bytes:
    return b"".join(value.to_bytes(width, "big") for value in values)


def extension(kind: int, body: bytes) -> bytes:
    return numbers(kind) + vector(2, body)


def records(kind: int, body: bytes, *, size: int = 1 << 14) -> bytes:
    message = bytes([kind]) + vector(3, body)
    parts = (message[at : at + size] for at in range(0, len(message), size))
    return b"".join(b"\x16\x03\x01" + vector(2, part) for part in parts)


CLIENT_BODY = (
    b"\x03\x03"
    + bytes(range(32))
    + vector(1, b"session")
    + vector(2, numbers(0x1A1A, 0x1301, 0xC02F))
    + vector(1, b"\0")
    + vector(
        2,
        extension(0x0A0A, b"")
        + extension(0, vector(2, b"\0" + vector(2, b"example.org")))
        + extension(5, b"\x01\0\0\0\0")
        + extension(10, vector(2, numbers(0x2A2A, 0x11EC, 29)))
        + extension(11, vector(1, b"\0"))
        + extension(13, vector(2, numbers(0x0403, 0x0804)))
        + extension(16, vector(2, vector(1, b"h2") + vector(1, b"http/1.1")))
        + extension(43, vector(1, numbers(0x3A3A, 0x0304, 0x0303)))
        + extension(50, vector(2, numbers(0x0401)))
        + extension(51, vector(2, numbers(29) + vector(2, b"k" * 32)))
        + extension(0xFE0D, b"\0")
        + extension(42, b"")
        + extension(41, b"psk"),
    )
)
CLIENT = records(1, CLIENT_BODY)
SSLV2 = (
    b"\x80\x2e\x01\x03\x01"
    + numbers(0x15, 0, 0x10)
    + numbers(0x010080, 0x00002F, 0x000035, 0x00000A, 0x060040, 0x020080, 0x0000FF, width=3)
    + bytes(16)
)
RETRY = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")


def server_body(
    random: bytes = bytes(32), extensions: bytes = b"", *, version: int = 0x0303
) -> bytes:
    return (
        numbers(version) + random + vector(1, b"") + numbers(0x1301) + b"\0" + vector(2, extensions)
    )


def test_every_field_of_a_client_hello_is_read() -> None:
    assert parse_client_hello(CLIENT) == ClientHello(
        legacy_version=0x0303,
        random=bytes(range(32)),
        session_id=b"session",
        cipher_suites=(0x1A1A, 0x1301, 0xC02F),
        compression=(0,),
        extensions=(0x0A0A, 0, 5, 10, 11, 13, 16, 43, 50, 51, 0xFE0D, 42, 41),
        sni="example.org",
        alpn=(b"h2", b"http/1.1"),
        supported_versions=(0x3A3A, 0x0304, 0x0303),
        groups=(0x2A2A, 0x11EC, 29),
        signature_algorithms=(0x0403, 0x0804),
        signature_algorithms_cert=(0x0401,),
        key_shares=(29,),
        point_formats=(0,),
        wire_length=len(CLIENT),
    )


def test_properties_name_what_the_extensions_mean() -> None:
    hello = parse_client_hello(CLIENT)
    assert hello is not None
    assert hello.versions == (0x0304, 0x0303)
    assert (hello.early_data, hello.psk, hello.status_request, hello.ech) == (True,) * 4


@pytest.mark.parametrize("size", [1, 2, 7, 100])
def test_records_of_any_size_give_the_same_hello(size: int) -> None:
    split = records(1, CLIENT_BODY, size=size)
    hello, whole = parse_client_hello(split + b"early data"), parse_client_hello(CLIENT)
    assert hello is not None
    assert whole is not None
    assert hello.wire_length == len(split)
    assert hello.alpn == whole.alpn
    assert hello.extensions == whole.extensions


@pytest.mark.parametrize("stream", [CLIENT, records(1, CLIENT_BODY, size=9), SSLV2])
def test_every_prefix_is_not_whole_yet(stream: bytes) -> None:
    assert [parse_client_hello(stream[:n]) for n in range(len(stream))] == [None] * len(stream)
    assert parse_client_hello(stream) is not None


def test_an_sslv2_hello_is_read_as_such() -> None:
    hello = parse_client_hello(SSLV2)
    assert hello is not None
    assert hello.sslv2
    assert hello.versions == (0x0301,)
    assert hello.cipher_suites[:3] == (0x010080, 0x2F, 0x35)
    assert hello.wire_length == len(SSLV2)


def test_a_hello_without_extensions_is_whole() -> None:
    body = b"\x03\x00" + bytes(32) + vector(1, b"") + vector(2, numbers(10)) + vector(1, b"\0")
    hello = parse_client_hello(records(1, body))
    assert hello is not None
    assert (hello.versions, hello.alpn, hello.sni) == ((0x0300,), None, None)


def test_a_hello_of_64_kib_is_read_and_a_longer_one_is_refused() -> None:
    def padded(count: int) -> bytes:
        head = b"\x03\x03" + bytes(32) + vector(1, b"") + vector(2, b"\x13\x01") + vector(1, b"\0")
        return records(1, head + vector(2, extension(21, bytes(996)) * count))

    hello = parse_client_hello(padded(65))
    assert hello is not None
    assert len(hello.extensions) == 65
    with pytest.raises(ProtocolError):
        parse_client_hello(b"\x16\x03\x01\0\x04\x01\x01\0\x01")
    one_byte_records = records(1, bytes(16000), size=1)
    assert parse_client_hello(one_byte_records[: MAX_PEEK - 1]) is None
    with pytest.raises(ProtocolError):
        parse_client_hello(one_byte_records)


@pytest.mark.parametrize(
    "stream",
    [
        b"GET / HTTP/1.1\r\n",
        records(2, server_body()),
        records(1, CLIENT_BODY[:-1]),
        records(1, b"\x02" + CLIENT_BODY[1:]),
        b"\x15\x03\x01\0\x02\x02\x28",
        SSLV2[:6] + b"\x14" + SSLV2[7:],
    ],
    ids=["text", "server hello", "overrun", "version", "alert", "sslv2 lengths"],
)
def test_what_is_no_client_hello_is_a_protocol_error(stream: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_client_hello(stream)


def test_a_server_hello_of_tls13_is_read() -> None:
    extensions = extension(43, numbers(0x0304)) + extension(51, numbers(29) + vector(2, b"k" * 32))
    hello = parse_server_hello(
        records(2, server_body(extensions=extensions + extension(41, b"\0\0")))
    )
    assert hello is not None
    assert (hello.version, hello.group, hello.psk) == (0x0304, 29, True)
    assert hello.is_tls13
    assert not hello.is_retry


def test_a_server_hello_of_tls12_is_read() -> None:
    alpn = extension(16, vector(2, vector(1, b"h2")))
    hello = parse_server_hello(records(2, server_body(extensions=alpn)))
    assert hello is not None
    assert (hello.version, hello.alpn, hello.group, hello.psk) == (0x0303, b"h2", None, False)


def test_a_hello_retry_request_is_told_by_its_random() -> None:
    extensions = extension(43, numbers(0x0304)) + extension(51, numbers(0x11EC))
    hello = parse_server_hello(records(2, server_body(RETRY, extensions)))
    assert hello is not None
    assert hello.is_retry
    assert hello.group == 0x11EC


def test_a_server_hello_of_an_early_draft_has_fewer_fields() -> None:
    body = b"\x7f\x12" + bytes(32) + numbers(0x1301) + vector(2, b"")
    hello = parse_server_hello(records(2, body))
    assert hello is not None
    assert (hello.cipher_suite, hello.is_tls13) == (0x1301, True)


@given(st.data())
def test_mutated_hellos_raise_nothing_but_protocol_errors(data: st.DataObject) -> None:
    stream = bytearray(data.draw(st.sampled_from([CLIENT, SSLV2, records(2, server_body())])))
    for _ in range(data.draw(st.integers(1, 4))):
        stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
    for parse in (parse_client_hello, parse_server_hello):
        try:
            parse(bytes(stream))
        except ProtocolError:
            continue


@given(st.binary(max_size=300))
def test_random_hello_bodies_raise_nothing_but_protocol_errors(body: bytes) -> None:
    for kind, parse in ((1, parse_client_hello), (2, parse_server_hello)):
        try:
            parse(b"\x16\x03\x01" + struct.pack(">HB", len(body) + 4, kind) + vector(3, body))
        except ProtocolError:
            continue
