"""We are the client: what a server must not do is refused with the alert that RFC 8446 and RFC 5246
name, or BoringSSL where they leave it open."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mitml4.crypto.suites import suite_of
from mitml4.protocols.tls.alerts import Alert, TlsError
from mitml4.protocols.tls.hello import RETRY_RANDOM, Extension
from mitml4.protocols.tls.records import HandshakeType, RecordType
from mitml4.tls.bridge import messages, older_messages
from mitml4.tls.bridge.client_leg import ClientLeg
from mitml4.tls.bridge.errors import CannotBridge, StaysClosed
from mitml4.tls.bridge.extensions import CERTIFICATE_TYPES, RawExtensions
from mitml4.tls.bridge.flight import Flight, Retry, ServerFinished
from mitml4.tls.bridge.hello import Replacements, relay_hello
from mitml4.tls.bridge.leg import PeerAlert
from mitml4.tls.bridge.server_leg import ServerLeg
from mitml4.tls.bridge.tickets import Ticket
from mitml4.tls.bridge.wire import message, uint16, vector
from tests.tls.bridge.scripted import (
    AES_256,
    CHANGE_CIPHER_SPEC,
    ECDHE_RSA,
    ECDSA_P256,
    P256,
    RSA_PKCS1,
    RSA_PSS,
    SESSION_ID,
    TLS_1_2,
    TLS_1_3,
    X25519,
    Changes,
    Offer,
    Server12,
    Server13,
    alert,
    broken,
    cut,
    extension,
    instead,
    left_out,
    longer,
    only_1_2,
    own_certificate,
    plain,
    psk_offer,
    raw,
    records,
    server_hello,
    twice,
    with_extensions,
    with_fields,
)
from tests.tls.bridge.test_delegation import ED25519, a_key, a_leaf, made

HANDSHAKE, DATA = RecordType.HANDSHAKE, RecordType.APPLICATION_DATA
GREASE = 0x4A4A
UNKNOWN = 0x1234
FINISHED = message(HandshakeType.FINISHED, bytes(32))
TICKET = b"a ticket of ours" * 4


def ticket(version: int = TLS_1_3, suite: int = 0x1301, **more: Any) -> Ticket:
    found = suite_of(suite)
    assert found
    return Ticket(
        version=version,
        server_ticket=b"theirs" + bytes(len(TICKET) - 6),
        server_secret=bytes(32 if version == TLS_1_3 else 48),
        client_secret=bytes(32 if version == TLS_1_3 else 48),
        cipher_suite=suite,
        suite=found,
        site="",
        seen=None,
        **more,
    )


def leg_of(offer: Offer | None = None, known: Ticket | None = None) -> ServerLeg:
    stream = (offer or Offer()).records()
    return ServerLeg(relay_hello(stream, Replacements(), find_ticket=lambda _: known))


def fed(leg: ServerLeg | ClientLeg, data: bytes, size: int) -> Any:
    """The last event of this data, in pieces of this size."""
    event = None
    for at in range(0, len(data), size):
        leg.receive(data[at : at + size])
        while found := leg.next_event():
            event = found
            if isinstance(found, PeerAlert):
                return found
    return event


def meet(
    changes: Changes | None = None,
    *,
    offer: Offer | None = None,
    known: Ticket | None = None,
    version: int = TLS_1_3,
    size: int = 1 << 20,
    **options: Any,
) -> Any:
    """What the leg makes of a server's first flight."""
    if version == TLS_1_2 and offer is None:
        offer = Offer()
    leg = leg_of(offer, known)
    make: Any = Server13 if version == TLS_1_3 else Server12
    server = make(leg.to_send(), changes, **options)
    server.send_flight()
    return fed(leg, server.taken(), size)


@contextmanager
def refused(number: int) -> Iterator[None]:
    with pytest.raises(TlsError) as refusal:
        yield
    assert refusal.value.alert == number, refusal.value


def refuses(number: int, changes: Changes | None = None, **options: Any) -> None:
    """Whole and byte by byte."""
    for size in (1 << 20, 1):
        with refused(number):
            meet(changes, size=size, **options)


# TLS 1.3


@pytest.mark.parametrize("size", [1, 100, 1 << 20])
@pytest.mark.parametrize("fragment_bytes", [1, 50, 1 << 14])
@pytest.mark.parametrize("asks", [False, True])
def test_a_handshake_without_a_fault(size: int, fragment_bytes: int, asks: bool) -> None:
    leg = leg_of()
    server = Server13(leg.to_send(), asks=asks, fragment_bytes=fragment_bytes)
    server.send_flight()
    assert isinstance(fed(leg, server.taken(), size), Flight)
    leg.finish()
    server.take_answer(leg.to_send())


MESSAGES = [
    "server_hello",
    "encrypted_extensions",
    "certificate_request",
    "certificate",
    "certificate_verify",
    "finished",
]


@pytest.mark.parametrize("name", MESSAGES)
def test_messages_that_are_cut_or_longer(name: str) -> None:
    refuses(Alert.DECODE_ERROR, {name: cut}, asks=True)
    refuses(Alert.DECODE_ERROR, {name: longer}, asks=True)


@pytest.mark.parametrize("name", MESSAGES[:-1])
def test_messages_that_come_twice(name: str) -> None:
    refuses(Alert.UNEXPECTED_MESSAGE, {name: twice}, asks=True)


def test_messages_behind_the_finished_in_its_record() -> None:
    refuses(Alert.UNEXPECTED_MESSAGE, {"finished": twice})


@pytest.mark.parametrize("name", ["encrypted_extensions", "certificate", "certificate_verify"])
def test_messages_that_are_left_out(name: str) -> None:
    refuses(Alert.UNEXPECTED_MESSAGE, {name: left_out})


@pytest.mark.parametrize("name", MESSAGES)
@pytest.mark.parametrize("kind", [0, 1, 2, 4, 5, 8, 11, 12, 13, 14, 15, 16, 20, 22, 24, 25, 254])
def test_messages_of_another_type(name: str, kind: int) -> None:
    def other(whole: bytes) -> bytes:
        return bytes([kind]) + whole[1:]

    right = {
        "server_hello": 2,
        "encrypted_extensions": 8,
        "certificate_request": 13,
        "certificate": 11,
        "certificate_verify": 15,
        "finished": 20,
    }
    if kind != right[name] and (name, kind) != ("certificate_request", 11):
        refuses(Alert.UNEXPECTED_MESSAGE, {name: other}, asks=True)


@pytest.mark.parametrize("name", MESSAGES)
@pytest.mark.parametrize("kind", [DATA, RecordType.HEARTBEAT, RecordType.CHANGE_CIPHER_SPEC])
def test_records_of_another_type_in_between(name: str, kind: RecordType) -> None:
    """A ChangeCipherSpec too, unless it is plaintext."""
    if kind == RecordType.CHANGE_CIPHER_SPEC and name in ("server_hello", "encrypted_extensions"):
        return
    refuses(Alert.UNEXPECTED_MESSAGE, {f"before:{name}": records((kind, b"\x01"))}, asks=True)


@pytest.mark.parametrize("name", ["server_hello", "certificate", "finished"])
def test_records_of_another_type_inside_a_message(name: str) -> None:
    for kind, content in ((DATA, b"x"), (RecordType.ALERT, b"\x01\x5a")):
        changes = {"before:fragment": records((kind, content))}
        refuses(Alert.UNEXPECTED_MESSAGE, changes, fragment_bytes=30)
    refuses(
        Alert.UNEXPECTED_MESSAGE,
        {"before:fragment": raw(CHANGE_CIPHER_SPEC)},
        fragment_bytes=30,
    )


def test_key_updates_and_tickets_during_the_handshake() -> None:
    for kind, body in ((24, b"\0"), (4, bytes(20))):
        refuses(
            Alert.UNEXPECTED_MESSAGE,
            {"before:certificate": records((HANDSHAKE, message(kind, body)))},
        )


def test_a_message_that_goes_on_across_the_change_of_keys() -> None:
    refuses(Alert.UNEXPECTED_MESSAGE, {"server_hello": lambda whole: whole + b"\x08\0"})
    refuses(Alert.UNEXPECTED_MESSAGE, {"finished": lambda whole: whole + b"\x04\0"})
    refuses(Alert.UNEXPECTED_MESSAGE, {"server_hello": lambda w: w + message(8, b"\0\0")})


@pytest.mark.parametrize("content", [b"", b"\x02", b"\x01\x01"])
def test_change_cipher_spec_of_another_content(content: bytes) -> None:
    other = plain(RecordType.CHANGE_CIPHER_SPEC, content)
    refuses(Alert.UNEXPECTED_MESSAGE, {"change_cipher_spec": instead(other)})
    refuses(Alert.UNEXPECTED_MESSAGE, {"before:server_hello": raw(other)})


def test_change_cipher_spec_without_end() -> None:
    meet({"change_cipher_spec": lambda each: each * 30})
    refuses(Alert.UNEXPECTED_MESSAGE, {"change_cipher_spec": lambda each: each * 40})
    refuses(
        Alert.UNEXPECTED_MESSAGE,
        {"before:server_hello": raw(CHANGE_CIPHER_SPEC * 40)},
    )


def test_change_cipher_spec_where_it_may_be() -> None:
    """RFC 8446 §5: at any time between the hello and the peer's Finished."""
    for name in MESSAGES:
        assert meet({f"before:{name}": raw(CHANGE_CIPHER_SPEC)}, asks=True)


def test_versions_of_records() -> None:
    def of_version(version: int) -> Changes:
        def change(whole: bytes) -> bytes:
            return whole

        return {"server_hello": change, "before:server_hello": raw(plain(21, b"\x01p", version))}

    assert meet(of_version(0x0301))
    refuses(Alert.PROTOCOL_VERSION, of_version(0x0203))
    for version in (0x0301, 0x0304):
        wrong = bytes([DATA]) + uint16(version) + b"\0\x20" + bytes(32)
        refuses(Alert.PROTOCOL_VERSION, {"before:encrypted_extensions": raw(wrong)})


def test_lengths_of_records() -> None:
    refuses(
        Alert.RECORD_OVERFLOW,
        {"before:server_hello": raw(b"\x16\x03\x03" + uint16((1 << 14) + 1))},
    )
    refuses(
        Alert.RECORD_OVERFLOW,
        {"before:certificate": raw(b"\x17\x03\x03" + uint16((1 << 14) + 257))},
    )
    refuses(
        Alert.RECORD_OVERFLOW,
        {"before:certificate": records((HANDSHAKE, bytes((1 << 14) + 1)))},
    )
    refuses(Alert.BAD_RECORD_MAC, {"before:certificate": raw(plain(DATA, b""))})
    refuses(Alert.BAD_RECORD_MAC, {"before:certificate": raw(plain(DATA, bytes(16)))})
    refuses(Alert.UNEXPECTED_MESSAGE, {"before:certificate": raw(plain(99, b"x"))})


def test_records_without_content_or_type() -> None:
    for kind in (HANDSHAKE, RecordType.ALERT):
        refuses(Alert.UNEXPECTED_MESSAGE, {"before:certificate": records((kind, b""))})
    refuses(Alert.UNEXPECTED_MESSAGE, {"before:server_hello": raw(plain(HANDSHAKE, b"") * 40)})


def test_messages_of_plaintext_after_the_keys() -> None:
    refuses(
        Alert.UNEXPECTED_MESSAGE,
        {"before:encrypted_extensions": raw(plain(HANDSHAKE, message(8, b"\0\0")))},
    )
    refuses(Alert.UNEXPECTED_MESSAGE, {"before:certificate": raw(alert(2, 40))})


def test_a_message_that_is_too_long() -> None:
    for name in ("server_hello", "certificate"):
        refuses(
            Alert.ILLEGAL_PARAMETER,
            {name: instead(bytes([11 if name == "certificate" else 2]) + b"\xff\xff\xff")},
        )


# Alerts


@pytest.mark.parametrize("name", ["server_hello", "encrypted_extensions", "certificate"])
def test_alerts(name: str) -> None:
    for number in (Alert.HANDSHAKE_FAILURE, Alert.CLOSE_NOTIFY):
        for level in (1, 2):
            if (level, number) == (1, Alert.HANDSHAKE_FAILURE) and name == "server_hello":
                continue
            sent = records((RecordType.ALERT, bytes([level, number])))
            assert meet({f"before:{name}": sent}) == PeerAlert(number)


def test_broken_alerts() -> None:
    for name in ("server_hello", "certificate"):
        where = f"before:{name}"
        for content in (b"\x02", b"\x02\x28\x02\x28"):
            refuses(Alert.DECODE_ERROR, {where: records((RecordType.ALERT, content))})
        refuses(Alert.ILLEGAL_PARAMETER, {where: records((RecordType.ALERT, b"\x03\x28"))})


def test_warnings() -> None:
    """user_canceled is one in TLS 1.3, and before the version is known all have the level that they
    say: some servers send unrecognized_name."""
    warning = (RecordType.ALERT, bytes([1, Alert.USER_CANCELED]))
    for name in ("server_hello", "certificate"):
        assert isinstance(meet({f"before:{name}": records(warning)}), Flight)
        refuses(Alert.UNEXPECTED_MESSAGE, {f"before:{name}": records(*[warning] * 9)})
    unrecognized = (RecordType.ALERT, bytes([1, Alert.UNRECOGNIZED_NAME]))
    assert isinstance(meet({"before:server_hello": records(unrecognized)}), Flight)


# ServerHello


@pytest.mark.parametrize(
    ("change", "number"),
    [
        (server_hello(legacy_version=0x0302), Alert.ILLEGAL_PARAMETER),
        (server_hello(legacy_version=TLS_1_3), Alert.ILLEGAL_PARAMETER),
        (server_hello(compression=1), Alert.ILLEGAL_PARAMETER),
        (server_hello(session_id=b""), Alert.ILLEGAL_PARAMETER),
        (server_hello(session_id=SESSION_ID), Alert.ILLEGAL_PARAMETER),
        (server_hello(session_id=bytes(33)), Alert.DECODE_ERROR),
        (server_hello(cipher_suite=0x1303), Alert.ILLEGAL_PARAMETER),
        (server_hello(cipher_suite=0xC02B), Alert.ILLEGAL_PARAMETER),
        (server_hello(cipher_suite=UNKNOWN), Alert.ILLEGAL_PARAMETER),
        (extension(Extension.SUPPORTED_VERSIONS, b"\x03\x03"), Alert.ILLEGAL_PARAMETER),
        (extension(Extension.SUPPORTED_VERSIONS, b"\x03\x05"), Alert.ILLEGAL_PARAMETER),
        (extension(Extension.SUPPORTED_VERSIONS, uint16(GREASE)), Alert.ILLEGAL_PARAMETER),
        (extension(Extension.SUPPORTED_VERSIONS, b"\x03"), Alert.DECODE_ERROR),
        (extension(Extension.SUPPORTED_VERSIONS, b"\x03\x04\0"), Alert.DECODE_ERROR),
        (with_extensions(without=(Extension.KEY_SHARE,)), Alert.MISSING_EXTENSION),
        (extension(Extension.KEY_SHARE, b""), Alert.DECODE_ERROR),
        (extension(Extension.KEY_SHARE, uint16(X25519) + b"\0\0"), Alert.DECODE_ERROR),
        (extension(Extension.KEY_SHARE, uint16(X25519)), Alert.DECODE_ERROR),
        (
            extension(Extension.KEY_SHARE, uint16(P256) + vector(2, bytes(65))),
            Alert.ILLEGAL_PARAMETER,
        ),
        (
            extension(Extension.KEY_SHARE, uint16(GREASE) + vector(2, b"x")),
            Alert.ILLEGAL_PARAMETER,
        ),
        (
            extension(Extension.KEY_SHARE, uint16(X25519) + vector(2, bytes(32))),
            Alert.ILLEGAL_PARAMETER,
        ),
        (
            extension(Extension.KEY_SHARE, uint16(X25519) + vector(2, b"\x09" * 31)),
            Alert.ILLEGAL_PARAMETER,
        ),
        (
            extension(Extension.KEY_SHARE, uint16(X25519) + vector(2, b"\x09" * 33)),
            Alert.ILLEGAL_PARAMETER,
        ),
        (with_extensions((Extension.ALPN, b"\0\x03\x02h2")), Alert.ILLEGAL_PARAMETER),
        (with_extensions((Extension.COOKIE, b"\0\x01x")), Alert.UNSUPPORTED_EXTENSION),
        (with_extensions((UNKNOWN, b"")), Alert.UNSUPPORTED_EXTENSION),
        (with_extensions((Extension.KEY_SHARE, b"")), Alert.ILLEGAL_PARAMETER),
        (with_extensions((Extension.PRE_SHARED_KEY, b"\0\0")), Alert.UNSUPPORTED_EXTENSION),
    ],
)
def test_a_server_hello(change: Any, number: int) -> None:
    offer = Offer(
        versions=(GREASE, TLS_1_3, TLS_1_2),
        groups=(GREASE, X25519, P256),
        suites=(GREASE, 0x1301, 0x1302, 0xC02B),
    )
    refuses(number, {"server_hello": change}, offer=offer)


def test_grease_is_never_chosen() -> None:
    """RFC 8701 §4."""
    offer = Offer(suites=(GREASE, 0x1301, 0xC02B), more={GREASE: b""})
    refuses(
        Alert.ILLEGAL_PARAMETER, {"server_hello": server_hello(cipher_suite=GREASE)}, offer=offer
    )
    refuses(
        Alert.UNSUPPORTED_EXTENSION,
        {"encrypted_extensions": with_extensions((GREASE, b""))},
        offer=offer,
    )


def test_ml_kem_of_the_wrong_length() -> None:
    offer = Offer(groups=(0x11EC, X25519), shares=(0x11EC, X25519))
    assert meet(offer=offer, group=0x11EC)
    for size in (0, 1, 32, 1119, 1121, 1216):
        share = uint16(0x11EC) + vector(2, b"\x09" * size)
        number = Alert.ILLEGAL_PARAMETER if size else Alert.DECODE_ERROR
        refuses(
            number,
            {"server_hello": extension(Extension.KEY_SHARE, share)},
            offer=offer,
            group=0x11EC,
        )


@pytest.mark.parametrize(
    "point",
    [
        b"\x04" + bytes(64),
        b"\x04" + b"\x11" * 64,
        b"\x02" + b"\x11" * 64,
        b"\x02" + b"\x11" * 32,
        b"\0",
        b"\x04" + bytes(63),
    ],
)
def test_points_that_are_not_on_the_curve(point: bytes) -> None:
    share = uint16(P256) + vector(2, point)
    refuses(
        Alert.ILLEGAL_PARAMETER,
        {"server_hello": extension(Extension.KEY_SHARE, share)},
        offer=Offer(shares=(P256,)),
        group=P256,
    )
    unsigned = with_fields(older_messages.ServerKeyExchange, point=point)
    refuses(Alert.ILLEGAL_PARAMETER, {"unsigned": unsigned}, version=TLS_1_2, group=P256)


@pytest.mark.parametrize("sentinel", [b"DOWNGRD\x01", b"DOWNGRD\0"])
def test_downgrades(sentinel: bytes) -> None:
    """RFC 8446 §4.1.3. The second one is of TLS 1.1, which a client of TLS 1.2 checks too."""
    changes = {"server_hello": server_hello(random=bytes(24) + sentinel)}
    refuses(Alert.ILLEGAL_PARAMETER, changes, version=TLS_1_2)
    older = {"server_hello": server_hello(random=bytes(24) + sentinel, legacy_version=0x0302)}
    refuses(Alert.ILLEGAL_PARAMETER, older, version=TLS_1_2)
    if sentinel[-1] == 0:
        refuses(Alert.ILLEGAL_PARAMETER, older, version=TLS_1_2, offer=only_1_2())
    else:
        assert meet(random=bytes(24) + sentinel, version=TLS_1_2, offer=only_1_2())


@pytest.mark.parametrize("version", [0x0304, 0x0305, 0x7F1C, 0x0200, GREASE])
def test_versions_that_were_not_offered(version: int) -> None:
    """In the old field, without the extension."""
    refuses(
        Alert.PROTOCOL_VERSION,
        {"server_hello": server_hello(legacy_version=version)},
        version=TLS_1_2,
    )


def test_versions_that_the_list_has_not() -> None:
    refuses(Alert.PROTOCOL_VERSION, version=TLS_1_2, offer=Offer(versions=(TLS_1_3, GREASE)))
    refuses(
        Alert.PROTOCOL_VERSION,
        {"server_hello": server_hello(legacy_version=0x0301)},
        version=TLS_1_2,
    )
    with pytest.raises(CannotBridge):
        meet(
            {"server_hello": server_hello(legacy_version=0x0301)},
            version=TLS_1_2,
            offer=only_1_2(),
        )


# HelloRetryRequest


def retried(
    changes: Changes | None = None,
    *,
    offer: Offer | None = None,
    group: int | None = P256,
    second: Offer | None = None,
    cookie: bytes = b"",
) -> Any:
    """A retry, the second hello, and the flight."""
    replacements = Replacements()
    leg = ServerLeg(relay_hello((offer or Offer()).records(), replacements))
    server = Server13(leg.to_send(), changes)
    server.retry(group, cookie=cookie)
    event = fed(leg, server.taken(), 1)
    assert isinstance(event, Retry)
    relayed = relay_hello((second or Offer(shares=(P256,))).records(), replacements)
    leg.send_retried(relayed)
    server.take_hello(leg.to_send())
    server.send_flight()
    return fed(leg, server.taken(), 1)


def test_a_retry_without_a_fault() -> None:
    assert isinstance(retried(), Flight)
    assert isinstance(retried(cookie=b"x"), Flight)


@pytest.mark.parametrize(
    ("group", "number"),
    [
        (X25519, Alert.ILLEGAL_PARAMETER),
        (0x0018, Alert.ILLEGAL_PARAMETER),
        (GREASE, Alert.ILLEGAL_PARAMETER),
        (None, Alert.ILLEGAL_PARAMETER),
    ],
)
def test_retries_that_change_nothing(group: int | None, number: int) -> None:
    with refused(number):
        retried(group=group, offer=Offer(groups=(X25519, P256, GREASE)))


def test_a_second_retry() -> None:
    def again(whole: bytes) -> bytes:
        return extension(Extension.KEY_SHARE, b"\0\x18")(server_hello(random=RETRY_RANDOM)(whole))

    with refused(Alert.UNEXPECTED_MESSAGE):
        retried({"server_hello": again}, offer=Offer(groups=(X25519, P256, 0x18)))


@pytest.mark.parametrize(
    ("change", "number"),
    [
        (server_hello(cipher_suite=AES_256), Alert.ILLEGAL_PARAMETER),
        (with_extensions(without=(Extension.SUPPORTED_VERSIONS,)), Alert.ILLEGAL_PARAMETER),
        (server_hello(session_id=b""), Alert.ILLEGAL_PARAMETER),
        (
            extension(Extension.KEY_SHARE, uint16(X25519) + vector(2, b"\x09" * 32)),
            Alert.ILLEGAL_PARAMETER,
        ),
    ],
)
def test_a_server_hello_after_a_retry(change: Any, number: int) -> None:
    with refused(number):
        retried({"server_hello": change})


@pytest.mark.parametrize(
    ("change", "number"),
    [
        (cut, Alert.DECODE_ERROR),
        (longer, Alert.DECODE_ERROR),
        (twice, Alert.UNEXPECTED_MESSAGE),
        (lambda whole: whole + b"\x02", Alert.UNEXPECTED_MESSAGE),
        (server_hello(session_id=b""), Alert.ILLEGAL_PARAMETER),
        (server_hello(compression=1), Alert.ILLEGAL_PARAMETER),
        (server_hello(cipher_suite=0x1303), Alert.ILLEGAL_PARAMETER),
        (with_extensions(without=(Extension.SUPPORTED_VERSIONS,)), Alert.MISSING_EXTENSION),
        (with_extensions((Extension.ALPN, b"\0\x03\x02h2")), Alert.ILLEGAL_PARAMETER),
        (with_extensions((UNKNOWN, b"")), Alert.UNSUPPORTED_EXTENSION),
        (with_extensions((Extension.COOKIE, b"\0\0")), Alert.DECODE_ERROR),
        (extension(Extension.KEY_SHARE, b"\0"), Alert.DECODE_ERROR),
        (
            extension(Extension.KEY_SHARE, uint16(P256) + vector(2, bytes(65))),
            Alert.DECODE_ERROR,
        ),
    ],
)
def test_a_retry_request(change: Any, number: int) -> None:
    with refused(number):
        retried({"retry": change})


# EncryptedExtensions


@pytest.mark.parametrize(
    ("items", "number"),
    [
        (((Extension.ALPN, b"\0\x03\x02h3"),), Alert.ILLEGAL_PARAMETER),
        (((Extension.ALPN, b"\0\0"),), Alert.DECODE_ERROR),
        (((Extension.ALPN, b"\0\x01\0"),), Alert.DECODE_ERROR),
        (((Extension.ALPN, b"\0\x06\x02h2\x02h2"),), Alert.DECODE_ERROR),
        (((Extension.ALPN, b"\0\x03\x02h2\0"),), Alert.DECODE_ERROR),
        (((Extension.SERVER_NAME, b"x"),), Alert.DECODE_ERROR),
        (((Extension.KEY_SHARE, b""),), Alert.ILLEGAL_PARAMETER),
        (((Extension.SUPPORTED_VERSIONS, b"\x03\x04"),), Alert.ILLEGAL_PARAMETER),
        (((Extension.SESSION_TICKET, b""),), Alert.ILLEGAL_PARAMETER),
        (((Extension.EXTENDED_MASTER_SECRET, b""),), Alert.ILLEGAL_PARAMETER),
        (((Extension.EC_POINT_FORMATS, b"\x01\0"),), Alert.ILLEGAL_PARAMETER),
        (((Extension.RENEGOTIATION_INFO, b"\0"),), Alert.ILLEGAL_PARAMETER),
        (((Extension.EARLY_DATA, b""),), Alert.UNSUPPORTED_EXTENSION),
        (((UNKNOWN, b""),), Alert.UNSUPPORTED_EXTENSION),
        (((Extension.RECORD_SIZE_LIMIT, b"\0\x3f"),), Alert.ILLEGAL_PARAMETER),
        (((Extension.RECORD_SIZE_LIMIT, b"\x40"),), Alert.DECODE_ERROR),
        (((Extension.MAX_FRAGMENT_LENGTH, b"\x05"),), Alert.ILLEGAL_PARAMETER),
        (
            ((Extension.MAX_FRAGMENT_LENGTH, b"\x01"), (Extension.RECORD_SIZE_LIMIT, b"\x40\0")),
            Alert.ILLEGAL_PARAMETER,
        ),
        (((Extension.SERVER_NAME, b""), (Extension.SERVER_NAME, b"")), Alert.ILLEGAL_PARAMETER),
        (((Extension.APPLICATION_SETTINGS, b"x"),), Alert.ILLEGAL_PARAMETER),
        (
            (
                (Extension.ALPN, b"\0\x03\x02h2"),
                (Extension.APPLICATION_SETTINGS, b"x"),
                (Extension.APPLICATION_SETTINGS_OLD, b"x"),
            ),
            Alert.ILLEGAL_PARAMETER,
        ),
    ],
)
def test_encrypted_extensions(items: Any, number: int) -> None:
    offer = Offer(
        more={
            Extension.RECORD_SIZE_LIMIT: b"\x40\x01",
            Extension.MAX_FRAGMENT_LENGTH: b"\x01",
            Extension.APPLICATION_SETTINGS: b"\0\x03\x02h2",
            Extension.APPLICATION_SETTINGS_OLD: b"\0\x03\x02h2",
        }
    )
    refuses(number, {"encrypted_extensions": with_extensions(*items)}, offer=offer, alpn=None)


def test_records_longer_than_the_client_takes() -> None:
    """RFC 8449 §4: the limit is the client's, and what we pass on is divided anew."""
    change = {"encrypted_extensions": with_extensions((Extension.RECORD_SIZE_LIMIT, b"\x40\x01"))}
    meet(change, offer=Offer(more={Extension.RECORD_SIZE_LIMIT: b"\x40\x01"}), alpn=None)
    offer = Offer(more={Extension.RECORD_SIZE_LIMIT: b"\0\x40"})
    refuses(Alert.RECORD_OVERFLOW, change, offer=offer, alpn=None)


def test_application_protocols_that_were_not_asked_for() -> None:
    refuses(Alert.UNSUPPORTED_EXTENSION, offer=Offer(without=(Extension.ALPN,)))


def test_early_data_that_was_not_agreed() -> None:
    refuses(
        Alert.ILLEGAL_PARAMETER,
        {"encrypted_extensions": with_extensions((Extension.EARLY_DATA, b""))},
        offer=Offer(more={Extension.EARLY_DATA: b""}),
    )


@pytest.mark.parametrize(
    "settings", [Extension.APPLICATION_SETTINGS, Extension.APPLICATION_SETTINGS_OLD]
)
def test_application_settings(settings: int) -> None:
    change = {"encrypted_extensions": with_extensions((settings, b"theirs"))}
    flight = meet(change, offer=Offer(more={settings: b"\0\x03\x02h2"}))
    assert flight.settings == settings
    refuses(Alert.UNSUPPORTED_EXTENSION, change)


# Certificates


REQUEST = message(13, b"\0", vector(2, uint16(13) + vector(2, vector(2, b"\x04\x03"))))


@pytest.mark.parametrize(
    ("change", "number"),
    [
        (with_fields(messages.CertificateRequest, context=b"x"), Alert.DECODE_ERROR),
        (
            with_extensions(without=(Extension.SIGNATURE_ALGORITHMS,)),
            Alert.MISSING_EXTENSION,
        ),
        (extension(Extension.SIGNATURE_ALGORITHMS, b"\0\0"), Alert.DECODE_ERROR),
        (extension(Extension.SIGNATURE_ALGORITHMS, b"\0\x01\x04"), Alert.DECODE_ERROR),
        (extension(Extension.SIGNATURE_ALGORITHMS, b"\0\x02\x04\x03\0"), Alert.DECODE_ERROR),
        (with_extensions((Extension.SIGNATURE_ALGORITHMS, b"")), Alert.ILLEGAL_PARAMETER),
        (with_extensions((Extension.KEY_SHARE, b"")), Alert.ILLEGAL_PARAMETER),
        (with_extensions((Extension.CERTIFICATE_AUTHORITIES, b"\0\0")), Alert.DECODE_ERROR),
    ],
)
def test_a_certificate_request(change: Any, number: int) -> None:
    refuses(number, {"certificate_request": change}, asks=True)


def test_extensions_of_a_request_that_are_not_known_are_ignored() -> None:
    assert meet({"certificate_request": with_extensions((UNKNOWN, b""))}, asks=True)


@pytest.mark.parametrize(
    ("change", "number"),
    [
        (with_fields(messages.Certificate, entries=()), Alert.DECODE_ERROR),
        (with_fields(messages.Certificate, context=b"x"), Alert.DECODE_ERROR),
        (instead(message(11, b"\0", vector(3, vector(3, b""), b"\0\0"))), Alert.DECODE_ERROR),
        (instead(message(11, b"\0", vector(3, vector(3, b"x")))), Alert.DECODE_ERROR),
        (with_extensions((Extension.STATUS_REQUEST, b"")), Alert.UNSUPPORTED_EXTENSION),
        (with_extensions((UNKNOWN, b"")), Alert.UNSUPPORTED_EXTENSION),
        (with_extensions((Extension.ALPN, b"\0\x03\x02h2")), Alert.ILLEGAL_PARAMETER),
        (
            with_extensions((Extension.ALPN, b""), (Extension.ALPN, b"")),
            Alert.ILLEGAL_PARAMETER,
        ),
    ],
)
def test_a_certificate(change: Any, number: int) -> None:
    refuses(number, {"certificate": change})


@pytest.mark.parametrize("body", [b"", b"\x01", b"\x01\0\0\0", b"\x01\0\0\x02x"])
def test_staples_that_are_malformed(body: bytes) -> None:
    offer = Offer(more={Extension.STATUS_REQUEST: b"\x01\0\0\0\0"})
    change = with_extensions((Extension.STATUS_REQUEST, body))
    refuses(Alert.DECODE_ERROR, {"certificate": change}, offer=offer)


@pytest.mark.parametrize("body", [b"", b"x", bytes(40)])
def test_delegated_credentials_that_are_malformed(body: bytes) -> None:
    change = with_extensions((Extension.DELEGATED_CREDENTIAL, body))
    refuses(Alert.UNSUPPORTED_EXTENSION, {"certificate": change})
    offer = Offer(more={Extension.DELEGATED_CREDENTIAL: b"\0\x02\x04\x03"})
    refuses(Alert.DECODE_ERROR, {"certificate": change}, offer=offer)


def test_delegated_credentials() -> None:
    """Their key signs the handshake, with their scheme."""
    leaf_key = a_key()
    valid = made(leaf_key=leaf_key, leaf=a_leaf(leaf_key))
    extensions = RawExtensions(((Extension.DELEGATED_CREDENTIAL, valid.body),))
    given: Any = {
        "changes": {
            "certificate": with_fields(messages.Certificate, entries=((valid.leaf, extensions),))
        },
        "offer": Offer(
            schemes=(ECDSA_P256, ED25519), more={Extension.DELEGATED_CREDENTIAL: b"\0\x02\x08\x07"}
        ),
    }
    assert meet(scheme=ED25519, key=valid.key, **given).chain == (valid.leaf,)
    refuses(Alert.ILLEGAL_PARAMETER, scheme=ECDSA_P256, key=leaf_key, **given)
    refuses(Alert.DECRYPT_ERROR, scheme=ED25519, key=Ed25519PrivateKey.generate(), **given)


def test_delegated_credentials_that_are_not_known_are_left_to_openssl() -> None:
    """A certificate that is not to be read is no violation of the protocol."""
    credential = bytes(4) + b"\x04\x03" + vector(3, b"spki") + b"\x04\x03" + vector(2, b"x")
    leaf = RawExtensions(((Extension.DELEGATED_CREDENTIAL, credential),))
    entries = ((b"no certificate", leaf),)
    change = with_fields(messages.Certificate, entries=entries)
    offer = Offer(more={Extension.DELEGATED_CREDENTIAL: b"\0\x02\x04\x03"})
    with pytest.raises(CannotBridge):
        meet({"certificate": change}, offer=offer)


@pytest.mark.parametrize("version", [TLS_1_3, TLS_1_2])
@pytest.mark.parametrize("kind", CERTIFICATE_TYPES)
def test_keys_without_a_certificate_are_left_to_the_two_ends(kind: int, version: int) -> None:
    """RFC 7250: OpenSSL does not offer the types, and would get a certificate."""
    offer = replace(Offer() if version == TLS_1_3 else only_1_2(), more={kind: b"\2\2\0"})
    message = "encrypted_extensions" if version == TLS_1_3 else "server_hello"
    chosen = {body: {message: with_extensions((kind, body))} for body in (b"\0", b"\2")}
    with pytest.raises(StaysClosed):
        meet(chosen[b"\2"], version=version, offer=offer)
    flight = meet(chosen[b"\0"], version=version, offer=offer)
    answers = flight.extensions or flight.hello
    assert answers.extensions.get(kind) == b"\0"


@pytest.mark.parametrize(
    ("version", "name"),
    [
        (TLS_1_3, "server_hello"),
        (TLS_1_3, "retry"),
        (TLS_1_3, "encrypted_extensions"),
        (TLS_1_2, "server_hello"),
    ],
)
def test_answers_that_nobody_knows_are_left_to_the_two_ends(version: int, name: str) -> None:
    offer = replace(Offer() if version == TLS_1_3 else only_1_2(), more={UNKNOWN: b""})
    changes = {name: with_extensions((UNKNOWN, b""))}
    leg = leg_of(offer)
    make: Any = Server13 if version == TLS_1_3 else Server12
    server = make(leg.to_send(), changes)
    server.retry() if name == "retry" else server.send_flight()
    with pytest.raises(StaysClosed, match=f"extension {UNKNOWN}"):
        fed(leg, server.taken(), 1 << 20)


@pytest.mark.parametrize(
    ("version", "name", "kind", "body"),
    [
        (TLS_1_3, "encrypted_extensions", Extension.CHANNEL_ID, b""),
        (TLS_1_2, "server_hello", Extension.NEXT_PROTOCOL, b"\2h2"),
    ],
)
def test_answers_that_openssl_goes_on_without(
    version: int, name: str, kind: int, body: bytes
) -> None:
    offer = replace(Offer() if version == TLS_1_3 else only_1_2(), more={kind: b""})
    with pytest.raises(CannotBridge) as reason:
        meet({name: with_extensions((kind, body))}, version=version, offer=offer)
    assert not isinstance(reason.value, StaysClosed)


def test_certificates_that_cannot_be_read_are_left_to_openssl() -> None:
    der, _ = own_certificate("ec-p256")
    unknown_version = der.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x05")
    for broken_der in (b"x", der[:-1], unknown_version):
        assert broken_der != der
        entries = ((broken_der, RawExtensions()),)
        with pytest.raises(CannotBridge):
            meet({"certificate": with_fields(messages.Certificate, entries=entries)})


def compressed(data: bytes, length: int, algorithm: int = 1) -> Any:
    return instead(messages.CompressedCertificate(algorithm, length, data).encode())


def test_compressed_certificates() -> None:
    der, _ = own_certificate("ec-p256")
    body = messages.Certificate(b"", ((der, RawExtensions()),)).body
    packed = zlib.compress(body)
    offer = Offer(more={Extension.COMPRESS_CERTIFICATE: b"\x02\0\x01"})
    assert meet({"certificate": compressed(packed, len(body))}, offer=offer).compression == 1

    def is_refused(number: int, change: Any) -> None:
        refuses(number, {"certificate": change}, offer=offer)

    is_refused(Alert.BAD_CERTIFICATE, compressed(packed, len(body) - 1))
    is_refused(Alert.BAD_CERTIFICATE, compressed(packed, len(body) + 1))
    is_refused(Alert.BAD_CERTIFICATE, compressed(packed[:-1], len(body)))
    is_refused(Alert.BAD_CERTIFICATE, compressed(packed + b"x", len(body)))
    is_refused(Alert.BAD_CERTIFICATE, compressed(packed, 0))
    is_refused(Alert.BAD_CERTIFICATE, compressed(b"garbage", 10))
    is_refused(Alert.BAD_CERTIFICATE, compressed(zlib.compress(bytes(1 << 23)), (1 << 24) - 1))
    is_refused(Alert.BAD_CERTIFICATE, compressed(zlib.compress(bytes(1 << 23)), 100))
    is_refused(Alert.DECODE_ERROR, compressed(b"", len(body)))
    is_refused(Alert.ILLEGAL_PARAMETER, compressed(packed, len(body), 2))
    refuses(Alert.UNEXPECTED_MESSAGE, {"certificate": compressed(packed, len(body))})


# CertificateVerify, Finished


@pytest.mark.parametrize(
    ("change", "number"),
    [
        (broken, Alert.DECRYPT_ERROR),
        (with_fields(messages.CertificateVerify, signature=b""), Alert.DECRYPT_ERROR),
        (with_fields(messages.CertificateVerify, scheme=RSA_PSS), Alert.ILLEGAL_PARAMETER),
        (with_fields(messages.CertificateVerify, scheme=RSA_PKCS1), Alert.ILLEGAL_PARAMETER),
        (with_fields(messages.CertificateVerify, scheme=0x0503), Alert.ILLEGAL_PARAMETER),
        (with_fields(messages.CertificateVerify, scheme=0x0203), Alert.ILLEGAL_PARAMETER),
        (with_fields(messages.CertificateVerify, scheme=UNKNOWN), Alert.ILLEGAL_PARAMETER),
    ],
)
def test_signatures(change: Any, number: int) -> None:
    offer = Offer(schemes=(ECDSA_P256, RSA_PSS, RSA_PKCS1, 0x0203))
    refuses(number, {"certificate_verify": change}, offer=offer)


def test_pkcs_1_does_not_sign_a_handshake_of_tls_1_3() -> None:
    refuses(Alert.ILLEGAL_PARAMETER, kind="rsa", scheme=RSA_PKCS1)
    assert meet(kind="rsa", scheme=RSA_PSS)


def test_a_key_of_another_curve() -> None:
    refuses(
        Alert.ILLEGAL_PARAMETER,
        kind="ec-p384",
        scheme=ECDSA_P256,
        offer=Offer(schemes=(ECDSA_P256,)),
    )


def test_finished() -> None:
    refuses(Alert.DECRYPT_ERROR, {"finished": broken})
    refuses(Alert.DECRYPT_ERROR, {"finished": instead(FINISHED)})
    for size in (0, 12, 31, 33, 48):
        refuses(Alert.DECODE_ERROR, {"finished": instead(message(20, bytes(size)))})


# Sessions


def psk(known: Ticket | None, *identities: bytes, **more: Any) -> Offer:
    size = len(known.server_secret) if known else 32
    return Offer(more={Extension.PRE_SHARED_KEY: psk_offer(*identities, binder_bytes=size)}, **more)


def test_a_session_that_is_resumed() -> None:
    known = ticket()
    flight = meet(offer=psk(known, TICKET), known=known, psk=(0, known.server_secret))
    assert flight.ticket == known


def test_sessions_that_were_not_offered() -> None:
    known = ticket()
    refuses(
        Alert.ILLEGAL_PARAMETER,
        offer=psk(known, TICKET),
        known=known,
        psk=(1, known.server_secret),
    )
    other = ticket(suite=0x1302)
    # The binder's length is the hash's, so this one is not told from one of SHA-256.
    refuses(
        Alert.ILLEGAL_PARAMETER,
        offer=psk(other, TICKET),
        known=other,
        psk=(0, other.server_secret),
    )


def test_a_random_session_cannot_be_resumed() -> None:
    with pytest.raises(CannotBridge, match="not known"):
        meet(offer=psk(None, TICKET), psk=(0, bytes(32)))


def test_a_session_without_a_key_exchange() -> None:
    known = ticket()
    changes = {"server_hello": with_extensions(without=(Extension.KEY_SHARE,))}
    refuses(
        Alert.MISSING_EXTENSION,
        changes,
        offer=psk(known, TICKET),
        known=known,
        psk=(0, known.server_secret),
    )


def test_certificates_in_a_resumed_session() -> None:
    known = ticket()
    for kind in (11, 13):
        refuses(
            Alert.UNEXPECTED_MESSAGE,
            {"before:finished": records((HANDSHAKE, message(kind, bytes(4))))},
            offer=psk(known, TICKET),
            known=known,
            psk=(0, known.server_secret),
        )


# TLS 1.2


def meet_1_2(
    changes: Changes | None = None,
    *,
    size: int = 1,
    offer: Offer | None = None,
    known: Ticket | None = None,
    **options: Any,
) -> Any:
    """To the end of the handshake."""
    leg = leg_of(offer, known)
    server = Server12(leg.to_send(), changes, **options)
    server.send_flight()
    event = fed(leg, server.taken(), size)
    if not isinstance(event, Flight):
        return event
    leg.finish()
    server.take_answer(leg.to_send())
    if not event.ticket:
        server.send_finished()
        event = fed(leg, server.taken(), size)
    return event


def refuses_1_2(number: int, changes: Changes | None = None, **options: Any) -> None:
    for size in (1 << 20, 1):
        with refused(number):
            meet_1_2(changes, size=size, **options)


MESSAGES_1_2 = [
    "server_hello",
    "certificate",
    "certificate_status",
    "server_key_exchange",
    "certificate_request",
    "server_hello_done",
    "new_session_ticket",
    "finished",
]
ALL: Any = {
    "staple": b"response",
    "asks": True,
    "offer": Offer(more={Extension.STATUS_REQUEST: b"\x01\0\0\0\0"}),
}


@pytest.mark.parametrize("fragment_bytes", [1, 50, 1 << 14])
def test_a_handshake_of_tls_1_2_without_a_fault(fragment_bytes: int) -> None:
    assert isinstance(meet_1_2(fragment_bytes=fragment_bytes, **ALL), ServerFinished)
    assert isinstance(meet_1_2(extended=False), ServerFinished)
    assert isinstance(meet_1_2(offer=only_1_2()), ServerFinished)
    rsa: Any = {"suite": ECDHE_RSA, "kind": "rsa"}
    assert isinstance(meet_1_2(scheme=RSA_PSS, **rsa), ServerFinished)
    assert isinstance(meet_1_2(scheme=RSA_PKCS1, **rsa), ServerFinished)


@pytest.mark.parametrize("name", MESSAGES_1_2)
def test_messages_of_tls_1_2_that_are_cut_or_longer(name: str) -> None:
    if name != "server_hello_done":
        refuses_1_2(Alert.DECODE_ERROR, {name: cut}, **ALL)
    refuses_1_2(Alert.DECODE_ERROR, {name: longer}, **ALL)


@pytest.mark.parametrize("name", MESSAGES_1_2[:-1])
def test_messages_of_tls_1_2_that_come_twice(name: str) -> None:
    refuses_1_2(Alert.UNEXPECTED_MESSAGE, {name: twice}, **ALL)


@pytest.mark.parametrize("name", ["certificate", "server_key_exchange", "new_session_ticket"])
def test_messages_of_tls_1_2_that_are_left_out(name: str) -> None:
    refuses_1_2(Alert.UNEXPECTED_MESSAGE, {name: left_out}, **ALL)


@pytest.mark.parametrize("name", MESSAGES_1_2)
def test_records_of_another_type_in_tls_1_2(name: str) -> None:
    changes = {f"before:{name}": records((DATA, b"x"))}
    refuses_1_2(Alert.UNEXPECTED_MESSAGE, changes, **ALL)
    changes = {f"before:{name}": records((HANDSHAKE, message(0)))}
    refuses_1_2(Alert.UNEXPECTED_MESSAGE, changes, **ALL)


@pytest.mark.parametrize("name", MESSAGES_1_2[:-1])
def test_change_cipher_spec_too_early(name: str) -> None:
    """CVE-2014-0224."""
    refuses_1_2(Alert.UNEXPECTED_MESSAGE, {f"before:{name}": raw(CHANGE_CIPHER_SPEC)}, **ALL)


def test_change_cipher_spec_in_tls_1_2() -> None:
    for content in (b"", b"\x02", b"\x01\x01"):
        other = plain(RecordType.CHANGE_CIPHER_SPEC, content)
        refuses_1_2(Alert.UNEXPECTED_MESSAGE, {"change_cipher_spec": instead(other)})
    refuses_1_2(Alert.UNEXPECTED_MESSAGE, {"change_cipher_spec": instead(b"")})
    refuses_1_2(Alert.BAD_RECORD_MAC, {"change_cipher_spec": twice})
    second = records((RecordType.CHANGE_CIPHER_SPEC, b"\x01"))
    refuses_1_2(Alert.UNEXPECTED_MESSAGE, {"before:finished": second})
    ticket_across: Any = {"new_session_ticket": lambda whole: whole + b"\x14\0\0"}
    refuses_1_2(Alert.UNEXPECTED_MESSAGE, ticket_across)
    refuses_1_2(
        Alert.UNEXPECTED_MESSAGE, {"before:fragment": raw(CHANGE_CIPHER_SPEC)}, fragment_bytes=30
    )


@pytest.mark.parametrize(
    ("change", "number"),
    [
        (server_hello(cipher_suite=0xC02C), Alert.ILLEGAL_PARAMETER),
        (server_hello(cipher_suite=0x1301), Alert.ILLEGAL_PARAMETER),
        (server_hello(cipher_suite=0xC013), Alert.ILLEGAL_PARAMETER),
        (server_hello(compression=1), Alert.ILLEGAL_PARAMETER),
        (server_hello(session_id=bytes(33)), Alert.DECODE_ERROR),
        (with_extensions((Extension.RENEGOTIATION_INFO, b"\0")), Alert.ILLEGAL_PARAMETER),
        (extension(Extension.RENEGOTIATION_INFO, b"\x01x"), Alert.HANDSHAKE_FAILURE),
        (extension(Extension.RENEGOTIATION_INFO, b""), Alert.DECODE_ERROR),
        (extension(Extension.EXTENDED_MASTER_SECRET, b"x"), Alert.DECODE_ERROR),
        (extension(Extension.SESSION_TICKET, b"x"), Alert.DECODE_ERROR),
        (with_extensions((Extension.ALPN, b"\0\x03\x02h3")), Alert.ILLEGAL_PARAMETER),
        (with_extensions((Extension.ALPN, b"\0\0")), Alert.DECODE_ERROR),
        (with_extensions((UNKNOWN, b"")), Alert.UNSUPPORTED_EXTENSION),
        (with_extensions((Extension.KEY_SHARE, b"")), Alert.ILLEGAL_PARAMETER),
        (with_extensions((Extension.EC_POINT_FORMATS, b"\x01\x01")), Alert.ILLEGAL_PARAMETER),
        (with_extensions((Extension.ENCRYPT_THEN_MAC, b"")), Alert.UNSUPPORTED_EXTENSION),
    ],
)
def test_a_server_hello_of_tls_1_2(change: Any, number: int) -> None:
    refuses_1_2(number, {"server_hello": change})


def test_a_session_id_of_ours_is_no_session() -> None:
    def echoed(whole: bytes) -> bytes:
        hello = leg.hello.session_id
        return server_hello(session_id=hello)(whole)

    leg = leg_of()
    server = Server12(leg.to_send(), {"server_hello": echoed})
    server.send_flight()
    with refused(Alert.ILLEGAL_PARAMETER):
        fed(leg, server.taken(), 1)


@pytest.mark.parametrize(
    ("change", "number"),
    [
        (with_fields(older_messages.ServerKeyExchange, group=0x0018), Alert.ILLEGAL_PARAMETER),
        (with_fields(older_messages.ServerKeyExchange, group=GREASE), Alert.ILLEGAL_PARAMETER),
        (with_fields(older_messages.ServerKeyExchange, point=b"x" * 31), Alert.ILLEGAL_PARAMETER),
        (with_fields(older_messages.ServerKeyExchange, point=bytes(32)), Alert.ILLEGAL_PARAMETER),
    ],
)
def test_groups_and_points_of_tls_1_2(change: Any, number: int) -> None:
    """They are signed, and nothing is sent to the server before they are checked."""
    refuses(number, {"unsigned": change}, version=TLS_1_2)


@pytest.mark.parametrize(
    ("change", "number"),
    [
        (broken, Alert.DECRYPT_ERROR),
        (with_fields(older_messages.ServerKeyExchange, scheme=RSA_PSS), Alert.ILLEGAL_PARAMETER),
        (with_fields(older_messages.ServerKeyExchange, scheme=0x0503), Alert.ILLEGAL_PARAMETER),
        (with_fields(older_messages.ServerKeyExchange, scheme=UNKNOWN), Alert.ILLEGAL_PARAMETER),
        (lambda whole: whole[:4] + b"\x01" + whole[5:], Alert.ILLEGAL_PARAMETER),
    ],
)
def test_signatures_of_tls_1_2(change: Any, number: int) -> None:
    refuses_1_2(number, {"server_key_exchange": change})


@pytest.mark.parametrize("unlisted", [Extension.SUPPORTED_GROUPS, Extension.SIGNATURE_ALGORITHMS])
def test_clients_that_list_no_groups_or_schemes_are_left_to_openssl(unlisted: int) -> None:
    offer = only_1_2()
    with pytest.raises(CannotBridge, match="without groups"):
        meet_1_2(offer=replace(offer, without=(*offer.without, unlisted)))


def test_keys_of_another_kind_than_the_suites() -> None:
    refuses_1_2(Alert.ILLEGAL_PARAMETER, kind="rsa", scheme=RSA_PSS)
    refuses_1_2(Alert.ILLEGAL_PARAMETER, suite=ECDHE_RSA)


def test_messages_of_tls_1_2_that_were_not_asked_for() -> None:
    status = older_messages.CertificateStatus(b"x").encode()
    refuses_1_2(
        Alert.UNEXPECTED_MESSAGE,
        {"before:server_key_exchange": records((HANDSHAKE, status))},
    )
    sent = older_messages.NewSessionTicket12(0, b"x").encode()
    refuses_1_2(
        Alert.UNEXPECTED_MESSAGE,
        {"before:change_cipher_spec": records((HANDSHAKE, sent))},
        ticket=None,
    )
    refuses_1_2(Alert.UNSUPPORTED_EXTENSION, offer=Offer(without=(Extension.SESSION_TICKET,)))
    refuses_1_2(Alert.DECODE_ERROR, {"certificate": instead(message(11, bytes(3)))})


def test_finished_of_tls_1_2() -> None:
    refuses_1_2(Alert.DECRYPT_ERROR, {"finished": broken})
    refuses_1_2(Alert.UNEXPECTED_MESSAGE, {"finished": twice})
    refuses_1_2(Alert.UNEXPECTED_MESSAGE, {"finished": lambda whole: whole + b"\0"})
    refuses_1_2(Alert.UNEXPECTED_MESSAGE, {"finished": twice}, **session())
    for size in (0, 11, 13, 32):
        refuses_1_2(Alert.DECODE_ERROR, {"finished": instead(message(20, bytes(size)))})


def test_alerts_of_tls_1_2() -> None:
    for name in MESSAGES_1_2:
        fatal = records((RecordType.ALERT, bytes([2, Alert.HANDSHAKE_FAILURE])))
        assert meet_1_2({f"before:{name}": fatal}, **ALL) == PeerAlert(Alert.HANDSHAKE_FAILURE)
        warning = (RecordType.ALERT, bytes([1, Alert.UNRECOGNIZED_NAME]))
        assert isinstance(meet_1_2({f"before:{name}": records(warning)}, **ALL), ServerFinished)
        refuses_1_2(Alert.UNEXPECTED_MESSAGE, {f"before:{name}": records(*[warning] * 9)}, **ALL)


def session(**more: Any) -> Any:
    known = ticket(TLS_1_2, 0xC02B, **{"extended": True, **more})
    return {
        "known": known,
        "offer": Offer(more={Extension.SESSION_TICKET: TICKET}),
        "master": known.server_secret,
    }


def test_a_session_of_tls_1_2_that_is_resumed() -> None:
    assert meet_1_2(**session()).ticket
    assert meet_1_2(ticket=None, **session()).ticket


def test_sessions_of_tls_1_2_that_do_not_fit() -> None:
    """RFC 7627 §5.3."""
    refuses_1_2(Alert.HANDSHAKE_FAILURE, extended=False, **session())
    refuses_1_2(Alert.HANDSHAKE_FAILURE, **session(extended=False))
    refuses_1_2(
        Alert.ILLEGAL_PARAMETER, {"server_hello": server_hello(cipher_suite=ECDHE_RSA)}, **session()
    )
    refuses_1_2(Alert.DECRYPT_ERROR, {"finished": broken}, **session())
    refuses_1_2(Alert.BAD_RECORD_MAC, **{**session(), "master": bytes(47) + b"x"})


def test_a_session_without_an_id_is_not_resumed() -> None:
    """Whether it is, would be told by the next message alone (RFC 5077 §3.4)."""
    known = session()["known"]
    offer = Offer(more={Extension.SESSION_TICKET: TICKET}, session_id=b"")
    assert isinstance(meet_1_2(offer=offer, known=known), ServerFinished)
    assert leg_of(offer, known).hello.older_ticket is None
