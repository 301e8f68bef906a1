"""Bodies and messages as events, the same however the bytes are split."""

from __future__ import annotations

import gzip
import zlib
from base64 import b64decode
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import brotli
from hpack import Encoder
from hyperframe.frame import DataFrame, HeadersFrame, RstStreamFrame, SettingsFrame
from hypothesis import given
from hypothesis import strategies as st

from mitml4.errors import ProtocolError
from mitml4.payload.budget import SessionPayload
from mitml4.protocols.conversation import Conversation, Direction, Forward, LayerContext
from mitml4.protocols.http.events import GrpcMessage, HttpBody, HttpEnd, HttpRequest
from mitml4.protocols.http.http1 import Http1
from mitml4.protocols.http.http2 import Http2
from mitml4.protocols.http.http2_wire import PREFACE
from mitml4.protocols.http.websocket import WebSocket, WebSocketMessage
from mitml4.protocols.payload import Shown

UP, DOWN = Direction.UP, Direction.DOWN
Converse = Callable[..., Any]
Script = list[tuple[Direction, bytes | None]]
Seen = tuple[int, str, bytes, bool]
"""A body: stream, side, content, whether it is truncated."""

HEAD = b"HTTP/1.1 200 OK\r\n"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
TEXT = b"".join(b"%d bottles\n" % number for number in range(300))


def counted(body: bytes, fields: bytes = b"", start: bytes = HEAD) -> bytes:
    return start + fields + b"Content-Length: %d\r\n\r\n" % len(body) + body


def chunked(body: bytes, fields: bytes = b"", start: bytes = HEAD, size: int = 100) -> bytes:
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    lines = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return start + fields + b"Transfer-Encoding: chunked\r\n\r\n" + lines + b"0\r\nX: y\r\n\r\n"


POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
GZIP, BROTLI = b"Content-Encoding: gzip\r\n", b"Content-Encoding: gzip, br\r\n"

HTTP1: dict[str, tuple[Script, list[Seen]]] = {
    "counted": ([(UP, GET), (DOWN, counted(TEXT))], [(1, "response", TEXT, False)]),
    "chunked": ([(UP, GET), (DOWN, chunked(TEXT))], [(1, "response", TEXT, False)]),
    "to the end": (
        [(UP, GET), (DOWN, HEAD + b"\r\n" + TEXT), (DOWN, None)],
        [(1, "response", TEXT, False)],
    ),
    "without a head": (
        [(UP, b"GET / HTTP/1.0\r\n\r\n"), (DOWN, b"<p>page"), (DOWN, None)],
        [(1, "response", b"<p>page", False)],
    ),
    "both ways": (
        [(UP, counted(b"asked", start=POST)), (DOWN, counted(b"answered"))],
        [(1, "request", b"asked", False), (1, "response", b"answered", False)],
    ),
    "a chunked request": (
        [(UP, chunked(b"asked" * 99, start=POST)), (DOWN, counted(b""))],
        [(1, "request", b"asked" * 99, False)],
    ),
    "gzip": (
        [(UP, GET), (DOWN, counted(gzip.compress(TEXT), GZIP))],
        [(1, "response", TEXT, False)],
    ),
    "two codings in chunks": (
        [(UP, GET), (DOWN, chunked(brotli.compress(gzip.compress(TEXT)), BROTLI, size=7))],
        [(1, "response", TEXT, False)],
    ),
    "a transfer coding": (
        [
            (UP, GET),
            (DOWN, HEAD + b"Transfer-Encoding: gzip\r\n\r\n" + gzip.compress(TEXT)),
            (DOWN, None),
        ],
        [(1, "response", TEXT, False)],
    ),
    "pipelined": (
        [
            (UP, counted(b"one", start=POST) + GET + counted(b"three", start=POST)),
            (DOWN, counted(b"1") + chunked(b"2") + counted(b"3")),
        ],
        [
            *((1, "request", b"one", False), (1, "response", b"1", False)),
            *((2, "response", b"2", False),),
            *((3, "request", b"three", False), (3, "response", b"3", False)),
        ],
    ),
    "100 Continue": (
        [
            (UP, POST + b"Expect: 100-continue\r\nContent-Length: 4\r\n\r\n"),
            (DOWN, b"HTTP/1.1 100 Continue\r\n\r\n"),
            (UP, b"body"),
            (DOWN, counted(b"done")),
        ],
        [(1, "request", b"body", False), (1, "response", b"done", False)],
    ),
    "an answer before the body": (
        [
            (UP, POST + b"Content-Length: 4\r\n\r\n"),
            (DOWN, counted(b"no")),
            (UP, b"body" + GET),
            (DOWN, counted(b"2")),
        ],
        [
            (1, "response", b"no", False),
            (1, "request", b"body", False),
            (2, "response", b"2", False),
        ],
    ),
    "a body that is never sent": (
        [
            (UP, POST + b"Content-Length: 4\r\n\r\n"),
            (DOWN, counted(b"no")),
            (UP, GET),
            (DOWN, counted(b"2")),
        ],
        [(1, "response", b"no", False), (2, "response", b"2", False)],
    ),
    "HEAD, 304, 204": (
        [
            (UP, b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"),
            (DOWN, HEAD + b"Content-Length: 9\r\n" + GZIP + b"\r\n"),
            (UP, GET),
            (DOWN, b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n"),
            (UP, GET),
            (DOWN, b"HTTP/1.1 204 No Content\r\n\r\n"),
        ],
        [],
    ),
    "empty bodies": ([(UP, counted(b"", start=POST)), (DOWN, chunked(b"", GZIP))], []),
    "cut": (
        [(UP, GET), (DOWN, counted(TEXT)[:200]), (DOWN, None)],
        [(1, "response", TEXT[: 200 - len(counted(TEXT)) + len(TEXT)], True)],
    ),
    "cut between chunks": (
        [(UP, GET), (DOWN, chunked(b"x" * 99)[:-13]), (DOWN, None)],
        [(1, "response", b"x" * 99, True)],
    ),
    "a cut request": (
        [(UP, counted(b"whole", start=POST)[:-2]), (UP, None), (DOWN, None)],
        [(1, "request", b"who", True)],
    ),
    "a switch of protocols": (
        [
            (UP, GET[:-2] + b"Upgrade: x\r\n\r\n"),
            (DOWN, b"HTTP/1.1 101 S\r\nUpgrade: x\r\n\r\nbytes"),
        ],
        [],
    ),
}


def context(limit: int = 1 << 20, **more: Any) -> LayerContext:
    return LayerContext(shown=Shown(payload=SessionPayload(limit=limit).of_flow()), **more)


def content(event: Any) -> bytes:
    assert (event.text is None) != (event.base64 is None)
    return b64decode(event.base64) if event.text is None else event.text.encode()


def bodies(events: list[Any]) -> list[Seen]:
    found = [event for event in events if isinstance(event, HttpBody)]
    return [(event.stream, event.side, content(event), event.truncated) for event in found]


def played(
    converse: Converse, conversation: Conversation, script: Script, chunk: int | None
) -> list[Any]:
    """The events. What is unfinished ends with the script, and no memory stays held."""
    payload = conversation.context.shown.payload
    assert payload
    talk = converse(conversation, script, chunk=chunk)
    events = [*talk.protocol_events, *conversation.finish().protocol_events]
    assert payload.held == 0
    return events


def check_order(events: list[Any]) -> None:
    """A body comes after its request, and before the end of its exchange."""
    open_streams: set[int] = set()
    for event in events:
        if isinstance(event, HttpRequest):
            open_streams.add(event.stream)
        elif isinstance(event, HttpBody | GrpcMessage):
            assert event.stream in open_streams
        elif isinstance(event, HttpEnd):
            open_streams.remove(event.stream)


def test_bodies_of_http1_in_every_framing_and_split(converse: Converse) -> None:
    for name, (script, expected) in HTTP1.items():
        first = None
        for chunk in (None, 1, 2, 7, 1000):
            events = played(converse, Http1(context=context()), script, chunk)
            assert sorted(bodies(events)) == sorted(expected), (name, chunk)
            check_order(events)
            first = first or events
            assert events == first, (name, chunk)


def test_without_payload_nothing_changes(converse: Converse) -> None:
    for script, _ in HTTP1.values():
        kept = converse(Http1(context=context()), script).protocol_events
        plain = converse(Http1(), script)
        assert plain.protocol_events == [event for event in kept if not isinstance(event, HttpBody)]


@given(limit=st.integers(1, 60), chunk=st.integers(1, 50))
def test_a_body_is_shown_up_to_the_limit_and_counted_to_its_end(
    limit: int, chunk: int, converse: Converse
) -> None:
    for answer in (counted(TEXT), chunked(TEXT), chunked(gzip.compress(TEXT), GZIP)):
        conversation = Http1(context=context(limit))
        events = played(converse, conversation, [(UP, GET), (DOWN, answer)], chunk)
        (body,) = [event for event in events if isinstance(event, HttpBody)]
        (end,) = [event for event in events if isinstance(event, HttpEnd)]
        assert (content(body), body.truncated) == (TEXT[:limit], True)
        assert body.size == end.response_bytes


def test_beyond_the_limit_a_body_moves_unseen(converse: Converse) -> None:
    to_the_end = HEAD + b"\r\n" + TEXT
    for answer, rest in (
        (counted(TEXT)[:-9], 9),
        (to_the_end, None),
        (chunked(TEXT, size=2000)[:1500], 552),
    ):
        conversation = Http1(context=context(100))
        converse(conversation, [(UP, GET), (DOWN, answer[:90])])
        assert isinstance(conversation.down, Forward)
        assert conversation.down.is_copied
        converse(conversation, [(DOWN, answer[90:])])
        assert conversation.down == Forward(rest, is_copied=False)
    conversation = Http1()
    converse(conversation, [(UP, GET), (DOWN, counted(TEXT)[:90])])
    assert isinstance(conversation.down, Forward)
    assert not conversation.down.is_copied


class Peer:
    """One end of a connection of HTTP/2."""

    def __init__(self) -> None:
        self.encoder = Encoder()

    def headers(self, stream: int, *fields: tuple[str, str], end: bool = False) -> bytes:
        frame = HeadersFrame(stream, self.encoder.encode(list(fields)))
        frame.flags |= {"END_HEADERS", *(["END_STREAM"] if end else [])}
        return frame.serialize()


def data(stream: int, piece: bytes, *, end: bool = False, pad: int | None = None) -> bytes:
    frame = DataFrame(stream, piece, pad_length=pad or 0)
    frame.flags |= {*(["END_STREAM"] if end else []), *(["PADDED"] if pad is not None else [])}
    return frame.serialize()


HELLO: Script = [
    (UP, PREFACE + SettingsFrame().serialize()),
    (DOWN, SettingsFrame().serialize()),
]
ASK = [(":method", "POST"), (":scheme", "https"), (":authority", "x"), (":path", "/")]
OK = (":status", "200")


def test_bodies_of_interleaved_and_padded_streams_of_http2(converse: Converse) -> None:
    script = http2_script()
    expected = [
        *((1, "request", b"asked", False), (3, "request", b"third", False)),
        *((1, "response", TEXT, False), (3, "response", TEXT, False)),
        *((5, "response", b"half", True), (7, "response", b"cut ", True)),
    ]
    for chunk in (None, 1, 5, 1000):
        events = played(converse, Http2(context=context()), script, chunk)
        assert sorted(bodies(events)) == sorted(expected), chunk
        check_order(events)
    (first, *_) = [body for body in events if isinstance(body, HttpBody) and body.stream == 3][1:]
    assert (first.size, first.decoded_size) == (len(gzip.compress(TEXT)), len(TEXT))
    assert first.encoding == ("gzip",)


def http2_script() -> Script:
    client, server = Peer(), Peer()
    packed = gzip.compress(TEXT)
    return [
        *HELLO,
        (UP, client.headers(1, *ASK) + client.headers(3, *ASK) + client.headers(5, *ASK)),
        (UP, data(1, b"as", pad=3) + data(3, b"third", end=True) + data(1, b"ked", end=True)),
        (UP, data(5, b"")),
        (DOWN, server.headers(3, (":status", "103"))),
        (DOWN, server.headers(3, OK, ("content-encoding", "gzip")) + server.headers(1, OK)),
        (DOWN, data(3, packed[:50], pad=0) + data(1, TEXT[:99], pad=200)),
        (DOWN, data(3, packed[50:], pad=9) + data(1, TEXT[99:], pad=1)),
        (DOWN, server.headers(1, ("x", "y"), end=True) + data(3, b"", end=True)),
        (DOWN, server.headers(5, OK) + data(5, b"half") + RstStreamFrame(5, 8).serialize()),
        (UP, client.headers(7, *ASK, end=True)),
        (DOWN, server.headers(7, OK) + data(7, b"cut off")[:-3]),
    ]


def grpc(message: bytes, flags: int = 0) -> bytes:
    return bytes([flags]) + len(message).to_bytes(4) + message


def test_messages_of_grpc(converse: Converse) -> None:
    client, server = Peer(), Peer()
    kind = ("content-type", "application/grpc+proto")
    packed = gzip.compress(b"packed" * 20)
    asked, answered = grpc(b"\1\2\3") + grpc(b""), grpc(packed, 1) + grpc(b"plain")
    script: Script = [
        *HELLO,
        (UP, client.headers(1, *ASK, kind) + data(1, asked[:4]) + data(1, asked[4:], end=True)),
        (DOWN, server.headers(1, OK, kind, ("grpc-encoding", "gzip"))),
        *((DOWN, data(1, bytes([byte]))) for byte in answered),
        (DOWN, server.headers(1, ("grpc-status", "0"), end=True)),
    ]
    for chunk in (None, 1, 6):
        events = played(converse, Http2(context=context()), script, chunk)
        check_order(events)
        assert bodies(events) == []
        messages = [event for event in events if isinstance(event, GrpcMessage)]
        assert [
            (each.direction, each.size, each.compressed, b64decode(each.base64))
            for each in messages
        ] == [
            *((UP, 3, False, b"\1\2\3"), (UP, 0, False, b"")),
            *((DOWN, len(packed), True, b"packed" * 20), (DOWN, 5, False, b"plain")),
        ]
        (end,) = [event for event in events if isinstance(event, HttpEnd)]
        assert end.trailers == (("grpc-status", "0"),)


def test_grpc_web_has_its_trailers_in_the_body(converse: Converse) -> None:
    kind = b"Content-Type: application/grpc-web+proto\r\n"
    answer = grpc(b"answer") + grpc(b"grpc-status: 5\r\ngrpc-message:none\r\n", 0x80)
    script: Script = [(UP, counted(grpc(b"ask"), kind, POST)), (DOWN, chunked(answer, kind))]
    for chunk in (None, 1):
        events = played(converse, Http1(context=context()), script, chunk)
        messages = [event for event in events if isinstance(event, GrpcMessage)]
        assert [b64decode(each.base64) for each in messages] == [b"ask", b"answer"]
        (end,) = [event for event in events if isinstance(event, HttpEnd)]
        assert end.trailers == (("grpc-status", "5"), ("grpc-message", "none"))
    text = b"Content-Type: application/grpc-web-text\r\n"
    (body,) = bodies(
        played(
            converse, Http1(context=context()), [(UP, GET), (DOWN, counted(b"AAAA", text))], None
        )
    )
    assert body == (1, "response", b"AAAA", False)


def masked(payload: bytes, key: bytes = b"\x12\x00\xfe\x7f") -> bytes:
    return key + bytes(byte ^ key[at % 4] for at, byte in enumerate(payload))


def frame(
    opcode: int, payload: bytes, *, fin: bool = True, mask: bool = False, rsv: int = 0
) -> bytes:
    size = len(payload)
    short = bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2)
    length = bytes([short[0] | (0x80 if mask else 0)]) + short[1:]
    return (
        bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
        + length
        + (masked(payload) if mask else payload)
    )


class Deflater:
    def __init__(self) -> None:
        self.compressor = zlib.compressobj(wbits=-15)

    def __call__(self, message: bytes) -> bytes:
        sent = self.compressor.compress(message) + self.compressor.flush(zlib.Z_SYNC_FLUSH)
        return sent.removesuffix(b"\0\0\xff\xff")


def websocket() -> tuple[Script, list[tuple[Direction, str, str | None, bytes, bool | None]]]:
    """A conversation with permessage-deflate, and its messages."""
    up, down = Deflater(), Deflater()
    hello, again = up(b"hello hello hello"), up(b"hello hello hello")
    binary, large = down(bytes(range(256)) * 2), down(b"x" * 5000)
    after = down(b"still right")
    script: Script = [
        (UP, frame(1, hello[:3], mask=True, rsv=4, fin=False)),
        (UP, frame(9, b"ping", mask=True) + frame(0, hello[3:], mask=True)),
        (DOWN, frame(2, binary, rsv=4) + frame(1, "grüße".encode()) + frame(1, b"")),
        (UP, frame(1, again, mask=True, rsv=4)),
        (DOWN, frame(1, large[:5], rsv=4, fin=False) + frame(0, large[5:])),
        (DOWN, frame(1, after, rsv=4) + frame(8, b"\x03\xe8bye")),
        (UP, frame(1, b"never ended", mask=True)[:-4]),
    ]
    return script, [
        (UP, "ping", None, b"ping", False),
        (UP, "text", "hello hello hello", b"", False),
        (DOWN, "binary", None, bytes(range(256)) * 2, False),
        (DOWN, "text", "grüße", b"", False),
        (DOWN, "text", "", b"", False),
        (UP, "text", "hello hello hello", b"", False),
        (DOWN, "text", "x" * 1000, b"", True),
        (DOWN, "text", "still right", b"", False),
        (DOWN, "close", None, b"\x03\xe8bye", False),
    ]


def messages_of(events: list[Any]) -> list[Any]:
    return [
        (each.direction, each.opcode, each.text, b64decode(each.base64 or ""), each.truncated)
        for each in events
        if isinstance(each, WebSocketMessage)
    ]


def test_messages_of_a_websocket_are_unmasked_and_inflated(converse: Converse) -> None:
    script, expected = websocket()
    for chunk in (None, 1, 3, 1000):
        conversation = WebSocket(context=context(1000, negotiated=b"permessage-deflate"))
        events = played(converse, conversation, script, chunk)
        assert messages_of(events) == expected


def test_messages_of_a_websocket_in_a_stream_of_http2(converse: Converse) -> None:
    script, expected = websocket()
    client, server = Peer(), Peer()
    ask = [(":method", "CONNECT"), (":protocol", "websocket"), *ASK[1:]]
    inside: Script = [
        *HELLO,
        (UP, client.headers(1, *ask)),
        (DOWN, server.headers(1, OK, ("sec-websocket-extensions", "permessage-deflate"))),
    ]
    for direction, sent in script:
        inside += [
            (direction, data(1, (sent or b"")[at : at + 40]))
            for at in range(0, len(sent or b""), 40)
        ]
    for chunk in (None, 1):
        events = played(converse, Http2(context=context(1000)), inside, chunk)
        assert messages_of(events) == expected
        assert bodies(events) == []


def test_a_message_of_an_unknown_extension_is_shown_as_it_came(converse: Converse) -> None:
    script: Script = [(DOWN, frame(1, b"\xaa\xbb", rsv=4) + frame(1, b"plain"))]
    conversation = WebSocket(context=context())
    coded, plain = played(converse, conversation, script, None)
    assert b64decode(coded.base64) == b"\xaa\xbb"
    assert coded.coding_error
    assert (plain.text, plain.coding_error) == ("plain", None)


def test_an_upgrade_hands_on_the_extensions(converse: Converse) -> None:
    conversation = Http1(context=context())
    upgrade, extensions = b"Upgrade: websocket\r\n", b"Sec-WebSocket-Extensions: permessage-deflate"
    ask = GET[:-2] + upgrade + extensions + b"\r\n\r\n"
    answer = b"HTTP/1.1 101 S\r\n" + upgrade + extensions + b"; server_no_context_takeover\r\n\r\n"
    converse(conversation, [(UP, ask), (DOWN, answer)])
    assert conversation.negotiated == b"permessage-deflate; server_no_context_takeover"


@given(data=st.data())
def test_broken_bytes_cost_no_memory(data: st.DataObject, converse: Converse) -> None:
    """Whatever is changed in a conversation, it ends with a ProtocolError at worst."""
    kind = data.draw(st.sampled_from([Http1, Http2, WebSocket]))
    script: Script
    if kind is WebSocket:
        script = websocket()[0]
    elif kind is Http2:
        script = http2_script()
    else:
        script = data.draw(st.sampled_from([script for script, _ in HTTP1.values()]))
    at = data.draw(st.integers(0, len(script) - 1))
    direction, sent = script[at]
    if sent:
        place = data.draw(st.integers(0, len(sent) - 1))
        changed = sent[:place] + data.draw(st.binary(max_size=3)) + sent[place + 1 :]
        script = [*script[:at], (direction, changed), *script[at + 1 :]]
    given_context = context(
        data.draw(st.sampled_from([10, 5000])), negotiated=b"permessage-deflate"
    )
    conversation = kind(context=given_context)
    with suppress(ProtocolError):
        converse(conversation, script, chunk=data.draw(st.sampled_from([None, 1, 50])))
    conversation.finish()
    payload = given_context.shown.payload
    assert payload
    assert payload.held == 0
