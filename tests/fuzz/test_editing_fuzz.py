"""Any bytes end an edited connection in order, or pass."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from contextlib import suppress

import brotli
from hypothesis import given
from hypothesis import strategies as st

from mitml4.edit.codings import decoded
from mitml4.edit.http1 import BodyReader, head_length, read_request, read_response
from mitml4.edit.http2.core import Http2Core
from mitml4.edit.memory import EditMemory
from mitml4.edit.parser import RulesError, parse_rules
from mitml4.edit.websocket import MessageEdit, Pending, TooLargeError
from mitml4.errors import ProtocolError
from mitml4.payload.codings import zstd_module
from mitml4.payload.deflate import Deflate
from mitml4.protocols.conversation import Direction
from mitml4.protocols.http.http1_heads import Part
from mitml4.protocols.http.http2_wire import PREFACE

UP, DOWN = Direction.UP, Direction.DOWN

# Most of what comes is right, or the first fault would end every example.
STARTS = st.sampled_from([b"GET / HTTP/1.1", b"HTTP/1.1 200 OK"])
FIELDS = st.sampled_from(
    [b"Host: a", b"Content-Length: 3", b"Transfer-Encoding: chunked", b"Content-Encoding: gzip"]
)
ODD_LINES = st.sampled_from([b" fold", b":", b"x", b"A:"]) | st.binary(max_size=9)
HEADS = st.builds(
    lambda start, fields, odd: b"\r\n".join([start, *fields, *odd, b"", b""]),
    STARTS,
    st.lists(FIELDS, max_size=3, unique=True),
    st.just([]) | st.lists(ODD_LINES, max_size=2),
)
BODIES = st.lists(
    st.sampled_from([b"3\r\nabc\r\n", b"3;x=y\r\nabc\r\n", b"0\r\n\r\n", b"0\r\nA: b\r\n\r\n"])
    | st.binary(max_size=9),
    max_size=6,
).map(b"".join)


def frame(kind: int, flags: int, number: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + number.to_bytes(4) + payload


REQUEST, RESPONSE = b"\x82\x86\x84\x41\x01a", b"\x88"
STREAMS = (1, 3, 5)


@st.composite
def steps(draw: st.DrawFn) -> list[tuple[Direction, bytes]]:
    """Frames of HTTP/2 behind requests whose bodies may go on, all but the last well formed."""
    out = [(UP, frame(1, draw(st.sampled_from([4, 5])), number, REQUEST)) for number in STREAMS]
    for _ in range(draw(st.integers(0, 12))):
        direction, number = draw(st.sampled_from(Direction)), draw(st.sampled_from(STREAMS))
        kind, flags, payload = draw(
            st.sampled_from(
                [(0, 0, b"body"), (0, 0, bytes(300)), (0, 1, b""), (8, 0, b"\0\0\0\1")]
                + [(1, 4, RESPONSE)] * 3 * (direction is DOWN)
                + [(3, 0, b"\0\0\0\x08"), (1, 5, b"")] * (direction is UP)
            )
        )
        out.append((direction, frame(kind, flags, number, payload)))
    if draw(st.booleans()):
        odd = draw(st.integers(0, 10)), draw(st.sampled_from([0, 1, 4, 5, 8, 0x2D]))
        payload = draw(st.binary(max_size=24) | st.sampled_from([REQUEST, b"\0\4\0\0\0\1"]))
        direction, number = draw(st.sampled_from(Direction)), draw(st.integers(0, 6))
        out.append((direction, frame(*odd, number, payload)))
    return out


MESSAGES = ((0x81,), (0x82,), (1, 0, 0x80), (2, 0x89, 0x80), (0xC1,), (0x8A,), (0x80,), (0x83,))
"""The first bytes of their frames; the last two are none."""


def websocket_frame(first: int, payload: bytes, key: bytes) -> bytes:
    return bytes([first, len(payload) | 0x80 * bool(key)]) + key + masked(payload, key)


def masked(data: bytes, key: bytes) -> bytes:
    return bytes(byte ^ key[at % 4] for at, byte in enumerate(data)) if key else data


def deflated(content: bytes) -> bytes:
    """As permessage-deflate has it (RFC 7692 §7.2.1)."""
    packer = zlib.compressobj(wbits=-15)
    return (packer.compress(content) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]


CODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstd_module().compress,
}


@given(HEADS, BODIES, st.sampled_from([Part.CHUNK_LINE, Part.COUNTED, Part.UNTIL_END]))
def test_http_1(head: bytes, body: bytes, part: Part) -> None:
    with suppress(ProtocolError):
        length = head_length(head + body)
        assert length
        for read in (
            lambda raw: read_request(raw, scheme="http", authority="a", stream=1),
            lambda raw: read_response(raw, "GET"),
        ):
            with suppress(ProtocolError):
                taken_apart, message = read(head[:length])
                assert taken_apart.bytes_of(message) == head[:length]  # type: ignore[arg-type]
    with suppress(ProtocolError):
        whole = BodyReader(part, 20)
        taken, content = whole.feed(body)
        assert taken <= len(body)
        split, at, pieces = BodyReader(part, 20), 0, b""
        for end in range(1, len(body) + 1):
            count, found = split.feed(body[at:end])
            at += count
            pieces += b"".join(found)
        assert (at, pieces) == (taken, b"".join(content))


@given(steps(), st.booleans())
def test_http_2(script: list[tuple[Direction, bytes]], collects: bool) -> None:
    memory = EditMemory(500)
    core = Http2Core(1000, memory)
    settings = b"\0\0\0\x04\0\0\0\0\0"
    with suppress(ProtocolError):
        for direction, data in ((UP, PREFACE + settings), (DOWN, settings), *script):
            core.receive(direction, data)
            while core.jobs:
                job = core.jobs.pop(0)
                half = job.stream.half(job.direction)
                if collects and not half.was_asked and not core.collect(job.stream, job.direction):
                    continue
                core.release(job.stream, job.direction, None)
            core.take(UP)
            core.take(DOWN)
    core.close()
    assert memory.free == 500


@given(
    st.lists(st.tuples(st.sampled_from(MESSAGES), st.binary(max_size=9)), min_size=1, max_size=6),
    st.sampled_from(Direction),
    st.binary(max_size=9),
    st.booleans(),
    st.integers(1, 20),
)
def test_websocket(
    messages: list[tuple[tuple[int, ...], bytes]],
    direction: Direction,
    rest: bytes,
    compressed: bool,
    split: int,
) -> None:
    """Whole messages, then any bytes."""
    key = b"\1\2\3\4" if direction is UP else b""
    frames = [
        websocket_frame(first, deflated(content) if first & 0x40 else content, key)
        for message, content in messages
        for first in message
    ]
    data = b"".join([*frames, rest])
    edit = MessageEdit(direction, Deflate() if compressed else None, 1000)
    with suppress(TooLargeError):
        for at in range(0, len(data), split):
            for item in edit.receive(data[at : at + split]):
                if isinstance(item, Pending):
                    item.message.content += b"!"
                    edit.encode(item)


@given(
    st.binary(max_size=40) | st.integers(900, 2000).map(bytes),
    st.sampled_from(list(CODERS)),
    st.just(None) | st.tuples(st.integers(0, 60), st.binary(max_size=3)),
)
def test_codings(content: bytes, coding: str, damage: tuple[int, bytes] | None) -> None:
    data = CODERS[coding](content)
    if damage:
        at, other = damage
        data = data[:at] + other + data[at + len(other) + 1 :]
    found = decoded(data, (coding,), 1000)
    assert found is None or len(found) <= 1000
    if not damage:
        assert found == (content if len(content) <= 1000 else None)
    assert decoded(data, ("x",), 1000) is None


@given(
    st.lists(
        st.sampled_from(
            ["match = 'port:1'", "close = true", "to = 'http://a'", "delay = '1s'", "hang = true"]
        ),
        min_size=1,
        max_size=3,
        unique=True,
    ),
    st.just([]) | st.lists(st.sampled_from(["[[rule]]", "file = '..'"]) | st.text(max_size=20)),
)
def test_rules(lines: list[str], others: list[str]) -> None:
    text = "\n".join(["[[rule]]", *lines, *others])
    with suppress(RulesError):
        parse_rules("r.toml", text.encode("utf-8", "surrogatepass"))
