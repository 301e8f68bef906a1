"""What a client may send in HTTP/2. What breaks RFC 9113 is refused as a server would refuse it,
also where the server sees nothing of it."""

from __future__ import annotations

import pytest
from hpack import Encoder

from mitml4.edit.http2.core import Http2Core
from mitml4.edit.memory import EditMemory
from mitml4.protocols.conversation import Direction
from mitml4.protocols.http import http2_wire as wire
from mitml4.protocols.http.http2_wire import ErrorCode, Http2Error, frame_bytes

UP, DOWN = Direction.UP, Direction.DOWN
PING = 6
BEGIN = wire.PREFACE + frame_bytes(wire.SETTINGS, 0, 0)
FIELDS = [(":method", "GET"), (":scheme", "http"), (":authority", "a.test"), (":path", "/")]
BLOCK = Encoder().encode(FIELDS)
CANCELLED = (8).to_bytes(4)
MAX_INCREMENT = (0x7FFFFFFF).to_bytes(4)


def head(stream: int = 1, *, ends: bool = True) -> bytes:
    # Without the table, so that a block may come again, or be left out.
    block = Encoder().encode(FIELDS)
    return frame_bytes(
        wire.HEADERS, wire.END_HEADERS | (wire.END_STREAM if ends else 0), stream, block
    )


def core(**limits: int) -> Http2Core:
    """One whose server has sent these settings, and whose client has acknowledged them."""
    made = Http2Core(100_000, EditMemory(200_000))
    numbers = {"streams": wire.MAX_CONCURRENT_STREAMS, "frame": wire.MAX_FRAME_SIZE}
    payload = b"".join(wire.SETTING.pack(numbers[name], value) for name, value in limits.items())
    made.receive(DOWN, frame_bytes(wire.SETTINGS, 0, 0, payload))
    made.receive(UP, BEGIN + frame_bytes(wire.SETTINGS, wire.ACK, 0))
    return made


WRONG = {
    "DATA on an idle stream": (frame_bytes(wire.DATA, 0, 1, b"a"), ErrorCode.PROTOCOL_ERROR),
    "RST_STREAM on an idle stream": (
        frame_bytes(wire.RST_STREAM, 0, 1, CANCELLED),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "WINDOW_UPDATE on an idle stream": (
        frame_bytes(wire.WINDOW_UPDATE, 0, 1, b"\0\0\0\1"),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "an even number": (head(2), ErrorCode.PROTOCOL_ERROR),
    "a lower number": (head(5) + head(3), ErrorCode.STREAM_CLOSED),
    "DATA after the end": (
        head() + frame_bytes(wire.DATA, wire.END_STREAM, 1, b"a"),
        ErrorCode.STREAM_CLOSED,
    ),
    "HEADERS after the end": (head() + head(), ErrorCode.STREAM_CLOSED),
    "DATA after RST_STREAM": (
        head(ends=False)
        + frame_bytes(wire.RST_STREAM, 0, 1, CANCELLED)
        + frame_bytes(wire.DATA, 0, 1, b"a"),
        ErrorCode.STREAM_CLOSED,
    ),
    "trailers that do not end": (head(ends=False) + head(ends=False), ErrorCode.PROTOCOL_ERROR),
    "DATA on stream 0": (frame_bytes(wire.DATA, 0, 0, b"a"), ErrorCode.PROTOCOL_ERROR),
    "RST_STREAM on stream 0": (
        frame_bytes(wire.RST_STREAM, 0, 0, CANCELLED),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "HEADERS on stream 0": (head(0), ErrorCode.PROTOCOL_ERROR),
    "RST_STREAM of 3 bytes": (
        frame_bytes(wire.RST_STREAM, 0, 1, b"abc"),
        ErrorCode.FRAME_SIZE_ERROR,
    ),
    "PRIORITY of 4 bytes": (
        frame_bytes(wire.PRIORITY, 0, 1, b"abcd"),
        ErrorCode.FRAME_SIZE_ERROR,
    ),
    "SETTINGS of 3 bytes": (
        frame_bytes(wire.SETTINGS, 0, 0, b"abc"),
        ErrorCode.FRAME_SIZE_ERROR,
    ),
    "DATA above the limit": (
        head(ends=False) + frame_bytes(wire.DATA, 0, 1, bytes(16385)),
        ErrorCode.FRAME_SIZE_ERROR,
    ),
    "WINDOW_UPDATE of 0": (
        frame_bytes(wire.WINDOW_UPDATE, 0, 0, bytes(4)),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "a window above 2^31-1": (
        head() + frame_bytes(wire.WINDOW_UPDATE, 0, 1, MAX_INCREMENT) * 2,
        ErrorCode.FLOW_CONTROL_ERROR,
    ),
    "a block that cannot be decoded": (
        frame_bytes(wire.HEADERS, wire.END_STREAM | wire.END_HEADERS, 1, b"\x40"),
        ErrorCode.COMPRESSION_ERROR,
    ),
    "a block that is interrupted": (
        frame_bytes(wire.HEADERS, 0, 1, BLOCK) + head(3),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "CONTINUATION of nothing": (
        frame_bytes(wire.CONTINUATION, wire.END_HEADERS, 1, BLOCK),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "PUSH_PROMISE": (
        frame_bytes(wire.PUSH_PROMISE, wire.END_HEADERS, 1, b"\0\0\0\2" + BLOCK),
        ErrorCode.PROTOCOL_ERROR,
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_breaks_the_protocol_is_refused_with_its_code(wrong: str) -> None:
    frames, code = WRONG[wrong]
    broken = core()
    with pytest.raises(Http2Error) as caught:
        broken.receive(UP, frames)
    assert caught.value.code == code
    broken.take(DOWN)
    broken.fail(caught.value.code)
    told = broken.take(DOWN)
    assert told[3] == wire.GOAWAY
    assert int.from_bytes(told[13:17]) == code


def test_the_preface_has_settings() -> None:
    broken = Http2Core(1000, EditMemory(1000))
    with pytest.raises(Http2Error, match="SETTINGS"):
        broken.receive(UP, wire.PREFACE + frame_bytes(PING, 0, 0, bytes(8)))
    broken.fail(ErrorCode.PROTOCOL_ERROR)
    assert broken.take(DOWN).startswith(frame_bytes(wire.SETTINGS, 0, 0)), "also a server's preface"


def test_what_a_client_cannot_know_yet_is_no_error() -> None:
    """Frames on a stream that the server has reset, trailers too; they add to the table."""
    asked = core()
    asked.receive(UP, head(ends=False))
    stream = asked.streams[1]
    asked.release(stream, UP, None)
    asked.receive(DOWN, frame_bytes(wire.RST_STREAM, 0, 1, CANCELLED))
    encoder = Encoder()
    encoder.encode(FIELDS)
    trailers = encoder.encode([("a", "b")])
    asked.receive(UP, frame_bytes(wire.DATA, 0, 1, b"more"))
    asked.receive(UP, frame_bytes(wire.HEADERS, wire.END_STREAM | wire.END_HEADERS, 1, trailers))
    assert not asked.streams
    asked.receive(UP, frame_bytes(wire.WINDOW_UPDATE, 0, 1, b"\0\0\0\1"))
    asked.receive(UP, frame_bytes(wire.RST_STREAM, 0, 1, CANCELLED))


def test_a_server_that_allows_longer_frames_gets_them() -> None:
    core(frame=20_000).receive(UP, head(ends=False) + frame_bytes(wire.DATA, 0, 1, bytes(16385)))


def test_streams_above_the_servers_limit_are_refused() -> None:
    full = core(streams=2)
    full.receive(UP, head(1) + head(3) + head(5))
    assert list(full.streams) == [1, 3]
    refusal = frame_bytes(wire.RST_STREAM, 0, 5, ErrorCode.REFUSED_STREAM.to_bytes(4))
    assert full.take(DOWN).endswith(refusal)
    full.receive(UP, frame_bytes(wire.RST_STREAM, 0, 3, CANCELLED) + head(7))
    assert list(full.streams) == [1, 7]


def test_a_limit_holds_once_the_client_knows_it() -> None:
    early = Http2Core(1000, EditMemory(1000))
    limit = wire.SETTING.pack(wire.MAX_CONCURRENT_STREAMS, 1)
    early.receive(DOWN, frame_bytes(wire.SETTINGS, 0, 0, limit))
    early.receive(UP, BEGIN + head(1) + head(3))
    early.receive(DOWN, frame_bytes(wire.SETTINGS, 0, 0))  # says nothing of streams
    early.receive(UP, frame_bytes(wire.SETTINGS, wire.ACK, 0) * 2 + head(5))
    assert list(early.streams) == [1, 3]
