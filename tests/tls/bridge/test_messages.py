"""Handshake messages: strict reading, the same bytes again, and where extensions may be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitml4.protocols.tls.alerts import Alert, TlsError
from mitml4.protocols.tls.hello import RETRY_RANDOM, Extension
from mitml4.tls.bridge.extensions import Place, RawExtensions, check_answers
from mitml4.tls.bridge.messages import (
    Certificate,
    CertificateRequest,
    CertificateVerify,
    CompressedCertificate,
    EncryptedExtensions,
    EndOfEarlyData,
    Finished,
    KeyUpdate,
    NewSessionTicket,
    ServerHello,
    message_hash,
)
from mitml4.tls.bridge.older_messages import (
    Certificate12,
    CertificateRequest12,
    CertificateStatus,
    ClientKeyExchange,
    NewSessionTicket12,
    ServerHelloDone,
    ServerKeyExchange,
)
from mitml4.tls.bridge.wire import vector

NUMBERS = st.integers(0, 0xFFFF)
LONG_NUMBERS = st.integers(0, 0xFFFFFFFF)


def some_bytes(least: int = 0, most: int = 40) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=least, max_size=most)


EXTENSIONS = st.lists(
    st.tuples(NUMBERS, some_bytes()), max_size=6, unique_by=lambda item: item[0]
).map(lambda items: RawExtensions(tuple(items)))

MESSAGES = st.one_of(
    st.builds(
        ServerHello,
        legacy_version=NUMBERS,
        random=st.one_of(some_bytes(32, 32), st.just(RETRY_RANDOM)),
        session_id=some_bytes(0, 32),
        cipher_suite=NUMBERS,
        compression=st.integers(0, 255),
        extensions=st.one_of(EXTENSIONS, st.just(RawExtensions(is_present=False))),
    ),
    st.builds(EncryptedExtensions, EXTENSIONS),
    st.builds(CertificateRequest, some_bytes(), EXTENSIONS),
    st.builds(
        Certificate,
        some_bytes(),
        st.lists(st.tuples(some_bytes(1), EXTENSIONS), max_size=3).map(tuple),
    ),
    st.builds(CompressedCertificate, NUMBERS, st.integers(0, 0xFFFFFF), some_bytes(1)),
    st.builds(CertificateVerify, NUMBERS, some_bytes()),
    st.builds(
        NewSessionTicket,
        lifetime=LONG_NUMBERS,
        age_add=LONG_NUMBERS,
        nonce=some_bytes(),
        ticket=some_bytes(1),
        extensions=EXTENSIONS,
    ),
    st.builds(KeyUpdate, st.booleans()),
    st.builds(EndOfEarlyData),
    st.builds(Certificate12, st.lists(some_bytes(1), max_size=3).map(tuple)),
    st.builds(CertificateStatus, some_bytes(1)),
    st.builds(
        ServerKeyExchange,
        group=NUMBERS,
        point=some_bytes(1),
        scheme=NUMBERS,
        signature=some_bytes(),
    ),
    st.builds(ClientKeyExchange, some_bytes(1)),
    st.builds(
        CertificateRequest12,
        types=some_bytes(1),
        signature_algorithms=st.lists(NUMBERS, min_size=1, max_size=5).map(tuple),
        authorities=st.lists(some_bytes(1), max_size=3).map(tuple),
    ),
    st.builds(NewSessionTicket12, LONG_NUMBERS, some_bytes()),
    st.builds(ServerHelloDone),
)


def body_of(whole: bytes) -> bytes:
    assert int.from_bytes(whole[1:4], "big") == len(whole) - 4
    return whole[4:]


@given(MESSAGES)
def test_a_message_is_read_and_written_with_the_same_bytes(said: Any) -> None:
    whole = said.encode()
    read = type(said).parse(body_of(whole))
    assert read == said
    assert read.encode() == whole


@given(MESSAGES, some_bytes(1, 3))
def test_a_message_that_is_cut_or_has_a_tail_is_a_decode_error(said: Any, tail: bytes) -> None:
    body = body_of(said.encode())
    broken = [body[:end] for end in range(len(body))] + [body + tail]
    if isinstance(said, ServerHello):
        # It may end before its extensions, and where it does, two bytes may be an empty list.
        without = body[: 38 + len(said.session_id)]
        broken = [each for each in broken if each not in (without, without + bytes(2))]
    for each in broken:
        with pytest.raises(TlsError) as caught:
            type(said).parse(each)
        assert caught.value.alert == Alert.DECODE_ERROR


@given(MESSAGES, st.data())
def test_bytes_of_any_kind_are_a_message_or_a_tls_error(said: Any, data: st.DataObject) -> None:
    body = bytearray(body_of(said.encode()))
    for _ in range(data.draw(st.integers(1, 4))):
        if body:
            body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        read = type(said).parse(bytes(body))
    except TlsError:
        return
    assert body_of(read.encode()) == body


def test_an_extension_twice_is_illegal() -> None:
    with pytest.raises(TlsError) as caught:
        EncryptedExtensions.parse(vector(2, bytes.fromhex("00100000 002a0000 00100000")))
    assert caught.value.alert == Alert.ILLEGAL_PARAMETER


def test_extensions_are_replaced_and_removed_in_place() -> None:
    extensions = RawExtensions(((43, b"\3\4"), (51, b"old"), (0xFE0D, b"")))
    assert extensions.types == (43, 51, 0xFE0D)
    assert extensions.get(51) == b"old"
    assert extensions.get(0) is None
    assert 0xFE0D in extensions
    assert extensions.replaced(51, b"new") == RawExtensions(
        ((43, b"\3\4"), (51, b"new"), (0xFE0D, b""))
    )
    assert extensions.without(43, 0xFE0D) == RawExtensions(((51, b"old"),))


def a_hello(**bodies: str) -> ServerHello:
    """With these extensions, named as in `Extension`, in hex."""
    return ServerHello(
        random=bytes(32), session_id=b"", cipher_suite=0x1301, extensions=extensions_of(**bodies)
    )


def a_retry(**bodies: str) -> ServerHello:
    return ServerHello(
        random=RETRY_RANDOM, session_id=b"", cipher_suite=0x1301, extensions=extensions_of(**bodies)
    )


def extensions_of(**bodies: str) -> RawExtensions:
    return RawExtensions(
        tuple((getattr(Extension, name), bytes.fromhex(body)) for name, body in bodies.items())
    )


def test_what_a_server_hello_has_chosen() -> None:
    hello = a_hello(SUPPORTED_VERSIONS="0304", KEY_SHARE="001d 0002 abcd", PRE_SHARED_KEY="0001")
    assert hello.selected_version == 0x0304
    assert hello.key_share == (0x001D, b"\xab\xcd")
    assert hello.psk_index == 1
    assert not hello.is_retry
    retry = a_retry(SUPPORTED_VERSIONS="0304", KEY_SHARE="0017", COOKIE="0002 abcd")
    assert retry.is_retry
    assert retry.key_share == (0x0017, None)
    assert retry.cookie == b"\xab\xcd"
    old = a_hello(ALPN="0003 02 6832")
    assert old.selected_version == 0x0303
    assert old.key_share is old.psk_index is old.cookie is None
    assert old.alpn == b"h2"


def test_what_encrypted_extensions_have_chosen() -> None:
    said = EncryptedExtensions(
        extensions_of(
            ALPN="0003 02 6832", EARLY_DATA="", RECORD_SIZE_LIMIT="0040", MAX_FRAGMENT_LENGTH="02"
        )
    )
    assert said.alpn == b"h2"
    assert said.early_data
    assert said.record_size_limit == 64
    assert said.max_fragment_length == 1024
    nothing = EncryptedExtensions(RawExtensions())
    assert nothing.alpn is nothing.record_size_limit is nothing.max_fragment_length is None
    assert not nothing.early_data


def test_what_a_certificate_request_contains() -> None:
    request = CertificateRequest(b"", extensions_of(SIGNATURE_ALGORITHMS="0004 0403 0804"))
    assert request.signature_algorithms == (0x0403, 0x0804)


def test_the_certificate_that_gets_compressed_is_the_body() -> None:
    said = Certificate(b"", ((b"leaf", RawExtensions(((5, b"x"),))), (b"issuer", RawExtensions())))
    assert said.encode()[4:] == said.body


def test_the_hash_of_the_first_hello_is_a_message() -> None:
    assert message_hash(b"\xaa" * 32) == bytes.fromhex("fe000020") + b"\xaa" * 32


@pytest.mark.parametrize(
    ("read", "alert"),
    [
        (
            lambda: CertificateRequest(b"", RawExtensions()).check(),
            "MISSING_EXTENSION",
        ),
        (lambda: KeyUpdate.parse(b"\2"), "ILLEGAL_PARAMETER"),
        (lambda: CertificateStatus.parse(b"\2\0\0\1x"), "ILLEGAL_PARAMETER"),
        (lambda: ServerKeyExchange.parse(b"\1\0\x17\1x\4\3\0\0"), "ILLEGAL_PARAMETER"),
        (lambda: ServerHello.parse(b"\3\3" + bytes(32) + b"\x21" + bytes(40)), "DECODE_ERROR"),
        (lambda: a_hello(KEY_SHARE="001d").key_share, "DECODE_ERROR"),
        (lambda: a_hello(KEY_SHARE="001d 0000").key_share, "DECODE_ERROR"),
        (lambda: a_retry(KEY_SHARE="001d 0001 aa").key_share, "DECODE_ERROR"),
        (lambda: a_retry(COOKIE="0000").cookie, "DECODE_ERROR"),
        (lambda: a_hello(SUPPORTED_VERSIONS="030405").selected_version, "DECODE_ERROR"),
    ],
)
def test_what_a_message_may_not_contain(read: Callable[[], object], alert: str) -> None:
    with pytest.raises(TlsError) as caught:
        read()
    assert caught.value.alert == Alert[alert]


BAD_ANSWERS = [
    # not offered
    (Place.ENCRYPTED_EXTENSIONS, {"ALPN": "0003 02 6832"}, "", "UNSUPPORTED_EXTENSION"),
    (Place.CERTIFICATE, {"STATUS_REQUEST": "01 000001 aa"}, "", "UNSUPPORTED_EXTENSION"),
    (Place.SERVER_HELLO_12, {"EXTENDED_MASTER_SECRET": ""}, "", "UNSUPPORTED_EXTENSION"),
    (Place.ENCRYPTED_EXTENSIONS, {"COOKIE": "0001 aa"}, "", "UNSUPPORTED_EXTENSION"),
    # in a wrong message
    (Place.ENCRYPTED_EXTENSIONS, {"KEY_SHARE": "001d"}, "KEY_SHARE", "ILLEGAL_PARAMETER"),
    (Place.SERVER_HELLO, {"ALPN": "0003 02 6832"}, "ALPN", "ILLEGAL_PARAMETER"),
    (Place.ENCRYPTED_EXTENSIONS, {"PADDING": ""}, "PADDING", "ILLEGAL_PARAMETER"),
    (
        Place.ENCRYPTED_EXTENSIONS,
        {"EXTENDED_MASTER_SECRET": ""},
        "EXTENDED_MASTER_SECRET",
        "ILLEGAL_PARAMETER",
    ),
    (
        Place.SERVER_HELLO_12,
        {"SUPPORTED_VERSIONS": "0303"},
        "SUPPORTED_VERSIONS",
        "ILLEGAL_PARAMETER",
    ),
    (Place.CERTIFICATE_REQUEST, {"KEY_SHARE": ""}, "", "ILLEGAL_PARAMETER"),
    (Place.NEW_SESSION_TICKET, {"ALPN": "0003 02 6832"}, "", "ILLEGAL_PARAMETER"),
    # with a wrong body
    (Place.ENCRYPTED_EXTENSIONS, {"SERVER_NAME": "00"}, "SERVER_NAME", "DECODE_ERROR"),
    (Place.ENCRYPTED_EXTENSIONS, {"ALPN": "0000"}, "ALPN", "DECODE_ERROR"),
    (Place.ENCRYPTED_EXTENSIONS, {"ALPN": "0001 00"}, "ALPN", "DECODE_ERROR"),
    (Place.ENCRYPTED_EXTENSIONS, {"ALPN": "0004 0161 0162"}, "ALPN", "DECODE_ERROR"),
    (Place.ENCRYPTED_EXTENSIONS, {"ALPN": "0002 0161 00"}, "ALPN", "DECODE_ERROR"),
    (
        Place.ENCRYPTED_EXTENSIONS,
        {"RECORD_SIZE_LIMIT": "003f"},
        "RECORD_SIZE_LIMIT",
        "ILLEGAL_PARAMETER",
    ),
    (
        Place.ENCRYPTED_EXTENSIONS,
        {"MAX_FRAGMENT_LENGTH": "05"},
        "MAX_FRAGMENT_LENGTH",
        "ILLEGAL_PARAMETER",
    ),
    (Place.ENCRYPTED_EXTENSIONS, {"EARLY_DATA": "00"}, "EARLY_DATA", "DECODE_ERROR"),
    (Place.CERTIFICATE, {"STATUS_REQUEST": "01 000000"}, "STATUS_REQUEST", "DECODE_ERROR"),
    (Place.NEW_SESSION_TICKET, {"EARLY_DATA": "0000"}, "", "DECODE_ERROR"),
    (Place.SERVER_HELLO_12, {"EC_POINT_FORMATS": "01 01"}, "EC_POINT_FORMATS", "ILLEGAL_PARAMETER"),
    (Place.HELLO_RETRY_REQUEST, {"COOKIE": "0000"}, "", "DECODE_ERROR"),
    (
        Place.HELLO_RETRY_REQUEST,
        {"ENCRYPTED_CLIENT_HELLO": "00"},
        "ENCRYPTED_CLIENT_HELLO",
        "DECODE_ERROR",
    ),
]


@pytest.mark.parametrize(("place", "bodies", "offered", "alert"), BAD_ANSWERS)
def test_extensions_that_do_not_answer(
    place: Place, bodies: dict[str, str], offered: str, alert: str
) -> None:
    types = [getattr(Extension, name) for name in offered.split()]
    with pytest.raises(TlsError) as caught:
        check_answers(types, extensions_of(**bodies), place)
    assert caught.value.alert == Alert[alert]


def test_extensions_that_answer() -> None:
    offered = range(0x10000)
    check_answers(
        offered,
        extensions_of(SUPPORTED_VERSIONS="0304", KEY_SHARE="001d 0001 aa", PRE_SHARED_KEY="0000"),
        Place.SERVER_HELLO,
    )
    check_answers(
        offered,
        extensions_of(SERVER_NAME="", SUPPORTED_GROUPS="0002 001d", APPLICATION_SETTINGS="aabb"),
        Place.ENCRYPTED_EXTENSIONS,
    )
    check_answers(
        offered,
        extensions_of(
            RENEGOTIATION_INFO="00", EC_POINT_FORMATS="01 00", SESSION_TICKET="", SERVER_NAME=""
        ),
        Place.SERVER_HELLO_12,
    )


def test_some_extensions_need_no_offer() -> None:
    check_answers((), extensions_of(COOKIE="0001 aa"), Place.HELLO_RETRY_REQUEST)
    unknown = RawExtensions(((0x4321, b"?"),))
    check_answers((), unknown, Place.CERTIFICATE_REQUEST)
    check_answers((), unknown, Place.NEW_SESSION_TICKET)
    check_answers((), extensions_of(SIGNATURE_ALGORITHMS="0002 0403"), Place.CERTIFICATE_REQUEST)


def test_an_unknown_extension_that_was_offered_is_accepted() -> None:
    check_answers([0x4321], RawExtensions(((0x4321, b"?"),)), Place.ENCRYPTED_EXTENSIONS)


def test_the_verify_data_of_finished_is_all_of_it() -> None:
    assert Finished.parse(b"abc").encode() == b"\x14\0\0\3abc"
