"""A leg after its handshake: data in any pieces, and what a far end may send besides data."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from functools import partial

from hypothesis import given
from hypothesis import strategies as st

from mitml4.crypto.records import Protection13
from mitml4.protocols.tls.alerts import Alert
from mitml4.protocols.tls.records import HandshakeType
from mitml4.tls.bridge import connection as module
from mitml4.tls.bridge.connection import MIN_ROOM, Connection
from mitml4.tls.bridge.extensions import RawExtensions
from mitml4.tls.bridge.messages import KeyUpdate, NewSessionTicket
from tests.tls.bridge.ends import ECDHE_RSA_AES128_GCM_SHA256, Far, connections

TLS_1_2 = ECDHE_RSA_AES128_GCM_SHA256
CIPHERS = (0x1301, 0x1302, 0x1303, 0x1304, 0x1305, TLS_1_2, 0xC030, 0xCCA8, 0xC0AC)
WARNING, FATAL = 1, 2
CCS, ALERT, HANDSHAKE, DATA = range(20, 24)
KEY_UPDATE = (HANDSHAKE, KeyUpdate(request=False).encode())
TICKET = NewSessionTicket(
    lifetime=7200, age_add=1, nonce=b"n", ticket=b"t", extensions=RawExtensions(())
).encode()
NO_RENEGOTIATION = (ALERT, bytes([WARNING, Alert.NO_RENEGOTIATION]))


def read(connection: Connection, received: bytes, room: int = 1 << 18) -> bytes:
    """All data in these bytes and in what was kept before them."""
    into, got = memoryview(bytearray(room)), b""
    data = memoryview(bytes(connection.kept) + received)
    while True:
        count = connection.open(data, into)
        got += bytes(into[:count])
        data = connection.kept
        if not connection.keeps_record:
            return got


def sealed(connection: Connection, data: bytes, room: int = 1 << 18) -> bytes:
    into, sent = memoryview(bytearray(room)), b""
    left = memoryview(data)
    while left:
        sent += connection.seal_due()
        taken, length = connection.seal(left, into)
        sent += bytes(into[:length])
        left = left[taken:]
    return sent


def refusal(make: Callable[[Far], bytes], cipher: int = 0x1301, *, is_client: bool = True) -> int:
    """The alert that the far end gets for a record behind some data; -1: none."""
    near, far = Far.of_new(cipher, is_client=is_client)
    assert read(near, far.data(b"before") + make(far) + far.data(b"behind")) == b"before"
    assert near.failure
    assert near.is_shut
    assert near.received_alert is None
    (record,) = far.read(near.seal_due()) or [(ALERT, b"\2\xff")]
    assert record[0] == ALERT
    assert record[1][0] == FATAL
    assert read(near, far.data(b"more")) == b""
    assert near.seal_due() == b""
    return record[1][1]


def accepted(make: Callable[[Far], bytes], cipher: int = 0x1301, *, is_client: bool = True) -> None:
    near, far = Far.of_new(cipher, is_client=is_client)
    for _ in range(2):
        assert read(near, make(far) + far.data(b"x")) == b"x"
    assert not near.has_ended


def test_data_arrives_in_any_pieces_with_every_suite_both_ways() -> None:
    pieces = random.Random(1)
    for cipher in CIPHERS:
        for sender, receiver in (ends := connections(cipher), ends[::-1]):
            data = os.urandom(150_000)
            sent = sealed(sender, data)
            assert len(sent) > len(data)
            got = b""
            while sent:
                size = pieces.choice((1, 4, 5, 6, 1000, 16384, 70_000))
                got += read(receiver, sent[:size], pieces.choice((MIN_ROOM, 40_000, 131_072)))
                sent = sent[size:]
                assert len(receiver.kept) < 5 + MIN_ROOM
            assert got == data, cipher
            assert not receiver.kept


def test_a_reader_gets_all_records_of_the_ciphertext_that_it_has_asked_for() -> None:
    for cipher in CIPHERS:
        for room in (MIN_ROOM, 32768, 65537, 131_072):
            sender, receiver = connections(cipher)
            sent = sealed(sender, bytes(room + 16384))
            into = memoryview(bytearray(room))
            count = receiver.open(memoryview(sent)[: receiver.ciphertext_bytes(room)], into)
            assert not receiver.keeps_record
            assert count <= room
            assert room % 16384 or count == room


def test_nothing_is_written_behind_the_room_or_lost_where_it_ends() -> None:
    sender, receiver = connections()
    sent = sealed(sender, bytes(5 * 16384))
    whole = memoryview(bytearray(b"\xee" * (MIN_ROOM + 100)))
    assert receiver.open(memoryview(sent), whole[:MIN_ROOM]) == 16384
    assert bytes(whole[MIN_ROOM:]) == b"\xee" * 100
    assert read(receiver, b"") == bytes(4 * 16384)


def test_padding_is_no_data() -> None:
    near, far = Far.of_new()
    padded = far.record(0, b"data\x17" + bytes(16384 - 5))
    assert read(near, padded, MIN_ROOM) == b"data"


def test_records_hold_as_much_as_the_far_end_allows() -> None:
    near, far = Far.of_new()
    near._max_content = 100
    near.queue(bytes([4, 0, 1, 0]) + bytes(256))
    sent = near.seal_due() + sealed(near, bytes(2500))
    sizes = [(kind, len(content)) for kind, content in far.read(sent)]
    assert sizes == [(HANDSHAKE, 100), (HANDSHAKE, 100), (HANDSHAKE, 60)] + 25 * [(DATA, 100)]


def test_records_hold_no_more_than_the_far_end_was_told() -> None:
    for count, alert in ((100, None), (101, Alert.RECORD_OVERFLOW)):
        near, far = Far.of_new()
        near._max_opened = 100
        near.open(memoryview(far.data(bytes(count))), memoryview(bytearray(MIN_ROOM)))
        sent = far.read(near.seal_due())
        assert sent == ([] if alert is None else [(ALERT, bytes([2, alert]))])


def test_broken_records_get_the_alert_that_names_them() -> None:
    for make, alert in (
        (lambda _: b"\x17\x03\x03\x00\x20" + bytes(32), Alert.BAD_RECORD_MAC),
        (lambda _: b"\x17\x03\x03\x00\x05short", Alert.BAD_RECORD_MAC),
        (lambda _: b"\x17\x03\x03\x41\x01", Alert.RECORD_OVERFLOW),
        (lambda far: far.data(bytes(16385)), Alert.RECORD_OVERFLOW),
        (lambda far: far.record(0, b"a\x17" + bytes(16384)), Alert.RECORD_OVERFLOW),
        (lambda _: b"\x17\x03\x01\x00\x20", Alert.PROTOCOL_VERSION),
        (lambda _: b"HTTP/1.1 400 Bad Request\r\n", Alert.PROTOCOL_VERSION),
        (lambda far: far.record(0, b"\0\0"), Alert.UNEXPECTED_MESSAGE),
        (lambda far: far.record(25, b"a"), Alert.UNEXPECTED_MESSAGE),
        (lambda far: far.record(24, b"a"), Alert.UNEXPECTED_MESSAGE),
        (lambda far: far.record(CCS, b"\1"), Alert.UNEXPECTED_MESSAGE),
        (lambda far: far.record(ALERT, b""), Alert.UNEXPECTED_MESSAGE),
        (lambda far: far.record(HANDSHAKE, b""), Alert.UNEXPECTED_MESSAGE),
        (lambda _: b"\x14\x03\x03\x00\x01\x01", Alert.UNEXPECTED_MESSAGE),
        (lambda _: b"\x15\x03\x03\x00\x02\x02\x28", Alert.UNEXPECTED_MESSAGE),
        (lambda far: far.record(ALERT, b"\1"), Alert.DECODE_ERROR),
        (lambda far: far.record(ALERT, b"\1\0\1"), Alert.DECODE_ERROR),
        (lambda far: far.alert(3, 0), Alert.ILLEGAL_PARAMETER),
    ):
        assert refusal(make) == alert
        assert refusal(make, is_client=False) == alert


def test_broken_records_of_tls12_get_the_alert_that_names_them() -> None:
    for make, alert in (
        (lambda _: b"\x17\x03\x03\x00\x20" + bytes(32), Alert.BAD_RECORD_MAC),
        (lambda _: b"\x17\x03\x03\x00\x05short", Alert.BAD_RECORD_MAC),
        (lambda _: b"\x16\x03\x03\x00\x20" + bytes(32), Alert.BAD_RECORD_MAC),
        (lambda _: b"\x17\x03\x03\x48\x01", Alert.RECORD_OVERFLOW),
        (lambda far: far.data(bytes(16385)), Alert.RECORD_OVERFLOW),
        (lambda _: b"\x17\x03\x02\x00\x20", Alert.PROTOCOL_VERSION),
        (lambda _: b"\x19\x03\x03\x00\x20", Alert.UNEXPECTED_MESSAGE),
        (lambda far: far.record(CCS, b"\1"), Alert.UNEXPECTED_MESSAGE),
        (lambda far: far.record(ALERT, b""), Alert.DECODE_ERROR),
        (lambda far: far.alert(0, 0), Alert.ILLEGAL_PARAMETER),
    ):
        assert refusal(make, TLS_1_2) == alert


def test_messages_that_have_no_place_after_the_handshake_are_refused() -> None:
    key_update = HandshakeType.KEY_UPDATE
    for make, alert in (
        (lambda far: far.message(HandshakeType.FINISHED, bytes(32)), Alert.UNEXPECTED_MESSAGE),
        (lambda far: far.message(HandshakeType.CLIENT_HELLO, b"a"), Alert.UNEXPECTED_MESSAGE),
        (lambda far: far.message(HandshakeType.HELLO_REQUEST), Alert.UNEXPECTED_MESSAGE),
        (lambda far: far.message(13, b"\0\0\0"), Alert.UNEXPECTED_MESSAGE),
        (lambda far: far.message(key_update, b"\2"), Alert.ILLEGAL_PARAMETER),
        (lambda far: far.message(key_update, b""), Alert.DECODE_ERROR),
        (lambda far: far.message(key_update, b"\0\0"), Alert.DECODE_ERROR),
        (lambda far: far.record(HANDSHAKE, 2 * KEY_UPDATE[1]), Alert.UNEXPECTED_MESSAGE),
        (lambda far: far.record(HANDSHAKE, TICKET[:9]), Alert.UNEXPECTED_MESSAGE),
        (lambda far: far.record(HANDSHAKE, b"\x04\x02\0\1"), Alert.ILLEGAL_PARAMETER),
    ):
        assert refusal(make) == alert
        assert refusal(make, is_client=False) == alert
    assert refusal(lambda far: far.message(4, b"\0"), is_client=True) == Alert.DECODE_ERROR
    ticket = lambda far: far.record(HANDSHAKE, TICKET)  # noqa: E731
    assert refusal(ticket, is_client=False) == Alert.UNEXPECTED_MESSAGE
    hello = lambda far: far.message(HandshakeType.CLIENT_HELLO, b"a")  # noqa: E731
    assert refusal(hello, TLS_1_2) == Alert.UNEXPECTED_MESSAGE
    request = lambda far: far.message(HandshakeType.HELLO_REQUEST)  # noqa: E731
    assert refusal(request, TLS_1_2, is_client=False) == Alert.UNEXPECTED_MESSAGE
    longer = lambda far: far.message(HandshakeType.HELLO_REQUEST, b"a")  # noqa: E731
    assert refusal(longer, TLS_1_2) == Alert.DECODE_ERROR
    update = lambda far: far.record(*KEY_UPDATE)  # noqa: E731
    assert refusal(update, TLS_1_2) == Alert.UNEXPECTED_MESSAGE


def test_what_brings_no_data_is_bounded() -> None:
    def times(count: int, make: Callable[[Far], bytes]) -> Callable[[Far], bytes]:
        return lambda far: b"".join(make(far) for _ in range(count))

    for make, limit, cipher, is_client in (
        (lambda far: far.data(b""), 32, 0x1301, True),
        (lambda far: far.data(b""), 32, TLS_1_2, False),
        (lambda far: far.record(HANDSHAKE, b""), 32, TLS_1_2, False),
        (lambda far: far.key_update(), 32, 0x1301, True),
        (lambda far: far.key_update(requested=True), 32, 0x1301, False),
        (lambda far: far.record(HANDSHAKE, TICKET), 32, 0x1301, True),
        (lambda far: far.alert(WARNING, Alert.USER_CANCELED), 4, 0x1301, True),
        (lambda far: far.alert(WARNING, Alert.UNRECOGNIZED_NAME), 4, TLS_1_2, True),
        (lambda far: far.message(HandshakeType.HELLO_REQUEST), 32, TLS_1_2, True),
        (lambda far: far.message(HandshakeType.CLIENT_HELLO, b"a"), 32, TLS_1_2, False),
    ):
        accepted(times(limit, make), cipher, is_client=is_client)
        near, far = Far.of_new(cipher, is_client=is_client)
        assert read(near, times(limit, make)(far)) == b""
        assert not near.failure
        assert read(near, make(far)) == b""
        (*_, last) = far.read(near.seal_due())
        assert last == (ALERT, bytes([FATAL, Alert.UNEXPECTED_MESSAGE]))
    mixed = lambda far: far.key_update() + far.data(b"") + far.alert(WARNING, 90)  # noqa: E731
    accepted(times(4, mixed))


def test_tickets_are_handed_over_whole_and_in_pieces() -> None:
    near, far = Far.of_new()
    got: list[NewSessionTicket] = []
    near.on_ticket = got.append
    read(near, far.record(HANDSHAKE, TICKET + TICKET[:7]) + far.record(HANDSHAKE, TICKET[7:]))
    assert [ticket.encode() for ticket in got] == [TICKET, TICKET]
    assert not near.due
    accepted(lambda far: far.record(HANDSHAKE, TICKET))


def test_a_key_update_is_followed_and_answered_once_before_the_next_data() -> None:
    for is_client in (True, False):
        near, far = Far.of_new(is_client=is_client)
        asked = far.key_update(requested=True) + far.key_update(requested=True)
        assert read(near, asked + far.data(b"new key")) == b"new key"
        assert near.due
        assert far.read(sealed(near, b"answer")) == [KEY_UPDATE, (DATA, b"answer")]
        assert read(near, far.key_update() + far.data(b"and again")) == b"and again"
        assert not near.due
        read(near, far.key_update(requested=True))
        assert far.read(near.seal_due()) == [KEY_UPDATE]
        assert far.read(sealed(near, b"more")) == [(DATA, b"more")]


def test_our_key_changes_before_it_has_sealed_too_much(monkeypatch) -> None:
    monkeypatch.setattr(module, "_SEALED_WITH_ONE_KEY", 3)
    near, far = Far.of_new()
    data = bytes(20 * 16384)
    got = far.read(sealed(near, data, MIN_ROOM))
    assert got.count(KEY_UPDATE) >= 5
    assert b"".join(content for kind, content in got if kind == DATA) == data
    old, _ = Far.of_new(TLS_1_2)
    assert len(sealed(old, data, MIN_ROOM)) == len(data) + 20 * 29


def test_close_notify_is_an_end_behind_which_nothing_counts() -> None:
    for cipher in (0x1301, TLS_1_2):
        near, far = Far.of_new(cipher)
        end = far.data(b"last") + far.alert(WARNING, Alert.CLOSE_NOTIFY)
        broken = b"\x17\x03\x03\x00\x20" + bytes(32)
        assert read(near, end + far.data(b"late") + broken) == b"last"
        assert near.received_close_notify
        assert not near.failure
        assert not near.kept
        assert far.read(sealed(near, b"still")) == [(DATA, b"still")]
    near, far = Far.of_new()
    read(near, far.alert(FATAL, Alert.CLOSE_NOTIFY))
    assert near.received_close_notify


def test_a_fatal_alert_is_kept_and_not_answered() -> None:
    for cipher, level, alert in (
        (0x1301, FATAL, Alert.UNKNOWN_CA),
        (0x1301, WARNING, Alert.CERTIFICATE_UNKNOWN),
        (0x1301, FATAL, 200),
        (TLS_1_2, FATAL, Alert.HANDSHAKE_FAILURE),
    ):
        near, far = Far.of_new(cipher)
        near.queue(TICKET)
        assert read(near, far.data(b"a") + far.alert(level, alert) + far.data(b"b")) == b"a"
        assert near.received_alert == alert
        assert near.failure
        assert near.is_shut
        near.close()
        assert near.seal_due() == b""


def test_after_an_end_of_ours_nothing_is_sent() -> None:
    near, far = Far.of_new()
    near.queue(TICKET)
    near.close()
    near.close()
    near.alert(Alert.INTERNAL_ERROR)
    read(near, far.key_update(requested=True) + b"\x17\x03\x03\x00\x20" + bytes(32))
    assert near.failure
    end = (ALERT, bytes([WARNING, Alert.CLOSE_NOTIFY]))
    assert far.read(near.seal_due()) == [(HANDSHAKE, TICKET), end]


def test_an_alert_of_the_callers_ends_the_sending() -> None:
    near, far = Far.of_new()
    near.alert(Alert.USER_CANCELED)
    assert not near.is_shut
    near.alert(Alert.HANDSHAKE_FAILURE)
    assert near.is_shut
    assert far.read(near.seal_due()) == [(ALERT, b"\1\x5a"), (ALERT, b"\2\x28")]
    assert read(near, far.data(b"still")) == b"still"


def test_messages_that_the_far_end_does_not_read_are_dropped_at_last() -> None:
    near, far = Far.of_new(is_client=False)
    for number in range(1000):
        near.queue(TICKET + bytes([number % 256]))
    assert 32 <= len(far.read(near.seal_due())) < 100


def test_renegotiation_is_declined() -> None:
    for is_client, wish in ((True, HandshakeType.HELLO_REQUEST), (False, 1)):
        near, far = Far.of_new(TLS_1_2, is_client=is_client)
        told: list[str] = []
        near.on_renegotiation = partial(told.append, "asked")
        body = b"" if is_client else b"hello"
        assert read(near, far.message(wish, body)) == b""
        assert read(near, far.message(wish, body) + far.data(b"on")) == b"on"
        assert far.read(sealed(near, b"data")) == [NO_RENEGOTIATION, (DATA, b"data")]
        assert told == ["asked", "asked"]


def test_a_late_request_for_a_certificate_is_answered_where_that_was_offered() -> None:
    near, far = Far.of_new()
    told: list[str] = []
    near.on_request = lambda: told.append("asked")
    near.answer_request = lambda request, secret: b"\x0b" + request[1:] + secret
    assert read(near, far.message(13, b"\3ctx\0\0") + far.data(b"a")) == b"a"
    assert told == ["asked"]
    body = b"\x0b\0\0\6\3ctx\0\0"
    assert isinstance(far.opens, Protection13)
    assert far.read(near.seal_due()) == [(HANDSHAKE, body + far.opens.secret)]
    read(near, far.key_update(requested=True) + far.message(13, b"\3ctx\0\0"))
    update, answer = far.read(near.seal_due())
    assert update == KEY_UPDATE
    assert answer == (HANDSHAKE, body + far.opens.secret)


def test_what_the_handshake_has_not_read_comes_first() -> None:
    near, far = Far.of_new()
    near.kept = memoryview(far.data(b"early") + far.data(b"late")[:10])
    assert near.keeps_record
    assert read(near, b"") == b"early"
    assert len(near.kept) == 10
    assert not near.keeps_record


WRITES: dict[str, Callable[[Far], bytes]] = {
    "data": lambda far: far.data(b"data"),
    "long": lambda far: far.data(bytes(16384)),
    "empty": lambda far: far.data(b""),
    "update": lambda far: far.key_update(requested=True),
    "ticket": lambda far: far.record(HANDSHAKE, TICKET),
    "half a ticket": lambda far: far.record(HANDSHAKE, TICKET[:8]),
    "warning": lambda far: far.alert(WARNING, Alert.USER_CANCELED),
    "end": lambda far: far.alert(WARNING, Alert.CLOSE_NOTIFY),
    "alert": lambda far: far.alert(FATAL, Alert.INTERNAL_ERROR),
    "message": lambda far: far.message(20, bytes(32)),
    "change": lambda _: b"\x14\x03\x03\0\1\1",
}
CHANGES = st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=2)


@given(
    names=st.lists(st.sampled_from(sorted(WRITES)), max_size=12),
    changes=CHANGES,
    size=st.integers(1, 40_000),
    cipher=st.sampled_from((0x1301, TLS_1_2)),
    is_client=st.booleans(),
)
def test_whatever_comes_it_ends_or_goes_on(names, changes, size, cipher, is_client) -> None:
    """With an alert of ours, one of theirs, or an end; and then nothing is kept."""
    near, far = Far.of_new(cipher, is_client=is_client)
    if cipher == TLS_1_2:
        names = [name for name in names if name != "update"]
    stream = bytearray(b"".join(WRITES[name](far) for name in names))
    for at, value in changes:
        stream[at : at + 1] = bytes([value])
    for at in range(0, len(stream), size):
        read(near, bytes(stream[at : at + size]))
    assert len(near.kept) < 5 + MIN_ROOM
    if near.failure:
        (*_, last) = far.read(near.seal_due()) or [(ALERT, b"\2")]
        assert last[0] == ALERT
        assert near.is_shut
        assert last[1][0] == FATAL
    if near.has_ended:
        assert not near.kept
