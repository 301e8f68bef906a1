"""We are the server: what a client must not do is refused with the alert that RFC 8446 and RFC 5246
name, or BoringSSL where they leave it open."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from mitml4.crypto.records import protection_1_3
from mitml4.crypto.schedule import Schedule, finished
from mitml4.protocols.tls.alerts import Alert, TlsError
from mitml4.protocols.tls.hello import RETRY_RANDOM, Extension
from mitml4.protocols.tls.records import HandshakeType, RecordType
from mitml4.tls.bridge import messages, older_messages
from mitml4.tls.bridge.client_leg import ClientLeg
from mitml4.tls.bridge.extensions import RawExtensions
from mitml4.tls.bridge.flight import ClientFinished, Flight, SecondHello
from mitml4.tls.bridge.hello import RelayedHello, Replacements, relay_hello
from mitml4.tls.bridge.leg import PeerAlert
from mitml4.tls.bridge.older import Older
from mitml4.tls.bridge.psks import binder_input
from mitml4.tls.bridge.tickets import Ticket
from mitml4.tls.bridge.wire import message, uint16, vector
from tests.tls.bridge.peers import shown
from tests.tls.bridge.scripted import (
    AES_128,
    CHANGE_CIPHER_SPEC,
    ECDHE_ECDSA,
    P256,
    TLS_1_2,
    TLS_1_3,
    X25519,
    Changes,
    Client12,
    Client13,
    Offer,
    alert,
    broken,
    cut,
    found_suite,
    instead,
    left_out,
    longer,
    only_1_2,
    plain,
    psk_offer,
    raw,
    records,
    twice,
    with_fields,
)
from tests.tls.bridge.test_hostile_servers import TICKET, fed, refused, ticket

HANDSHAKE, DATA = RecordType.HANDSHAKE, RecordType.APPLICATION_DATA


def relayed(offer: Offer, known: Ticket | None = None) -> RelayedHello:
    return relay_hello(offer.records(), Replacements(), find_ticket=lambda _: known)


def flight_of(
    hello: RelayedHello,
    *,
    group: int = X25519,
    extensions: tuple[tuple[int, bytes], ...] = (),
    known: Ticket | None = None,
) -> Flight:
    """What a server of TLS 1.3 has answered."""
    chosen = [
        (int(Extension.SUPPORTED_VERSIONS), uint16(TLS_1_3)),
        (int(Extension.KEY_SHARE), uint16(group) + vector(2, b"theirs")),
    ]
    if known:
        chosen.append((Extension.PRE_SHARED_KEY, b"\0\0"))
    return Flight(
        hello=messages.ServerHello(
            random=bytes(32),
            session_id=hello.session_id,
            cipher_suite=AES_128,
            extensions=RawExtensions(tuple(chosen)),
        ),
        extensions=messages.EncryptedExtensions(RawExtensions(extensions)),
        suite=found_suite(AES_128),
        group=group,
        ticket=known,
    )


def answered(
    changes: Changes | None = None,
    *,
    offer: Offer | None = None,
    settings: tuple[int | None, int | None] = (None, None),
    before: bytes = b"",
    size: int = 1 << 20,
    **options: Any,
) -> Any:
    """What the leg makes of a client's answer. `settings`: the extension that the server has chosen
    for them, and the one that the client answers; `before`: what the client sends ahead."""
    hello = relayed(offer or Offer())
    leg = ClientLeg(hello)
    extensions = ((settings[0], b"theirs"),) if settings[0] else ()
    leg.send_flight(flight_of(hello, extensions=extensions), shown())
    client = Client13(hello.received, changes, **options)
    client.take_flight(leg.to_send())
    client.send_answer(settings[1])
    return fed(leg, before + client.taken(), size)


def always(script: bytes, _: bytes) -> bytes:
    return script


def refuses(number: int, changes: Changes | None = None, **options: Any) -> None:
    """Whole and byte by byte."""
    for size in (1 << 20, 1):
        with refused(number):
            answered(changes, size=size, **options)


# TLS 1.3


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
@pytest.mark.parametrize("fragment_bytes", [1, 1 << 14])
def test_a_handshake_without_a_fault(size: int, fragment_bytes: int) -> None:
    assert answered(size=size, fragment_bytes=fragment_bytes) == ClientFinished(b"")


def test_finished() -> None:
    refuses(Alert.DECRYPT_ERROR, {"finished": broken})
    refuses(Alert.UNEXPECTED_MESSAGE, {"finished": twice})
    refuses(Alert.UNEXPECTED_MESSAGE, {"finished": lambda whole: whole + b"\x18\0\0"})
    for change in (cut, longer):
        refuses(Alert.DECODE_ERROR, {"finished": change})
    for size in (0, 12, 31, 33, 48):
        refuses(Alert.DECODE_ERROR, {"finished": instead(message(20, bytes(size)))})


@pytest.mark.parametrize("kind", [0, 1, 2, 4, 5, 8, 11, 13, 14, 15, 16, 22, 24, 25, 254])
def test_other_messages_than_finished(kind: int) -> None:
    """A certificate that nobody has asked for, EndOfEarlyData, KeyUpdate, another hello, …"""
    refuses(Alert.UNEXPECTED_MESSAGE, {"finished": instead(message(kind, bytes(4)))})
    refuses(
        Alert.UNEXPECTED_MESSAGE, {"before:finished": records((HANDSHAKE, message(kind, b"\0")))}
    )


def test_data_before_finished() -> None:
    refuses(Alert.UNEXPECTED_MESSAGE, {"before:finished": records((DATA, b"data"))})
    refuses(
        Alert.UNEXPECTED_MESSAGE,
        {"before:fragment": records((DATA, b"data"))},
        fragment_bytes=10,
    )


def test_change_cipher_spec() -> None:
    """RFC 8446 §5: dropped, if it is plaintext and has the one content."""
    assert answered({"change_cipher_spec": lambda each: each * 3})
    assert answered({"change_cipher_spec": left_out})
    for content in (b"", b"\x02", b"\x01\x01"):
        other = plain(RecordType.CHANGE_CIPHER_SPEC, content)
        refuses(Alert.UNEXPECTED_MESSAGE, {"change_cipher_spec": instead(other)})
    inside = records((RecordType.CHANGE_CIPHER_SPEC, b"\x01"))
    refuses(Alert.UNEXPECTED_MESSAGE, {"before:finished": inside})
    refuses(Alert.UNEXPECTED_MESSAGE, {"change_cipher_spec": lambda each: each * 40})
    refuses(
        Alert.UNEXPECTED_MESSAGE, {"before:fragment": raw(CHANGE_CIPHER_SPEC)}, fragment_bytes=10
    )


def test_records() -> None:
    where = "before:finished"
    refuses(Alert.BAD_RECORD_MAC, {where: raw(plain(DATA, bytes(40)))})
    refuses(Alert.BAD_RECORD_MAC, {where: raw(plain(DATA, b""))})
    refuses(Alert.UNEXPECTED_MESSAGE, {where: raw(plain(HANDSHAKE, message(20, bytes(32))))})
    refuses(Alert.UNEXPECTED_MESSAGE, {where: records((HANDSHAKE, b""))})
    refuses(Alert.UNEXPECTED_MESSAGE, {where: records((RecordType.ALERT, b""))})
    refuses(Alert.UNEXPECTED_MESSAGE, {where: records((RecordType.HEARTBEAT, b"x"))})
    refuses(Alert.RECORD_OVERFLOW, {where: raw(b"\x17\x03\x03" + uint16((1 << 14) + 257))})
    refuses(Alert.RECORD_OVERFLOW, {where: records((HANDSHAKE, bytes((1 << 14) + 1)))})
    refuses(Alert.PROTOCOL_VERSION, {where: raw(b"\x17\x03\x01\0\x20")})
    refuses(Alert.UNEXPECTED_MESSAGE, {where: raw(plain(99, b"x"))})
    refuses(Alert.ILLEGAL_PARAMETER, {"finished": instead(b"\x14\xff\xff\xff")})


def test_alerts() -> None:
    for number in (Alert.UNKNOWN_CA, Alert.CLOSE_NOTIFY):
        for level in (1, 2):
            sent = records((RecordType.ALERT, bytes([level, number])))
            assert answered({"before:finished": sent}) == PeerAlert(number)
            # A client without keys: it could not read the ServerHello.
            for version in (0x0301, TLS_1_2):
                ahead = plain(RecordType.ALERT, bytes([level, number]), version)
                assert answered(before=ahead) == PeerAlert(number)
    canceled = (RecordType.ALERT, bytes([1, Alert.USER_CANCELED]))
    assert answered({"before:finished": records(canceled)}) == ClientFinished(b"")
    refuses(Alert.UNEXPECTED_MESSAGE, {"before:finished": records(*[canceled] * 9)})
    for content in (b"\x02", b"\x02\x28\x02\x28"):
        refuses(Alert.DECODE_ERROR, {"before:finished": records((RecordType.ALERT, content))})
    plaintext_behind = records((RecordType.ALERT, bytes([1, Alert.USER_CANCELED])))
    script = plaintext_behind(b"") + raw(alert(2, Alert.UNKNOWN_CA))(b"")
    refuses(Alert.UNEXPECTED_MESSAGE, {"before:finished": lambda _: script})


NEW, OLD = Extension.APPLICATION_SETTINGS, Extension.APPLICATION_SETTINGS_OLD


@pytest.mark.parametrize("settings", [NEW, OLD])
def test_application_settings(settings: int) -> None:
    offer = Offer(more={settings: b"\0\x03\x02h2"})

    def refuses_settings(number: int, changes: Changes | None, answer: int | None) -> None:
        refuses(number, changes, offer=offer, settings=(settings, answer))

    event = answered(offer=offer, settings=(settings, settings))
    assert messages.EncryptedExtensions.parse(event.settings[4:]).extensions.get(settings)
    refuses_settings(Alert.UNEXPECTED_MESSAGE, None, None)
    refuses_settings(Alert.UNSUPPORTED_EXTENSION, None, NEW if settings == OLD else OLD)
    refuses_settings(
        Alert.MISSING_EXTENSION, {"encrypted_extensions": instead(message(8, b"\0\0"))}, settings
    )
    refuses_settings(Alert.UNEXPECTED_MESSAGE, {"encrypted_extensions": twice}, settings)
    refuses_settings(Alert.DECODE_ERROR, {"encrypted_extensions": cut}, settings)
    refuses_settings(Alert.DECODE_ERROR, {"encrypted_extensions": longer}, settings)


def test_application_settings_that_were_not_agreed() -> None:
    refuses(Alert.UNEXPECTED_MESSAGE, settings=(None, NEW))


# Early data


EARLY = Offer(more={Extension.EARLY_DATA: b""})


def early_records(count: int, size: int = 1 << 10) -> bytes:
    """Records under a key that we do not have."""
    seals = protection_1_3(found_suite(AES_128), bytes(32))
    return b"".join(seals.seal(DATA, bytes(size)) for _ in range(count))


def test_early_data_is_skipped() -> None:
    assert answered(offer=EARLY, before=early_records(1)) == ClientFinished(b"")
    assert answered(offer=EARLY, before=early_records(120)) == ClientFinished(b"")


def test_too_much_early_data() -> None:
    refuses(Alert.UNEXPECTED_MESSAGE, offer=EARLY, before=early_records(130))
    refuses(Alert.UNEXPECTED_MESSAGE, offer=EARLY, before=early_records(1 << 14, 0))


def test_early_data_that_was_not_offered() -> None:
    refuses(Alert.BAD_RECORD_MAC, before=early_records(1))


def test_early_data_behind_the_first_record_that_can_be_read() -> None:
    for where in ("before:finished", "after:flight"):
        canceled = records((RecordType.ALERT, bytes([1, Alert.USER_CANCELED])))(b"")
        script = canceled + raw(early_records(1))(b"")
        if where == "before:finished":
            refuses(Alert.BAD_RECORD_MAC, {where: partial(always, script)}, offer=EARLY)


# The second hello


def retried(
    second: Offer | bytes,
    *,
    first: Offer | None = None,
    group: int | None = P256,
    before: bytes = b"",
    size: int = 1,
    changes: Changes | None = None,
) -> Any:
    """A retry, the client's second hello, and its answer."""
    replacements = Replacements()
    offer = first or Offer()
    hello = relay_hello(offer.records(), replacements)
    leg = ClientLeg(hello)
    wanted = [(int(Extension.SUPPORTED_VERSIONS), uint16(TLS_1_3))]
    if group is not None:
        wanted.append((int(Extension.KEY_SHARE), uint16(group)))
    leg.send_retry(
        messages.ServerHello(
            random=RETRY_RANDOM,
            session_id=hello.session_id,
            cipher_suite=AES_128,
            extensions=RawExtensions((*wanted, (Extension.COOKIE, b"\0\x01x"))),
        )
    )
    client = Client13(hello.received, changes)
    client.take_retry(leg.to_send())
    client.send_hello(second if isinstance(second, bytes) else second.message())
    event = fed(leg, before + client.taken(), size)
    assert isinstance(event, SecondHello)
    again = relay_hello(event.stream, replacements)
    leg.take_second_hello(again)
    leg.send_flight(flight_of(again, group=again.parsed.key_shares[0]), shown())
    client.take_flight(leg.to_send())
    client.send_answer()
    return fed(leg, client.taken(), size)


COOKIE = {int(Extension.COOKIE): b"\0\x01x"}
SECOND = Offer(shares=(P256,), more=COOKIE)


def test_a_second_hello_without_a_fault() -> None:
    assert retried(SECOND) == ClientFinished(b"")
    assert retried(Offer(more=COOKIE), group=None) == ClientFinished(b"")
    assert retried(SECOND, before=CHANGE_CIPHER_SPEC) == ClientFinished(b"")


@pytest.mark.parametrize(
    "change",
    [
        {"random": bytes(32)},
        {"session_id": bytes(32)},
        {"session_id": b""},
        {"suites": (AES_128,)},
        {"versions": (TLS_1_3,)},
        {"versions": (TLS_1_2, TLS_1_3)},
        {"legacy_version": 0x0302},
        {"compression": b"\0\x01"},
        {"groups": (P256, X25519)},
        {"schemes": (0x0403,)},
        {"alpn": (b"h3",)},
        {"shares": ()},
        {"shares": (X25519,)},
        {"shares": (P256, X25519)},
        {"without": (Extension.ALPN,)},
        {"without": (Extension.SERVER_NAME,)},
        {"without": (Extension.EXTENDED_MASTER_SECRET,)},
        {"more": {**COOKIE, Extension.RECORD_SIZE_LIMIT: b"\x40\0"}},
        {"more": {**COOKIE, Extension.EARLY_DATA: b""}},
    ],
)
def test_a_second_hello_that_is_changed(change: Any) -> None:
    """RFC 8446 §4.1.2."""
    with refused(Alert.ILLEGAL_PARAMETER):
        retried(replace(SECOND, **change))


def test_a_second_hello_may_lose_what_has_changed_its_meaning() -> None:
    """RFC 8446 §4.1.2: early_data goes; pre_shared_key and padding may."""
    first = Offer(
        more={
            Extension.EARLY_DATA: b"",
            Extension.PADDING: bytes(100),
            Extension.PRE_SHARED_KEY: psk_offer(TICKET),
        }
    )
    assert retried(SECOND, first=first) == ClientFinished(b"")
    assert retried(SECOND, first=first, before=early_records(3)) == ClientFinished(b"")
    with refused(Alert.UNEXPECTED_MESSAGE):
        retried(SECOND, before=early_records(3))
    with refused(Alert.UNEXPECTED_MESSAGE):
        retried(SECOND, first=first, before=early_records(200))


def test_another_message_than_a_second_hello() -> None:
    for kind in (2, 11, 20, 24):
        with refused(Alert.UNEXPECTED_MESSAGE):
            retried(message(kind, bytes(40)))
    with refused(Alert.UNEXPECTED_MESSAGE):
        retried(SECOND.message() * 2)
    with refused(Alert.UNEXPECTED_MESSAGE):
        retried(SECOND.message() + b"\x14")
    for change in (cut, longer):
        with refused(Alert.DECODE_ERROR):
            retried(change(SECOND.message()))


def test_a_second_hello_that_nobody_has_asked_for() -> None:
    hello = relayed(Offer())
    leg = ClientLeg(hello)
    leg.receive(SECOND.records())
    assert leg.next_event() is None
    leg.send_flight(flight_of(hello), shown())
    with refused(Alert.UNEXPECTED_MESSAGE):
        leg.next_event()


def test_a_second_hello_is_bounded() -> None:
    """Whatever its records are."""
    hello = relayed(Offer())
    for unit in (plain(HANDSHAKE, b"\x01"), plain(HANDSHAKE, b""), CHANGE_CIPHER_SPEC):
        leg = ClientLeg(hello)
        leg.send_retry(
            messages.ServerHello(
                random=RETRY_RANDOM,
                session_id=b"",
                cipher_suite=AES_128,
                extensions=RawExtensions(((Extension.SUPPORTED_VERSIONS, b"\x03\x04"),)),
            )
        )
        received, event = 0, None
        with suppress(TlsError):
            while not event:
                leg.receive(unit * 1000)
                received += 1000 * len(unit)
                event = leg.next_event()
        assert received < 1 << 20


# Key shares


@pytest.mark.parametrize("group", [X25519, P256, 0x11EC])
def test_key_shares_that_are_broken(group: int) -> None:
    sizes = {X25519: 32, P256: 65, 0x11EC: 1216}
    bad = {
        X25519: [bytes(32)],
        P256: [b"\x04" + bytes(64), b"\x02" + b"\x11" * 64],
        0x11EC: [b"\xff" * 1216, bytes(1216)],
    }
    for key in bad[group]:
        assert len(key) == sizes[group]
        entry = vector(2, uint16(group) + vector(2, key))
        hello = relayed(Offer(groups=(group,), more={Extension.KEY_SHARE: entry}))
        with refused(Alert.ILLEGAL_PARAMETER):
            ClientLeg(hello).send_flight(flight_of(hello, group=group), shown())


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])
def test_a_client_that_accepts_no_signature_of_ours(version: int) -> None:
    """It can read the alert, since nothing was sent before."""
    hello = relayed(Offer(schemes=(0x0804,)))
    leg = ClientLeg(hello)
    flight = flight_of(hello) if version == TLS_1_3 else older_flight()
    with refused(Alert.HANDSHAKE_FAILURE):
        leg.send_flight(flight, shown())
    sent = leg.to_send() + leg.fail(Alert.HANDSHAKE_FAILURE)
    assert sent == alert(2, Alert.HANDSHAKE_FAILURE)


# Sessions


def resuming(binder: bytes | None = None, secret: bytes = bytes(32)) -> RelayedHello:
    """A hello with a binder, which fits if none is given."""
    known = ticket()
    offer = Offer(more={Extension.PRE_SHARED_KEY: psk_offer(TICKET)})
    whole = offer.message()
    key = Schedule("sha256", secret).binder_key()
    right = finished("sha256", key, hashlib.sha256(binder_input(whole)).digest())
    signed = whole[:-32] + (right if binder is None else binder)
    return relay_hello(
        plain(HANDSHAKE, signed, 0x0301), Replacements(), find_ticket=lambda _: known
    )


def test_a_binder_that_fits() -> None:
    hello = resuming()
    leg = ClientLeg(hello)
    leg.send_flight(flight_of(hello, known=ticket()), None)
    client = Client13(hello.received, psk=ticket().client_secret)
    client.take_flight(leg.to_send())
    client.send_answer()
    assert fed(leg, client.taken(), 1) == ClientFinished(b"")


def test_binders_that_do_not_fit() -> None:
    for hello in (resuming(bytes(32)), resuming(secret=b"x" * 32)):
        with refused(Alert.DECRYPT_ERROR):
            ClientLeg(hello)


# TLS 1.2


def older_flight(known: Ticket | None = None) -> Flight:
    extensions = [(int(Extension.EXTENDED_MASTER_SECRET), b""), (Extension.SESSION_TICKET, b"")]
    suite = found_suite(ECDHE_ECDSA)
    return Flight(
        hello=messages.ServerHello(
            random=bytes(32),
            session_id=b"",
            cipher_suite=ECDHE_ECDSA,
            extensions=RawExtensions(tuple(extensions)),
        ),
        older=Older(suite=suite, signer="ECDSA", extended=True),
        suite=suite,
        group=X25519,
        ticket=known,
    )


def answered_1_2(
    changes: Changes | None = None,
    *,
    offer: Offer | None = None,
    known: Ticket | None = None,
    size: int = 1 << 20,
    **options: Any,
) -> Any:
    hello = relayed(offer or Offer(), known)
    leg = ClientLeg(hello)
    leg.send_flight(older_flight(known), None if known else shown())
    if known:
        leg.finish(older_messages.NewSessionTicket12(0, b"new"))
    client = Client12(hello.received, changes, **options)
    client.take_flight(leg.to_send())
    client.send_answer()
    return fed(leg, client.taken(), size)


def refuses_1_2(number: int, changes: Changes | None = None, **options: Any) -> None:
    for size in (1 << 20, 1):
        with refused(number):
            answered_1_2(changes, size=size, **options)


@pytest.mark.parametrize("fragment_bytes", [1, 1 << 14])
def test_a_handshake_of_tls_1_2_without_a_fault(fragment_bytes: int) -> None:
    for offer in (Offer(), only_1_2()):
        event = answered_1_2(offer=offer, fragment_bytes=fragment_bytes, size=1)
        assert event == ClientFinished(b"")


@pytest.mark.parametrize("name", ["client_key_exchange", "finished"])
def test_messages_of_tls_1_2(name: str) -> None:
    refuses_1_2(Alert.DECODE_ERROR, {name: cut})
    refuses_1_2(Alert.DECODE_ERROR, {name: longer})
    # Of a ChangeCipherSpec, what is before it has to be whole.
    if name == "client_key_exchange":
        refuses_1_2(Alert.UNEXPECTED_MESSAGE, {name: twice})
        refuses_1_2(Alert.UNEXPECTED_MESSAGE, {name: left_out})
        refuses_1_2(Alert.UNEXPECTED_MESSAGE, {name: lambda whole: whole + b"\x14"})
    for kind in (0, 1, 2, 4, 11, 12, 14, 15, 67):
        other = instead(message(kind, bytes(4)))
        refuses_1_2(Alert.UNEXPECTED_MESSAGE, {name: other})
    refuses_1_2(Alert.UNEXPECTED_MESSAGE, {f"before:{name}": records((DATA, b"x"))})
    refuses_1_2(Alert.ILLEGAL_PARAMETER, {name: instead(b"\x10\xff\xff\xff")})


def test_points_of_tls_1_2() -> None:
    for point, number in (
        (bytes(32), Alert.ILLEGAL_PARAMETER),
        (bytes(31), Alert.ILLEGAL_PARAMETER),
        (b"\x09" * 33, Alert.ILLEGAL_PARAMETER),
    ):
        change = with_fields(older_messages.ClientKeyExchange, point=point)
        refuses_1_2(number, {"client_key_exchange": change})
    refuses_1_2(Alert.DECODE_ERROR, {"client_key_exchange": instead(message(16, b"\0"))})


def test_change_cipher_spec_of_tls_1_2() -> None:
    """CVE-2014-0224, and the rest."""
    refuses_1_2(Alert.UNEXPECTED_MESSAGE, {"before:client_key_exchange": raw(CHANGE_CIPHER_SPEC)})
    refuses_1_2(Alert.UNEXPECTED_MESSAGE, {"change_cipher_spec": left_out})
    refuses_1_2(Alert.BAD_RECORD_MAC, {"change_cipher_spec": twice})
    for content in (b"", b"\x02", b"\x01\x01"):
        other = plain(RecordType.CHANGE_CIPHER_SPEC, content)
        refuses_1_2(Alert.UNEXPECTED_MESSAGE, {"change_cipher_spec": instead(other)})
    second = records((RecordType.CHANGE_CIPHER_SPEC, b"\x01"))
    refuses_1_2(Alert.UNEXPECTED_MESSAGE, {"before:finished": second})
    refuses_1_2(
        Alert.UNEXPECTED_MESSAGE, {"before:fragment": raw(CHANGE_CIPHER_SPEC)}, fragment_bytes=10
    )


def test_finished_of_tls_1_2() -> None:
    refuses_1_2(Alert.DECRYPT_ERROR, {"finished": broken})
    refuses_1_2(Alert.UNEXPECTED_MESSAGE, {"finished": twice})
    refuses_1_2(Alert.UNEXPECTED_MESSAGE, {"finished": lambda whole: whole + b"\0"})
    for size in (0, 11, 13, 32):
        refuses_1_2(Alert.DECODE_ERROR, {"finished": instead(message(20, bytes(size)))})
    plaintext = raw(plain(HANDSHAKE, message(HandshakeType.FINISHED, bytes(12))))
    refuses_1_2(Alert.BAD_RECORD_MAC, {"before:finished": plaintext})


def test_alerts_of_tls_1_2() -> None:
    for where in ("before:client_key_exchange", "before:change_cipher_spec", "before:finished"):
        fatal = records((RecordType.ALERT, bytes([2, Alert.UNKNOWN_CA])))
        assert answered_1_2({where: fatal}) == PeerAlert(Alert.UNKNOWN_CA)
        warning = (RecordType.ALERT, bytes([1, Alert.NO_CERTIFICATE]))
        assert answered_1_2({where: records(warning)}) == ClientFinished(b"")
        refuses_1_2(Alert.UNEXPECTED_MESSAGE, {where: records(*[warning] * 9)})


def test_early_data_for_tls_1_2() -> None:
    """RFC 8446 §D.3: the client has to fail itself; nothing is skipped."""
    refuses_1_2(
        Alert.UNEXPECTED_MESSAGE, {"before:client_key_exchange": raw(early_records(1))}, offer=EARLY
    )


def test_a_session_of_tls_1_2_that_is_resumed() -> None:
    known = ticket(TLS_1_2, ECDHE_ECDSA, extended=True)
    offer = Offer(more={Extension.SESSION_TICKET: TICKET})
    session: Any = {"known": known, "offer": offer, "master": known.client_secret}
    assert answered_1_2(**session) == ClientFinished(b"")
    refuses_1_2(Alert.DECRYPT_ERROR, {"finished": broken}, **session)
    refuses_1_2(Alert.UNEXPECTED_MESSAGE, {"change_cipher_spec": left_out}, **session)
    exchange = records((HANDSHAKE, message(16, b"\x20" + b"\x09" * 32)))
    refuses_1_2(Alert.UNEXPECTED_MESSAGE, {"before:change_cipher_spec": exchange}, **session)
