from __future__ import annotations

import random
import zlib
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitml4.payload.body import Body, Content
from mitml4.payload.budget import SessionPayload
from mitml4.payload.deflate import EXTENSION, MAX_INFLATED, Deflate, Inflater, negotiated


class Deflater:
    """The sending side (RFC 7692 §7.2.1)."""

    def __init__(self, *, keeps_context: bool = True, wbits: int = 15) -> None:
        self.keeps_context, self.wbits = keeps_context, wbits
        self.compressor = zlib.compressobj(wbits=-wbits)

    def message(self, data: bytes) -> bytes:
        if not self.keeps_context:
            self.compressor = zlib.compressobj(wbits=-self.wbits)
        sent = self.compressor.compress(data) + self.compressor.flush(zlib.Z_SYNC_FLUSH)
        return sent.removesuffix(b"\0\0\xff\xff")


def read(
    messages: Iterable[bytes], *, keeps_context: bool, piece: int = 1 << 20, limit: int = 1000
) -> list[Content]:
    session = SessionPayload(limit=limit)
    payload = session.of_flow()
    inflater = Inflater(keeps_context=keeps_context)
    contents = []
    for message in messages:
        inflater.begin()
        body = Body(payload, (EXTENSION,), inflater)
        for at in range(0, len(message), piece):
            body.write(message[at : at + piece])
        contents.append(body.end(is_complete=True))
    assert payload.held == 0
    return contents


@given(
    messages=st.lists(st.binary(max_size=50) | st.just(b"the same again"), max_size=6),
    keeps_context=st.booleans(),
    wbits=st.integers(9, 15),
    piece=st.integers(1, 30),
)
def test_messages_are_inflated_however_they_are_split(
    messages: list[bytes], keeps_context: bool, wbits: int, piece: int
) -> None:
    deflater = Deflater(keeps_context=keeps_context, wbits=wbits)
    sent = [deflater.message(message) for message in messages]
    contents = read(sent, keeps_context=keeps_context, piece=piece)
    assert [content.data for content in contents] == messages
    assert all(content.encoding == (EXTENSION,) for content in contents if content.size)
    assert not any(content.truncated or content.fault for content in contents)


def test_the_context_stays_right_beyond_the_limit() -> None:
    large = random.Random(3).randbytes(20_000)
    deflater = Deflater()
    sent = [deflater.message(data) for data in (large, large[10_000:10_500], large[:2000])]
    first, second, third = read(sent, keeps_context=True)
    assert (first.data, first.truncated, first.size) == (large[:1000], True, len(sent[0]))
    assert second.data == large[10_000:10_500]
    assert (third.data, third.truncated) == (large[:1000], True)
    assert len(sent[1]) < 100, "it refers to the first one"


def test_a_context_that_costs_too_much_is_given_up() -> None:
    deflater = Deflater()
    sent = [deflater.message(data) for data in (b"one", bytes(MAX_INFLATED * 3), b"two two two")]
    one, bomb, two = read(sent, keeps_context=True, piece=1000)
    assert one.data == b"one"
    for content, message in ((bomb, sent[1]), (two, sent[2])):
        assert content.encoding == ()
        assert content.size == len(message)
        assert content.fault == f"{EXTENSION}: a message of more than {MAX_INFLATED} bytes"
    assert two.data == sent[2]


def test_without_a_context_only_the_message_itself_is_lost() -> None:
    deflater = Deflater(keeps_context=False)
    good = deflater.message(b"good")
    for bad in (b"\xff\xff\xff", deflater.message(bytes(MAX_INFLATED * 2))):
        lost, after = read([bad, good], keeps_context=False)
        assert lost.fault
        assert (after.data, after.fault) == (b"good", None)


def test_a_broken_message_is_shown_as_it_came() -> None:
    contents = read([b"\xff\xff\xff", b"\xff"], keeps_context=True)
    assert [content.data for content in contents] == [b"\xff\xff\xff", b"\xff"]
    assert {content.fault for content in contents} == {f"{EXTENSION}: not valid"}


def test_blocks_that_are_marked_as_the_last_are_read() -> None:
    """RFC 7692 §7.2.3.4 and §7.2.3.5: a BFINAL block, an empty block, several blocks."""
    final = zlib.compressobj(wbits=-15)
    last = final.compress(b"Hello") + final.flush() + b"\x00"
    no_compression = b"\x00\x05\x00\xfa\xffHello\x00"
    two = bytes.fromhex("f248050000 00ffffcac9c90700".replace(" ", ""))
    contents = read([last, no_compression, two], keeps_context=True)
    assert [content.data for content in contents] == [b"Hello"] * 3


@pytest.mark.parametrize(
    ("header", "agreed"),
    [
        (None, None),
        (b"", None),
        (b"x-webkit-deflate-frame", None),
        (b"permessage-deflate", Deflate()),
        (
            b"foo, Permessage-Deflate ; server_max_window_bits=10",
            Deflate(server_window_bits=10),
        ),
        (
            b"permessage-deflate; server_no_context_takeover; client_max_window_bits=15",
            Deflate(server_keeps_context=False),
        ),
        (b"permessage-deflate;client_no_context_takeover", Deflate(client_keeps_context=False)),
    ],
)
def test_what_was_agreed_on_is_read(header: bytes | None, agreed: Deflate | None) -> None:
    assert negotiated(header) == agreed


def test_nothing_is_inflated_once_the_session_shows_nothing_more() -> None:
    payload = SessionPayload(left=0).of_flow()
    inflater = Inflater(keeps_context=True)
    inflater.begin()
    body = Body(payload, (EXTENSION,), inflater)
    body.write(Deflater().message(b"said"))
    assert not body.is_wanted
    content = body.end(is_complete=True)
    assert (content.data, content.truncated) == (b"", True)
    assert content.fault == "not decoded: nothing more is shown in this session"
