"""Records and handshake messages of a leg, whole and in pieces, and what is refused of them."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitml4.crypto.records import Protection, protection_1_2, protection_1_3
from mitml4.crypto.suites import suite_of
from mitml4.protocols.tls.alerts import Alert, TlsError
from mitml4.protocols.tls.records import RecordType
from mitml4.tls.bridge.records import Messages, RecordsIn, RecordsOut

CCS, ALERT, HANDSHAKE, DATA, HEARTBEAT = range(20, 25)
CHANGE = b"\x14\x03\x03\x00\x01\x01"


def keys() -> tuple[Protection, Protection]:
    """What one end seals with, and what the other opens that with."""
    suite = suite_of(0x1301)
    assert suite
    return protection_1_3(suite, bytes(32)), protection_1_3(suite, bytes(32))


def keys_1_2() -> tuple[Protection, Protection]:
    suite = suite_of(0xC02F)
    assert suite
    make = lambda: protection_1_2(  # noqa: E731
        suite,
        bytes(48),
        client_random=bytes(32),
        server_random=bytes(32),
        of_client=True,
    )
    return make(), make()


def plain(kind: int, content: bytes, version: int = 0x0303) -> bytes:
    return bytes([kind]) + version.to_bytes(2, "big") + len(content).to_bytes(2, "big") + content


def padded(seal: Protection, content: bytes, count: int) -> bytes:
    """A record whose content has that many zeros behind it: a type and padding, or only padding."""
    return seal.seal(0, content + bytes(count - 1))


def records(records_in: RecordsIn) -> list[tuple[RecordType, bytes]]:
    return list(iter(records_in.next, None))


def refusal(records_in: RecordsIn, data: bytes) -> Alert:
    records_in.feed(data)
    with pytest.raises(TlsError) as error:
        records(records_in)
    return error.value.alert


@pytest.mark.parametrize("pair", [None, keys, keys_1_2], ids=["plaintext", "1.3", "1.2"])
def test_records_arrive_as_they_were_sent_in_any_pieces(pair) -> None:
    for size in (1, 3, 40_000):
        records_out, records_in = RecordsOut(), RecordsIn()
        if pair:
            records_out.protection, records_in.protection = pair()
            records_in.is_tls12 = pair is keys_1_2
        records_out.max_content = 1000
        sent = records_out.seal(HANDSHAKE, b"a" * 2500) + records_out.seal(ALERT, b"\1\0")
        got = []
        for at in range(0, len(sent), size):
            records_in.feed(memoryview(sent)[at : at + size])
            got += records(records_in)
        whole = [b"a" * 1000, b"a" * 1000, b"a" * 500]
        assert got == [*((RecordType.HANDSHAKE, part) for part in whole), (ALERT, b"\1\0")]
        assert records_in.take_rest() == b""


def test_what_was_not_returned_can_be_taken() -> None:
    records_in = RecordsIn()
    records_in.feed(plain(HANDSHAKE, b"abc") + plain(DATA, b"def") + b"\x17\x03")
    assert records_in.next() == (HANDSHAKE, b"abc")
    assert records_in.take_rest() == plain(DATA, b"def") + b"\x17\x03"
    assert records_in.take_rest() == b""
    assert records_in.next() is None


def test_padding_is_taken_off() -> None:
    seal, opens = keys()
    records_in = RecordsIn()
    records_in.protection = opens
    records_in.feed(padded(seal, b"ab\x16", 300) + seal.seal(HANDSHAKE, b"c\0"))
    assert records(records_in) == [(HANDSHAKE, b"ab"), (HANDSHAKE, b"c\0")]


def test_broken_plaintext_records_are_refused_before_they_are_whole() -> None:
    for data, alert in (
        (b"\x16\x03\x01\x40\x01", Alert.RECORD_OVERFLOW),
        (b"\x16\x02\x00\x00\x01", Alert.PROTOCOL_VERSION),
        (b"HTTP/1.1 400 Bad Request", Alert.PROTOCOL_VERSION),
        (b"\x13\x03\x03\x00\x01", Alert.UNEXPECTED_MESSAGE),
        (b"\x19\x03\x03\x00\x01", Alert.UNEXPECTED_MESSAGE),
        (b"\x00\x03\x03\x00\x01", Alert.UNEXPECTED_MESSAGE),
        (plain(CCS, b"\2"), Alert.UNEXPECTED_MESSAGE),
        (plain(CCS, b"\1\1"), Alert.UNEXPECTED_MESSAGE),
        (plain(CCS, b""), Alert.UNEXPECTED_MESSAGE),
    ):
        assert refusal(RecordsIn(), data) == alert, data


def test_broken_protected_records_are_refused() -> None:
    def refused(make) -> Alert:
        seal, opens = keys()
        records_in = RecordsIn()
        records_in.protection = opens
        return refusal(records_in, make(seal))

    assert refused(lambda _: b"\x17\x03\x03\x41\x01") == Alert.RECORD_OVERFLOW
    assert refused(lambda seal: seal.seal(DATA, bytes(16385))) == Alert.RECORD_OVERFLOW
    assert refused(lambda seal: padded(seal, b"a\x17", 16384)) == Alert.RECORD_OVERFLOW
    assert refused(lambda _: b"\x17\x03\x04\x00\x20") == Alert.PROTOCOL_VERSION
    assert refused(lambda _: plain(DATA, bytes(32))) == Alert.BAD_RECORD_MAC
    assert refused(lambda _: plain(DATA, b"short")) == Alert.BAD_RECORD_MAC
    assert refused(lambda seal: padded(seal, b"", 5)) == Alert.UNEXPECTED_MESSAGE
    assert refused(lambda seal: seal.seal(25, b"a")) == Alert.UNEXPECTED_MESSAGE
    assert refused(lambda seal: seal.seal(HANDSHAKE, b"")) == Alert.UNEXPECTED_MESSAGE
    assert refused(lambda seal: seal.seal(ALERT, b"")) == Alert.UNEXPECTED_MESSAGE
    assert refused(lambda _: plain(HANDSHAKE, b"abc")) == Alert.UNEXPECTED_MESSAGE


def test_longer_records_are_allowed_up_to_tls12() -> None:
    seal, opens = keys_1_2()
    records_in = RecordsIn()
    records_in.protection, records_in.is_tls12 = opens, True
    records_in.feed(b"\x17\x03\x03\x48\x00")
    assert records_in.next() is None
    assert refusal(RecordsIn(), seal.seal(DATA, bytes(16385))) == Alert.RECORD_OVERFLOW


def test_change_cipher_spec_is_dropped_in_tls13_and_returned_in_tls12() -> None:
    for is_tls12 in (False, True):
        records_in = RecordsIn()
        records_in.is_tls12 = is_tls12
        records_in.feed(CHANGE + plain(HANDSHAKE, b"a"))
        expected = [(CCS, b"\1")] * is_tls12 + [(HANDSHAKE, b"a")]
        assert records(records_in) == expected


def test_empty_records_and_change_cipher_specs_are_bounded() -> None:
    for record in (CHANGE, plain(HANDSHAKE, b""), plain(DATA, b"")):
        records_in = RecordsIn()
        for _ in range(3):
            records_in.feed(32 * record + plain(HANDSHAKE, b"a"))
            assert records(records_in)[-1] == (HANDSHAKE, b"a")
        assert refusal(records_in, 33 * record) == Alert.UNEXPECTED_MESSAGE


def test_an_alert_may_be_plaintext_until_the_first_protected_record() -> None:
    seal, opens = keys()
    records_in = RecordsIn()
    records_in.protection = opens
    records_in.feed(plain(ALERT, b"\2\x2a"))
    assert records(records_in) == [(ALERT, b"\2\x2a")]
    records_in.feed(seal.seal(HANDSHAKE, b"a"))
    assert records(records_in) == [(HANDSHAKE, b"a")]
    assert refusal(records_in, plain(ALERT, b"\2\x2a")) == Alert.UNEXPECTED_MESSAGE


def test_early_data_is_skipped_up_to_a_bound() -> None:
    early = plain(DATA, bytes(100))
    for protected in (False, True):
        for count in (1, 5):
            records_in, records_out = RecordsIn(), RecordsOut()
            if protected:
                records_out.protection, records_in.protection = keys()
            records_in.early_data_to_skip = 600
            records_in.feed(count * early + records_out.seal(HANDSHAKE, b"hello"))
            assert records(records_in) == [(HANDSHAKE, b"hello")]
            assert records_in.early_data_to_skip == 0
        records_in.early_data_to_skip = 600
        assert refusal(records_in, 6 * early) == Alert.UNEXPECTED_MESSAGE


def test_messages_are_put_together_and_taken_apart() -> None:
    def message(kind: int, body: bytes) -> bytes:
        return bytes([kind]) + len(body).to_bytes(3, "big") + body

    sent = [message(1, b""), message(2, b"abc"), message(3, bytes(70_000))]
    whole = b"".join(sent)
    cuts = [[whole[at : at + size] for at in range(0, len(whole), size)] for size in (1, 5, 16384)]
    for contents in (*cuts, [whole], sent):
        for at_once in (False, True):
            messages, got = Messages(), []
            for content in contents:
                if not at_once:
                    messages.feed(content)
                elif found := messages.next_with(content):
                    got.append(found)
                got += iter(messages.next, None)
            assert got == list(zip((1, 2, 3), sent, strict=True))
            assert messages.is_between
    messages.feed(message(1, b"") + b"\2\0")
    assert messages.next() == (1, message(1, b""))
    assert not messages.is_between


def test_a_message_that_is_too_long_is_refused_by_its_header() -> None:
    messages = Messages(1000)
    messages.feed(b"\1\0\x03\xe9")
    with pytest.raises(TlsError) as error:
        messages.next()
    assert error.value.alert == Alert.ILLEGAL_PARAMETER
    with pytest.raises(TlsError):
        Messages(1000).next_with(b"\1\0\x03\xe9" + bytes(1001))


@given(
    st.lists(st.sampled_from((22, 23, 21, 20, 24, 3)), max_size=5),
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=3),
    st.sampled_from((None, keys, keys_1_2)),
    st.integers(1, 100),
)
def test_whatever_comes_only_tlserror_is_raised(kinds, changes, pair, size) -> None:
    records_in, records_out = RecordsIn(), RecordsOut()
    if pair:
        records_out.protection, records_in.protection = pair()
        records_in.is_tls12 = pair is keys_1_2
    stream = bytearray(b"".join(records_out.seal(kind, b"content") for kind in kinds))
    for at, value in changes:
        stream[at : at + 1] = bytes([value])
    with suppress(TlsError):
        for at in range(0, len(stream), size):
            records_in.feed(bytes(stream[at : at + size]))
            assert all(kind in iter(RecordType) for kind, _ in records(records_in))
    assert len(records_in.take_rest()) <= len(stream)
