"""Records against those that others have published, and against each other."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from mitml4.crypto.records import (
    NotAuthentic,
    Opener,
    Protection,
    Record,
    cbc_opener,
    protection_1_2,
    protection_1_3,
)
from mitml4.crypto.schedule import expand_label
from mitml4.crypto.suites import cbc_suite_of, suite_of
from mitml4.errors import ProtocolError
from mitml4.protocols.tls.alerts import Alert, TlsError
from mitml4.protocols.tls.names import cipher_name
from tests.crypto.openssl import Pair
from tests.crypto.rfc8448 import ONE_RTT, TRACES, Trace

APPLICATION_DATA = 23
SUITES_1_3 = (0x1301, 0x1302, 0x1303, 0x1304, 0x1305)
SUITES_1_2 = (0x009C, 0xC030, 0xC09C, 0xC0A1, 0xCCA8)
CBC_SUITES = (0x002F, 0xC028)


def under_test(number: int) -> Protection:
    """A protection with this suite; each call makes an equal one."""
    suite = suite_of(number)
    assert suite
    if number in SUITES_1_3:
        return protection_1_3(suite, bytes(48 if suite.hash == "sha384" else 32))
    return protection_1_2(
        suite,
        bytes(48),
        client_random=bytes(32),
        server_random=bytes(32),
        of_client=True,
    )


def stages(trace: Trace) -> dict[str, list[Protection]]:
    """What each sender's protected records are protected with, one after the other."""
    suite = suite_of(0x1301)
    assert suite
    labels = {
        "server": ["s hs traffic", "s ap traffic"],
        "client": ["c hs traffic", "c ap traffic"],
    }
    if "c e traffic" in trace.secrets:
        labels["client"].insert(0, "c e traffic")
    return {
        sender: [protection_1_3(suite, trace.secrets[label]) for label in order]
        for sender, order in labels.items()
    }


@pytest.mark.parametrize("trace", TRACES.values(), ids=TRACES)
def test_the_published_records_are_opened_and_sealed(trace: Trace) -> None:
    opening, sealing = stages(trace), stages(trace)
    protected = 0
    for sender, content, record in trace.records:
        if record[0] != APPLICATION_DATA:
            continue
        kind, opened = opening[sender][0].open(Record(record))
        assert opened == content
        assert sealing[sender][0].seal(kind, content) == record
        protected += 1
        end_of_early_data, finished = 5, 20
        if kind == 22 and (content[0] == end_of_early_data or content[-36] == finished):
            del opening[sender][0], sealing[sender][0]
    assert protected >= 4


@settings(max_examples=30, deadline=None)
@given(
    contents=st.lists(st.tuples(st.integers(20, 24), st.binary(max_size=300)), max_size=4),
    start=st.integers(0, 2**40),
)
@pytest.mark.parametrize("number", SUITES_1_3 + SUITES_1_2)
def test_what_is_sealed_is_opened(
    number: int, contents: list[tuple[int, bytes]], start: int
) -> None:
    sealing, opening = under_test(number), under_test(number)
    sealing.sequence = opening.sequence = start
    for kind, content in contents:
        record = sealing.seal(kind, content)
        assert len(record) == len(content) + sealing.overhead
        assert int.from_bytes(record[3:5], "big") == len(record) - 5
        assert record[0] == (APPLICATION_DATA if number in SUITES_1_3 else kind)
        assert opening.open(Record(record)) == (kind, content)
    assert sealing.sequence == opening.sequence == start + len(contents)


@pytest.mark.parametrize("number", SUITES_1_3 + SUITES_1_2)
def test_records_are_written_into_the_middle_of_larger_buffers(number: int) -> None:
    sealing, opening = under_test(number), under_test(number)
    content = memoryview(bytearray(range(200)))
    buffer, into = memoryview(bytearray(500)), memoryview(bytearray(500))
    end = sealing.seal_into(APPLICATION_DATA, content, buffer[7:])
    assert bytes(buffer[7 + end :]) == bytes(500 - 7 - end)
    assert opening.open_into(buffer[7 : 7 + end], into[9:]) == (APPLICATION_DATA, len(content))
    assert into[9 : 9 + len(content)] == content


@pytest.mark.parametrize("number", SUITES_1_3 + SUITES_1_2)
def test_a_changed_record_is_not_authentic_and_changes_nothing(number: int) -> None:
    sealing, opening = under_test(number), under_test(number)
    record = sealing.seal(APPLICATION_DATA, b"content")
    # TLS 1.2 authenticates the length of the content, not the field itself.
    fields = range(len(record)) if number in SUITES_1_3 else [0, 1, 2, *range(5, len(record))]
    for at in fields:
        changed = bytearray(record)
        changed[at] ^= 0x10
        with pytest.raises(NotAuthentic):
            opening.open(Record(bytes(changed)))
    for cut in (record[:-1], record[:5], record[:12]):
        with pytest.raises(NotAuthentic):
            opening.open(Record(cut))
    assert opening.sequence == 0
    assert opening.open(Record(record)) == (APPLICATION_DATA, b"content")


@pytest.mark.parametrize("number", SUITES_1_3 + SUITES_1_2)
def test_a_record_at_another_place_is_not_authentic(number: int) -> None:
    sealing, opening = under_test(number), under_test(number)
    first, second = sealing.seal(22, b"first"), sealing.seal(22, b"second")
    with pytest.raises(NotAuthentic):
        opening.open(Record(second))
    assert opening.open(Record(first)) == (22, b"first")
    with pytest.raises(NotAuthentic):
        opening.open(Record(first))
    assert opening.open(Record(second)) == (22, b"second")


def padded(secret: bytes, number: int, kind: int, content: bytes, padding: int) -> bytes:
    """The record that a sender of TLS_AES_128_GCM_SHA256 would send (RFC 8446 §5.2)."""
    inner = content + bytes([kind]) + bytes(padding)
    header = b"\x17\x03\x03" + (len(inner) + 16).to_bytes(2, "big")
    iv = int.from_bytes(expand_label("sha256", secret, b"iv", b"", 12), "big")
    nonce = (iv ^ number).to_bytes(12, "big")
    key = expand_label("sha256", secret, b"key", b"", 16)
    return header + AESGCM(key).encrypt(nonce, inner, header)


def test_padding_is_stripped() -> None:
    opening, secret = under_test(0x1301), bytes(32)
    for number, (content, padding) in enumerate([(b"a\0\0", 1), (b"", 700), (b"x" * 9, 0)]):
        record = padded(secret, number, 22, content, padding)
        assert opening.open(Record(record)) == (22, content)


def test_a_record_without_a_type_is_answered_with_an_alert() -> None:
    for padding in (0, 1, 50):
        inner_is_zeros = padded(bytes(32), 0, 0, b"", padding)
        with pytest.raises(TlsError, match="without a type") as caught:
            under_test(0x1301).open(Record(inner_is_zeros))
        assert caught.value.alert is Alert.UNEXPECTED_MESSAGE


def test_an_updated_protection_begins_again_with_the_next_secret() -> None:
    suite = suite_of(0x1301)
    assert suite
    sealing = under_test(0x1301)
    sealing.seal(22, b"before")
    updated = protection_1_3(suite, bytes(32)).updated()
    secret = expand_label("sha256", bytes(32), b"traffic upd", b"", 32)
    assert updated.open(Record(padded(secret, 0, 23, b"after", 3))) == (23, b"after")


def test_a_secret_of_another_length_is_refused() -> None:
    suite = suite_of(0x1302)
    assert suite
    with pytest.raises(ProtocolError, match="does not fit the cipher suite"):
        protection_1_3(suite, ONE_RTT.secrets["c hs traffic"])


def of_cbc(number: int, *, encrypt_then_mac: bool) -> Opener:
    suite = cbc_suite_of(number)
    assert suite
    return cbc_opener(
        suite,
        bytes(48),
        client_random=bytes(32),
        server_random=bytes(32),
        of_client=True,
        encrypt_then_mac=encrypt_then_mac,
    )


OPENERS: dict[str, Callable[[], Opener]] = {
    **{f"{number:#x}": partial(under_test, number) for number in SUITES_1_3 + SUITES_1_2},
    **{
        f"{number:#x}, {encrypt_then_mac}": partial(
            of_cbc, number, encrypt_then_mac=encrypt_then_mac
        )
        for number in CBC_SUITES
        for encrypt_then_mac in (False, True)
    },
}


@pytest.mark.parametrize("name", OPENERS)
def test_a_record_of_any_size_that_is_none_is_not_authentic(name: str) -> None:
    opening = OPENERS[name]()
    for size in range(66):
        with pytest.raises(NotAuthentic):
            opening.open(Record(b"\x17\x03\x03" + size.to_bytes(2, "big") + bytes(size)))
    assert opening.sequence == 0


def of_pair(pair: Pair, number: int, *, of_client: bool) -> Protection:
    """The records of one side of a connection, behind its handshake."""
    suite = suite_of(number)
    assert suite
    if number in SUITES_1_3:
        label = "CLIENT_TRAFFIC_SECRET_0" if of_client else "SERVER_TRAFFIC_SECRET_0"
        protection: Protection = protection_1_3(suite, pair.secrets[label])
        protection.sequence = 0 if of_client else 2  # OpenSSL's server has sent two tickets
        return protection
    client_random, server_random = pair.client.client_random(), pair.client.server_random()
    assert client_random
    assert server_random
    protection = protection_1_2(
        suite,
        pair.secrets["CLIENT_RANDOM"],
        client_random=client_random,
        server_random=server_random,
        of_client=of_client,
    )
    protection.sequence = 1  # its Finished was the first
    return protection


@pytest.mark.parametrize("number", SUITES_1_3 + SUITES_1_2)
def test_openssl_opens_what_is_sealed_and_the_other_way_round(number: int) -> None:
    pair = Pair(cipher_name(number))
    sealing = of_pair(pair, number, of_client=True)
    opening = of_pair(pair, number, of_client=False)
    for content in (b"first", b"second" * 1000):
        pair.server.bio_write(sealing.seal(APPLICATION_DATA, content))
        assert pair.server.recv(1 << 14) == content
        pair.server.sendall(content[::-1])
        pair.move()
        record = Record(pair.server_records[-1])
        assert opening.open(record) == (APPLICATION_DATA, content[::-1])
