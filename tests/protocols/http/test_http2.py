from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hpack import Encoder, HPACKError
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from hypothesis import given
from hypothesis import strategies as st

from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import (
    MIRROR,
    Direction,
    LayerContext,
    Opening,
    Target,
    Verdict,
)
from mitml4.protocols.http.events import HttpEnd, HttpRequest, HttpResponse
from mitml4.protocols.http.exchange import MAX_TRAILER_BYTES
from mitml4.protocols.http.http2 import MAX_STREAMS, PROTOCOL, Http2, Http2Details
from mitml4.protocols.http.http2_frames import (
    MAX_HEADER_BLOCK,
    MAX_TABLE,
    _decoder,
    _Side,
)
from mitml4.protocols.http.http2_wire import PREFACE
from mitml4.protocols.http.websocket import WebSocketMessage
from mitml4.protocols.payload import Shown
from mitml4.protocols.protocol_event import StreamLayer
from mitml4.protocols.wire_text import CUT, MAX_TEXT, pairs

UP, DOWN = Direction.UP, Direction.DOWN
Converse = Callable[..., Any]
Pairs = list[tuple[str, str]]

SETTINGS = SettingsFrame().serialize()
HELLO = PREFACE + SETTINGS
GET = [(":method", "GET"), (":scheme", "https"), (":authority", "x"), (":path", "/a")]
POST = [(":method", "POST"), *GET[1:], ("content-type", "application/grpc+proto")]
WEBSOCKET = [(":method", "CONNECT"), (":protocol", "websocket"), *GET[1:]]
OK = [(":status", "200"), ("content-type", "text/html")]


class Peer:
    """One end of a connection, with its own compression state."""

    def __init__(self) -> None:
        self.encoder = Encoder()

    def block(self, fields: Pairs) -> bytes:
        return self.encoder.encode(fields)

    def headers(self, stream: int, fields: Pairs, *, end: bool = False, **more: Any) -> bytes:
        flags = {"END_HEADERS"} | ({"END_STREAM"} if end else set()) | more.pop("flags", set())
        frame = HeadersFrame(stream, self.block(fields), flags=flags, **more)
        return frame.serialize()


def data(stream: int, content: bytes, *, end: bool = False, pad: int | None = None) -> bytes:
    flags = {"END_STREAM"} if end else set()
    if pad is None:
        return DataFrame(stream, content, flags=flags).serialize()
    return DataFrame(stream, content, flags=flags | {"PADDED"}, pad_length=pad).serialize()


def brief(protocol_events: Sequence[object]) -> list[str]:
    lines = []
    for protocol_event in protocol_events:
        match protocol_event:
            case HttpRequest():
                lines.append(
                    f"{protocol_event.stream} {protocol_event.method} {protocol_event.url}"
                )
            case HttpResponse():
                lines.append(f"{protocol_event.stream} {protocol_event.status}")
            case HttpEnd():
                sizes = f"{protocol_event.request_bytes}/{protocol_event.response_bytes}"
                outcome = (
                    "" if protocol_event.outcome == "complete" else f" {protocol_event.outcome}"
                )
                code = f" {protocol_event.reset_code}" if protocol_event.reset_code else ""
                lines.append(f"{protocol_event.stream} end {sizes}{outcome}{code}")
            case StreamLayer():
                lines.append(protocol_event.protocol)
            case WebSocketMessage():
                direction = protocol_event.direction.value
                lines.append(
                    f"{protocol_event.stream} {direction} "
                    f"{protocol_event.opcode} {protocol_event.size}"
                )
    return lines


def busy_connection() -> tuple[list[tuple[Direction, bytes]], list[str]]:
    """Every kind of frame that matters, and what is to be told of it."""
    client, server = Peer(), Peer()
    hints = server.headers(1, [(":status", "103"), ("link", "</s>")])
    block = server.block([*OK, ("x-long", "y" * 300)])
    promise = PushPromiseFrame(3, 2, server.block(GET), flags={"END_HEADERS", "PADDED"})
    promise.pad_length = 4
    ping = PingFrame(0, b"12345678").serialize()
    script = [
        (UP, HELLO + WindowUpdateFrame(0, 99).serialize() + client.headers(1, GET, end=True)),
        (DOWN, SETTINGS + SettingsFrame(flags={"ACK"}).serialize() + ping),
        (DOWN, hints),
        (
            UP,
            SettingsFrame(flags={"ACK"}).serialize()
            + PriorityFrame(3, depends_on=1, stream_weight=7).serialize()
            + client.headers(3, POST, flags={"PRIORITY", "PADDED"}, pad_length=9),
        ),
        (
            DOWN,
            HeadersFrame(1, block[:9]).serialize()
            + ContinuationFrame(1, b"").serialize()
            + ContinuationFrame(1, block[9:], flags={"END_HEADERS"}).serialize(),
        ),
        (UP, data(3, b"abc", pad=0) + data(3, b"defg", pad=200) + data(99, b"whose?")),
        (DOWN, data(1, bytes(20_000)) + promise.serialize() + data(1, b"z", end=True)),
        (DOWN, bytes([0, 0, 3, 0xBB, 0, 0, 0, 0, 0]) + b"ext" + server.headers(2, OK)),
        (UP, client.headers(3, [("x-trailer", "1")], end=True)),
        (DOWN, server.headers(3, OK) + data(3, b"12") + data(2, b"pushed", end=True)),
        (DOWN, server.headers(3, [("grpc-status", "0")], end=True)),
        (UP, client.headers(5, GET) + client.headers(7, GET, end=True)),
        (UP, RstStreamFrame(5, 8).serialize() + client.headers(9, GET, end=True)),
        (DOWN, GoAwayFrame(0, last_stream_id=7, additional_data=b"bye").serialize()),
        (DOWN, server.headers(7, [(":status", "204")], end=True)),
    ]
    expected = [
        *("1 GET https://x/a", "1 103", "3 POST https://x/a", "1 200"),
        *("2 GET https://x/a", "1 end 0/20001", "2 200", "3 200", "2 end 0/6", "3 end 7/2"),
        *("5 GET https://x/a", "7 GET https://x/a", "5 end 0/0 reset CANCEL", "9 GET https://x/a"),
        *("9 end 0/0 reset NO_ERROR", "7 204", "7 end 0/0"),
    ]
    return script, expected


@pytest.mark.parametrize("chunk", [None, 1, 10])
def test_every_split_gives_the_same_notices(chunk: int | None, converse: Converse) -> None:
    script, expected = busy_connection()
    conversation = Http2()
    assert (conversation.up, conversation.down) == (MIRROR, MIRROR)
    talk = converse(conversation, script, chunk=chunk)
    assert brief(talk.protocol_events) == expected
    assert conversation.details() == Http2Details(grpc=True, extended_connect=False)


def test_the_server_may_speak_first(converse: Converse) -> None:
    conversation, client, server = Http2(), Peer(), Peer()
    converse(conversation, [(DOWN, SETTINGS)])
    assert not conversation.details_ready
    talk = converse(conversation, [(UP, HELLO)])
    script = [(UP, client.headers(1, GET, end=True)), (DOWN, server.headers(1, OK, end=True))]
    talk = converse(conversation, script)
    assert brief(talk.protocol_events) == ["1 GET https://x/a", "1 200", "1 end 0/0"]


def test_the_layer_is_told_with_its_first_request(converse: Converse) -> None:
    for request, details in (
        (POST, Http2Details(grpc=True, extended_connect=False)),
        (WEBSOCKET, Http2Details(grpc=False, extended_connect=True)),
    ):
        conversation, client = Http2(), Peer()
        converse(conversation, [(UP, HELLO), (DOWN, SETTINGS)])
        assert not conversation.details_ready
        converse(conversation, [(UP, client.headers(1, request))])
        assert conversation.details_ready
        assert conversation.details() == details


@pytest.mark.parametrize("chunk", [None, 1, 5])
def test_a_websocket_in_a_stream_is_followed(chunk: int | None, converse: Converse) -> None:
    conversation, client, server = Http2(), Peer(), Peer()
    masked = b"\x81\x83abcd" + b"xyz"
    script = [
        (UP, HELLO + client.headers(1, WEBSOCKET) + client.headers(3, GET, end=True)),
        (UP, client.headers(5, WEBSOCKET)),
        (DOWN, SETTINGS + server.headers(1, [(":status", "200")])),
        (DOWN, server.headers(5, [(":status", "403")]) + data(5, b"\x81\x01a", end=True)),
        (UP, data(1, masked[:4], pad=3) + data(1, masked[4:], pad=0)),
        (DOWN, data(1, b"\x02\x02ab") + server.headers(3, OK, end=True) + data(1, b"\x80\0")),
        (DOWN, data(1, b"\xff no frame")),
        (DOWN, data(1, b"\x88\0", end=True)),
        (UP, data(1, b"", end=True)),
    ]
    talk = converse(conversation, script, chunk=chunk)
    assert brief(talk.protocol_events) == [
        *("1 CONNECT https://x/a", "3 GET https://x/a", "5 CONNECT https://x/a"),
        *("1 200", "websocket", "5 403", "1 up text 3"),
        *("3 200", "3 end 0/0", "1 down binary 2", f"1 end {len(masked)}/18"),
    ]


def test_trailers_come_with_the_end_of_the_exchange(converse: Converse) -> None:
    conversation, client, server = Http2(), Peer(), Peer()
    only = [*OK[:1], ("content-type", "application/grpc"), ("grpc-status", "5")]
    script = [
        (UP, HELLO + client.headers(1, POST) + client.headers(1, [("x-sum", "1")], end=True)),
        (DOWN, SETTINGS + server.headers(1, OK)),
        (DOWN, server.headers(1, [("grpc-status", "0"), ("grpc-message", "")], end=True)),
        (UP, client.headers(3, POST, end=True)),
        (DOWN, server.headers(3, only, end=True)),
    ]
    talk = converse(conversation, script)
    first, second = (
        protocol_event
        for protocol_event in talk.protocol_events
        if isinstance(protocol_event, HttpEnd)
    )
    assert first.request_trailers == (("x-sum", "1"),)
    assert first.trailers == (("grpc-status", "0"), ("grpc-message", ""))
    assert (second.request_trailers, second.trailers) == (None, (("grpc-status", "5"),))


def test_what_is_unfinished_is_told_in_the_end(converse: Converse) -> None:
    conversation, client, server = Http2(), Peer(), Peer()
    script = [
        (UP, HELLO + client.headers(1, GET) + client.headers(3, GET, end=True)),
        (DOWN, SETTINGS + server.headers(3, OK) + data(3, b"ab")),
        (DOWN, RstStreamFrame(3, 0xAB).serialize() + RstStreamFrame(3, 2).serialize()),
    ]
    talk = converse(conversation, script, chunk=1)
    conversation.close()
    ends = brief(talk.protocol_events)[-1:] + brief(conversation.protocol_events)
    assert ends == ["3 end 0/2 reset 0xab", "1 end 0/0 cut"]


def test_an_exchange_ends_when_its_last_byte_has_come(converse: Converse) -> None:
    conversation, client, server = Http2(), Peer(), Peer()
    body = data(1, b"abcd", end=True)
    script = [(UP, HELLO + client.headers(1, GET, end=True))]
    script += [(DOWN, SETTINGS + server.headers(1, OK) + body[:-1])]
    assert brief(converse(conversation, script).protocol_events)[-1] == "1 200"
    assert brief(converse(conversation, [(DOWN, body[-1:])]).protocol_events) == ["1 end 0/4"]


def test_goaway_ends_what_its_receiver_asked_for_and_nobody_will_serve(converse: Converse) -> None:
    conversation, client, server = Http2(), Peer(), Peer()
    requests = client.headers(1, GET, end=True) + client.headers(3, GET, end=True)
    promise = PushPromiseFrame(1, 4, server.block(GET), flags={"END_HEADERS"}).serialize()
    converse(conversation, [(UP, HELLO + requests), (DOWN, SETTINGS + promise)])
    talk = converse(conversation, [(DOWN, GoAwayFrame(0, last_stream_id=1).serialize())])
    assert brief(talk.protocol_events) == ["3 end 0/0 reset NO_ERROR"]
    talk = converse(conversation, [(UP, GoAwayFrame(0, last_stream_id=2).serialize())])
    assert brief(talk.protocol_events) == ["4 end 0/0 reset NO_ERROR"]


def test_notices_carry_the_head(converse: Converse) -> None:
    times = iter([1.0, 3.5])
    conversation = Http2(context=LayerContext(clock=lambda: next(times), shown=Shown(headers=True)))
    client, server = Peer(), Peer()
    fields = [*GET, ("x-odd", "\xe9")]
    encoded = [(name.encode(), value.encode("latin-1")) for name, value in fields]
    up = HeadersFrame(1, client.encoder.encode(encoded), flags={"END_HEADERS", "END_STREAM"})
    script = [
        (UP, HELLO + up.serialize()),
        (DOWN, SETTINGS + server.headers(1, OK, end=True)),
    ]
    assert converse(conversation, script).protocol_events == [
        HttpRequest(
            stream=1,
            method="GET",
            url="https://x/a",
            version="HTTP/2",
            content_type=None,
            headers=pairs(encoded),
        ),
        HttpResponse(
            stream=1,
            status=200,
            version="HTTP/2",
            content_type="text/html",
            headers=tuple(OK),
        ),
        HttpEnd(stream=1, request_bytes=0, response_bytes=0, duration_s=2.5),
    ]


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        ([(":method", "GET"), (":path", "/a"), ("host", "y")], "http://y/a"),
        ([(":method", "GET"), (":path", "/a")], "http://10.0.0.1/a"),
        ([(":method", "OPTIONS"), *GET[1:3], (":path", "*")], "https://x"),
        ([(":method", "CONNECT"), (":authority", "y:22")], "y:22"),
        ([(":method", "CONNECT"), (":authority", "me:pw@y")], "me:<redacted, 2 bytes>@y"),
        (
            [(":method", "GET"), (":scheme", "https"), (":authority", "me:pw@y"), (":path", "/")],
            "https://me:<redacted, 2 bytes>@y/",
        ),
        ([(":method", "CONNECT"), (":protocol", "websocket"), *GET[1:]], "https://x/a"),
    ],
)
def test_urls(fields: Pairs, url: str, converse: Converse) -> None:
    conversation = Http2(context=LayerContext(target=Target("10.0.0.1", 80)))
    talk = converse(conversation, [(UP, HELLO + Peer().headers(1, fields))])
    assert talk.protocol_events[0].url == url
    assert conversation.extended_connect == (":protocol" in dict(fields))


def test_after_an_h2c_upgrade_stream_1_answers_the_request_outside(converse: Converse) -> None:
    conversation = Http2(context=LayerContext(stack=("tls", "http/1")))
    server = Peer()
    script = [(DOWN, SETTINGS + server.headers(1, OK) + data(1, b"hi", end=True)), (UP, HELLO)]
    assert brief(converse(conversation, script).protocol_events) == ["1 200", "1 end 0/2"]
    assert conversation.details_ready


@pytest.mark.parametrize("size", [0, 100, 65536])
def test_a_changed_header_table_is_followed(size: int, converse: Converse) -> None:
    """The server may use another table size once it has acknowledged the client's SETTINGS."""
    conversation = Http2(context=LayerContext(shown=Shown(headers=True)))
    client, server = Peer(), Peer()
    settings = SettingsFrame(settings={SettingsFrame.HEADER_TABLE_SIZE: size}).serialize()
    script = [(UP, PREFACE + settings + client.headers(1, GET, end=True))]
    script += [(DOWN, SETTINGS + server.headers(1, [*OK, ("x-a", "before")]))]
    server.encoder.header_table_size = size
    script += [(DOWN, SettingsFrame(flags={"ACK"}).serialize())]
    fields = [(":status", "200"), *((f"x-{n}", str(n) * 90) for n in range(100))]
    for stream in (3, 5):
        script += [(UP, client.headers(stream, GET, end=True))]
        script += [(DOWN, server.headers(stream, fields))]
    talk = converse(conversation, script)
    assert talk.protocol_events[-1].headers == tuple(fields)


def test_a_value_that_is_named_by_one_byte_takes_no_more_memory_each_time(
    converse: Converse,
) -> None:
    """A long :path in the table, and requests of twelve bytes that name it."""
    allowed = SettingsFrame(settings={SettingsFrame.HEADER_TABLE_SIZE: MAX_TABLE}).serialize()
    for character in ("p", "\x80"):
        client = enlarged(MAX_TABLE)
        path = [(":path", "/" + character * 5000)]
        script = [(DOWN, allowed), (UP, HELLO)]
        script += [(UP, client.headers(n, [*GET[:3], *path])) for n in (1, 3, 5)]
        assert len(script[-1][1]) < 16
        talk = converse(Http2(context=LayerContext(shown=Shown(headers=True))), script)
        requests = [
            protocol_event
            for protocol_event in talk.protocol_events
            if isinstance(protocol_event, HttpRequest)
        ]
        assert len(requests) == 3
        assert {len(request.url) for request in requests} == {len("https://x") + MAX_TEXT + 1}
        assert requests[0].url.endswith(CUT)
        values = {id(dict(request.headers)[":path"]) for request in requests}
        assert len(values) == 1


def test_trailers_are_kept_within_bounds(converse: Converse) -> None:
    client, server = Peer(), Peer()
    script = [(UP, HELLO + client.headers(1, GET, end=True)), (DOWN, SETTINGS)]
    script += [(DOWN, server.headers(1, OK))]
    trailers = [(f"t{number}", "x" * 1000) for number in range(30)]
    talk = converse(Http2(), [*script, (DOWN, server.headers(1, trailers, end=True))])
    end = talk.protocol_events[-1]
    assert isinstance(end, HttpEnd)
    assert end.trailers is not None
    assert len(end.trailers) == MAX_TRAILER_BYTES // 1000


def test_frames_without_content_are_read_past(converse: Converse) -> None:
    """What may come without end leaves nothing behind: no notice, no byte, no stream."""
    empty = [
        SETTINGS,
        SettingsFrame(settings={3: 100}).serialize(),
        PingFrame(0, bytes(8)).serialize(),
        PriorityFrame(3, depends_on=1, stream_weight=7).serialize(),
        WindowUpdateFrame(0, 1).serialize(),
        RstStreamFrame(7, 8).serialize(),
        GoAwayFrame(0, last_stream_id=9).serialize(),
        data(1, b""),
    ]
    conversation, client = Http2(), Peer()
    converse(conversation, [(DOWN, SETTINGS), (UP, HELLO + client.headers(1, GET))])
    conversation.protocol_events.clear()
    for frame in empty:
        for direction in (UP, DOWN):
            conversation.feed(direction, frame * 1000)
    assert conversation.protocol_events == []
    assert [len(side.kept) for side in conversation.sides.values()] == [0, 0]
    assert list(conversation._streams) == [1]
    head, rest = HeadersFrame(3, b"").serialize(), ContinuationFrame(3, b"").serialize()
    conversation.feed(UP, head + rest * 1000)
    block = conversation.sides[UP].block
    assert block is not None
    assert not block.fragments


def test_a_large_body_costs_its_frame_headers_only(converse: Converse) -> None:
    conversation, client, server = Http2(), Peer(), Peer()
    script = [(UP, HELLO + client.headers(1, GET, end=True))]
    converse(conversation, [*script, (DOWN, SETTINGS + server.headers(1, OK))])
    body = data(1, bytes(16_384)) * 64
    converse(conversation, [(DOWN, body)], chunk=65_536)
    (side,) = (side for way, side in conversation.sides.items() if way is DOWN)
    assert len(side.kept) < 9
    talk = converse(conversation, [(DOWN, data(1, b"", end=True))])
    assert brief(talk.protocol_events) == ["1 end 0/1048576"]


def test_the_oldest_of_too_many_streams_is_followed_no_more(converse: Converse) -> None:
    conversation, client, server = Http2(), Peer(), Peer()
    last = 2 * MAX_STREAMS + 1
    requests = b"".join(client.headers(stream, GET, end=True) for stream in range(1, last + 1, 2))
    answers = server.headers(1, OK, end=True) + server.headers(last, OK, end=True)
    talk = converse(conversation, [(UP, HELLO + requests), (DOWN, SETTINGS + answers)])
    assert brief(talk.protocol_events)[-3:] == ["1 200", f"{last} 200", f"{last} end 0/0"]
    assert "1 end 0/0 cut" in brief(talk.protocol_events)


def test_a_stream_that_begins_again_ends_first(converse: Converse) -> None:
    conversation, client = Http2(), Peer()
    talk = converse(conversation, [(UP, HELLO + client.headers(1, GET) + client.headers(1, GET))])
    assert brief(talk.protocol_events) == [
        "1 GET https://x/a",
        "1 end 0/0 cut",
        "1 GET https://x/a",
    ]


def raw(kind: int, payload: bytes, *, flags: int = 0, stream: int = 0) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def bomb() -> bytes:
    """A small block that refers to a large header thousands of times."""
    encoder = Encoder()
    large = encoder.encode([*GET, ("x", "y" * 4000)])
    return large + b"\xbe" * 15_000


def enlarged(size: int) -> Peer:
    peer = Peer()
    peer.encoder.header_table_size = size
    return peer


BROKEN: dict[str, list[tuple[Direction, bytes]]] = {
    "no preface": [(UP, b"GET / HTTP/1.1\r\n")],
    "no settings": [(UP, PREFACE + PingFrame(0, bytes(8)).serialize())],
    "no settings from the server": [(DOWN, b"HTTP/1.1 400 Bad Request\r\n")],
    "acknowledged before it was set": [(DOWN, SettingsFrame(flags={"ACK"}).serialize())],
    "interrupted block": [(UP, HELLO + HeadersFrame(1, b"").serialize() + SETTINGS)],
    "continued on another stream": [
        (UP, HELLO + HeadersFrame(1).serialize() + ContinuationFrame(3).serialize())
    ],
    "continuation of nothing": [(UP, HELLO + ContinuationFrame(1).serialize())],
    "promise of a client": [(UP, HELLO + PushPromiseFrame(1, 2).serialize())],
    "headers on stream 0": [(UP, HELLO + raw(1, b"", flags=4))],
    "bad block": [(UP, HELLO + raw(1, b"\x80", flags=4, stream=1))],
    "truncated block": [(UP, HELLO + raw(1, b"\x40\x05a", flags=4, stream=1))],
    "padding of headers": [(UP, HELLO + raw(1, b"\x09abc", flags=4 | 8, stream=1))],
    "padding of data": [(UP, HELLO + raw(0, b"\x04abc", flags=8, stream=1))],
    "long frame": [(UP, HELLO + b"\x01\x00\x01\x01\x00\x00\x00\x00\x01")],
    "long block": [
        (UP, HELLO + HeadersFrame(1, b"\0\1a" * 9000).serialize()),
        (UP, ContinuationFrame(1, bytes(MAX_HEADER_BLOCK)).serialize()),
    ],
    "compression bomb": [(UP, HELLO + raw(1, bomb(), flags=4, stream=1))],
    "a larger table than was allowed": [(UP, HELLO + enlarged(8192).headers(1, GET))],
    "a larger table than is followed": [
        (DOWN, SettingsFrame(settings={1: 1 << 20}).serialize()),
        (UP, HELLO + enlarged(MAX_TABLE + 1).headers(1, GET)),
    ],
    "short GOAWAY": [(UP, HELLO + raw(7, bytes(7)))],
    "no number": [(DOWN, SETTINGS + Peer().headers(1, [(":status", "2x0")]))],
}


def test_what_is_no_http2_is_given_up(converse: Converse) -> None:
    for name in BROKEN:
        with pytest.raises(ProtocolError):
            converse(Http2(), BROKEN[name])


def verdict(up: bytes = b"", down: bytes = b"") -> Verdict:
    assert PROTOCOL.detect is not None
    return PROTOCOL.detect(Opening(up=up, down=down))


def test_the_preface_matches_once_it_is_whole() -> None:
    assert [verdict(HELLO[:size]) for size in range(25)] == [Verdict.NEED_MORE] * 24 + [
        Verdict.MATCH
    ]
    assert verdict(HELLO, down=SETTINGS) is Verdict.MATCH
    for other in (b"PRI * HTTP/1.1\r\n", b"PROXY ", b"POST / HTTP/1.1\r\n", b"\x16"):
        assert verdict(other) is Verdict.REJECT


def test_settings_of_a_server_that_speaks_first_are_no_banner() -> None:
    settings = SettingsFrame(settings={3: 100, 4: 65536}).serialize()
    verdicts = [verdict(down=settings[:size]) for size in range(len(settings) + 1)]
    assert verdicts == [Verdict.NEED_MORE] * 9 + [Verdict.LIKELY] * 13
    for other in (b"220 ", b"\0\0\1\4", b"\0\0\0\4\1", b"\0\0\0\4\0\0\0\0\1", b"\1"):
        assert verdict(down=other) is Verdict.NEED_MORE
    for other in (b"\0\3\0\4" + bytes(7) + b"\6", b"\0\0\6\4" + bytes(7)):  # AFP, numbers
        assert verdict(down=other) is Verdict.NEED_MORE
    assert verdict(down=settings, up=HELLO[:3]) is Verdict.NEED_MORE


@given(start=st.sampled_from([b"", HELLO, HELLO[:20]]), more=st.binary(max_size=12))
def test_the_verdict_never_flips(start: bytes, more: bytes) -> None:
    whole = start + more
    for verdicts in (
        [verdict(up=whole[:size]) for size in range(1, len(whole) + 1)],
        [verdict(down=more[:size]) for size in range(1, len(more) + 1)],
    ):
        details_ready = [item for item in verdicts if item in (Verdict.MATCH, Verdict.REJECT)]
        assert len(set(details_ready)) <= 1
        assert verdicts[len(verdicts) - len(details_ready) :] == details_ready


def test_frames_that_say_nothing_of_streams_are_skipped(converse: Converse) -> None:
    blocks = (HeadersFrame.type, PushPromiseFrame.type, ContinuationFrame.type, GoAwayFrame.type)
    others = [kind for kind in range(256) if kind not in blocks]
    frames = b"".join(raw(kind, b"\0" * 5, flags=1, stream=3) for kind in others)
    talk = converse(Http2(), [(UP, HELLO + frames + Peer().headers(1, GET))])
    assert brief(talk.protocol_events) == ["1 GET https://x/a"]


def test_a_block_that_repeats_is_read_by_the_table_of_its_moment() -> None:
    side = _Side()
    newest = b"\xbe"  # RFC 7541 §2.3.3: the first entry of the dynamic table
    side.decode(b"\x40\x01a\x01b")
    for _ in range(2):
        assert list(side.decode(newest)) == [(b"a", b"b")]
    side.decode(b"\x40\x01c\x01d")
    assert list(side.decode(newest)) == [(b"c", b"d")]
    side.decode(b"\x20\x82")  # §6.3: a table of no size, which is empty
    with pytest.raises(HPACKError):
        side.decode(newest)


def literal(name: bytes, value: bytes, *, index: int, adds: bool) -> bytes:
    """RFC 7541 §6.2: a literal field; `index`: that of its name, 0: the name is in it."""
    first = bytes([0x40 | index]) if adds else bytes([index])
    texts = [value] if index else [name, value]
    return first + b"".join(bytes([len(each)]) + each for each in texts)


BLOCKS = [
    *(literal(b"content-type", value, index=31 if adds else 0, adds=adds)
      for value in (b"text/html", b"a" * 50) for adds in (True, False)),
    literal(b"x-own", b"1", index=0, adds=True) + literal(b"age", b"2", index=21, adds=True),
    b"\x88" + literal(b"server", b"nginx", index=54, adds=True),
    b"\x88\x8d", b"\xbe", b"\xbe\xbf", b"\x88\xbe",
    literal(b"", b"named by the table", index=62, adds=True),
    b"\x20\x82", b"\x3f\x45\x88", b"\x3f\xe1\x1f\x88",
]  # fmt: skip


@given(st.lists(st.sampled_from(BLOCKS), max_size=20))
def test_remembered_blocks_leave_the_table_as_decoding_does(blocks: list[bytes]) -> None:
    side, plain = _Side(), _decoder()
    for block in blocks:
        try:
            expected = plain.decode(block, raw=True)
        except HPACKError:
            with pytest.raises(HPACKError):
                side.decode(block)
            return
        assert list(side.decode(block)) == [tuple(each) for each in expected]
        table = side.decoder.header_table
        assert list(table.dynamic_entries) == list(plain.header_table.dynamic_entries)
        assert table.maxsize == plain.header_table.maxsize
