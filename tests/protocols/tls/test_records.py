"""Records and messages: any split gives the same messages; what is no record is said at once."""

from __future__ import annotations

import pytest

from mitml4.errors import ProtocolError
from mitml4.protocols.tls.records import MAX_RECORD, Message, MessageReader, RecordType


def record(kind: int, body: bytes) -> bytes:
    return bytes([kind, 3, 1]) + len(body).to_bytes(2, "big") + body


def handshake(kind: int, body: bytes) -> bytes:
    return bytes([kind]) + len(body).to_bytes(3, "big") + body


TWO_IN_ONE = record(22, handshake(2, b"hello") + handshake(14, b""))
ONE_IN_MANY = b"".join(record(22, bytes([byte])) for byte in handshake(2, b"hello"))
SSLV2 = b"\x80\x04\x04abc"


def test_any_split_gives_the_same_messages() -> None:
    for stream, messages in (
        (TWO_IN_ONE, [(22, 2, b"hello"), (22, 14, b"")]),
        (ONE_IN_MANY, [(22, 2, b"hello")]),
        (record(21, b"\x02\x28") + record(23, b""), [(21, 0, b"\x02\x28"), (23, 0, b"")]),
        (SSLV2, [(0, 4, b"abc")]),
    ):
        for size in (1, 3, 1000):
            reader = MessageReader()
            seen: list[Message] = []
            for start in range(0, len(stream), size):
                seen += reader.feed(stream[start : start + size])
            assert seen == [Message(RecordType(kind), sort, body) for kind, sort, body in messages]
            assert reader.consumed == len(stream)


@pytest.mark.parametrize(
    "stream",
    [
        b"HTTP/1.1 400 Bad Request",
        record(21, b""),
        b"\x16\x03\x01" + (MAX_RECORD + 1).to_bytes(2, "big"),
        record(22, b"\x02\xff\xff\xff"),
        record(22, b"\x02\x00\x00\x05he") + record(21, b"\x02\x28"),
        b"\x80\x00\x01",
    ],
    ids=["text", "empty alert", "long record", "long message", "torn", "empty sslv2"],
)
def test_what_is_no_record_is_a_protocol_error(stream: bytes) -> None:
    with pytest.raises(ProtocolError):
        list(MessageReader().feed(stream))


def test_messages_before_the_fault_are_given() -> None:
    messages = MessageReader().feed(TWO_IN_ONE + b"garbage")
    assert [next(messages).handshake_type, next(messages).handshake_type] == [2, 14]
    with pytest.raises(ProtocolError):
        next(messages)


def test_empty_records_of_a_handshake_are_read_over() -> None:
    message = b"\x02\x00\x00\x02hi"
    stream = record(22, b"") + record(22, message[:3]) + record(22, b"") + record(22, message[3:])
    (read,) = MessageReader().feed(stream)
    assert (read.handshake_type, read.body) == (2, b"hi")


def test_a_reader_that_is_over_returns_no_more_messages() -> None:
    reader = MessageReader()
    seen = []
    for message in reader.feed(TWO_IN_ONE + b"garbage"):
        seen.append(message.handshake_type)
        reader.is_over = True
    assert seen == [2]
