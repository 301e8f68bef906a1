"""Any bytes end an edited connection in order, or pass."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from mitml4.edit.codings import decoded
from mitml4.edit.http1 import BodyReader, head_length, read_request, read_response
from mitml4.edit.http2.core import Http2Core
from mitml4.edit.memory import EditMemory
from mitml4.edit.parser import RulesError, parse_rules
from mitml4.edit.websocket import MessageEdit, Pending, TooLargeError
from mitml4.errors import ProtocolError
from mitml4.payload.deflate import Deflate
from mitml4.protocols.conversation import Direction
from mitml4.protocols.http.http1_heads import Part
from mitml4.protocols.http.http2_wire import PREFACE

UP, DOWN = Direction.UP, Direction.DOWN

LINES = st.sampled_from(
    [
        *(b"GET / HTTP/1.1", b"HTTP/1.1 200 OK", b"Host: a", b"Content-Length: 3", b"", b" fold"),
        *(b"Transfer-Encoding: chunked", b"Content-Encoding: gzip", b"3", b"abc", b"0", b":", b"x"),
    ]
)
HTTP = st.lists(LINES | st.binary(max_size=9), max_size=12).map(b"\r\n".join)


def frame(kind: int, flags: int, number: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + number.to_bytes(4) + payload


@st.composite
def frames(draw: st.DrawFn, fields: bytes) -> bytes:
    """Frames of HTTP/2 that are mostly well formed, behind a message whose body may go on."""
    out = b""
    if draw(st.booleans()):
        out += frame(1, draw(st.sampled_from([4, 5])), 1, fields) + frame(0, 0, 1, b"body")
    for _ in range(draw(st.integers(0, 12))):
        payload = draw(
            st.binary(max_size=24)
            | st.sampled_from([b"\x82\x86\x84\x41\x01a", b"\x88", b"\0\0\0\x01", b"\0\4\0\0\0\1"])
        )
        kind, flags = draw(st.integers(0, 10)), draw(st.sampled_from([0, 1, 4, 5, 8, 0x2D]))
        number = draw(st.integers(0, 6))
        out += frame(kind, flags, number, payload)
    return out


@given(HTTP, st.sampled_from([Part.CHUNK_LINE, Part.COUNTED, Part.UNTIL_END]))
def test_http_1(data: bytes, part: Part) -> None:
    with suppress(ProtocolError):
        if length := head_length(data):
            for read in (
                lambda raw: read_request(raw, scheme="http", authority="a", stream=1),
                lambda raw: read_response(raw, "GET"),
            ):
                with suppress(ProtocolError):
                    head, message = read(data[:length])
                    assert head.bytes_of(message) == data[:length]  # type: ignore[arg-type]
    with suppress(ProtocolError):
        whole = BodyReader(part, 20)
        taken, content = whole.feed(data)
        assert taken <= len(data)
        split, at, pieces = BodyReader(part, 20), 0, b""
        for end in range(1, len(data) + 1):
            count, found = split.feed(data[at:end])
            at += count
            pieces += b"".join(found)
        assert (at, pieces) == (taken, b"".join(content))


@given(frames(b"\x82\x86\x84\x41\x01a"), frames(b"\x88"), st.booleans())
def test_http_2(up: bytes, down: bytes, collects: bool) -> None:
    memory = EditMemory(500)
    core = Http2Core(1000, memory)
    settings = b"\0\0\0\x04\0\0\0\0\0"
    with suppress(ProtocolError):
        for direction, data in ((UP, PREFACE + settings), (DOWN, settings), (UP, up), (DOWN, down)):
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


@given(st.binary(max_size=200), st.booleans(), st.integers(1, 20))
def test_websocket(data: bytes, compressed: bool, split: int) -> None:
    edit = MessageEdit(DOWN, Deflate() if compressed else None, 1000)
    with suppress(TooLargeError):
        for at in range(0, len(data), split):
            for item in edit.receive(data[at : at + split]):
                if isinstance(item, Pending):
                    item.message.content += b"!"
                    edit.encode(item)


@given(st.binary(max_size=100), st.sampled_from(["gzip", "deflate", "br", "zstd", "x"]))
def test_codings(data: bytes, coding: str) -> None:
    found = decoded(data, (coding,), 1000)
    assert found is None or len(found) <= 1000


@given(
    st.lists(
        st.sampled_from(
            ["[[rule]]", "match = 'port:1'", "to = 'http://a'", "file = '..'", "delay = '1s'"]
        )
        | st.text(max_size=20),
        max_size=8,
    )
)
def test_rules(lines: list[str]) -> None:
    with suppress(RulesError):
        parse_rules("r.toml", "\n".join(lines).encode("utf-8", "surrogatepass"))
