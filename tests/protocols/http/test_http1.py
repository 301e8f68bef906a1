from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import (
    FORWARD_ALL,
    MAX_PEEK,
    PAUSE,
    SWITCH,
    Direction,
    Forward,
    LayerContext,
    Opening,
    Target,
    Verdict,
)
from mitml4.protocols.http.events import HttpEnd, HttpRequest, HttpResponse
from mitml4.protocols.http.exchange import MAX_TRAILER_BYTES, MAX_TRAILERS
from mitml4.protocols.http.http1 import PROTOCOL, Http1, Http1Details
from mitml4.protocols.http.http1_pipeline import MAX_OUTSTANDING, MAX_WAITING_BYTES
from mitml4.protocols.payload import Shown
from mitml4.protocols.policy import FlowPolicy
from mitml4.protocols.protocol_event import ProtocolEvent
from mitml4.protocols.wire_text import pairs

UP, DOWN = Direction.UP, Direction.DOWN
Converse = Callable[..., Any]

GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
HEAD = b"HEAD /a HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
EMPTY = b"HTTP/1.1 204 No Content\r\n\r\n"
UPGRADE = b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
EXPECTING = b"PUT /a HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
FAILED = b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n"
CONNECT = b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n"


def brief(protocol_events: list[ProtocolEvent]) -> list[str]:
    """Notices in a line each: `1 GET URL`, `1 200`, `1 end UP/DOWN`."""
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
                lines.append(f"{protocol_event.stream} end {sizes}{outcome}")
    return lines


Exchange: TypeAlias = tuple[list[tuple[Direction, bytes | None]], list[str]]
"""A script, and its events in brief."""

# Every byte of these scripts belongs to HTTP, and moves.
EXCHANGES: dict[str, Exchange] = {
    "counted": ([(UP, GET), (DOWN, OK)], ["1 GET http://x/a", "1 200", "1 end 0/2"]),
    "a password in a URL": (
        [
            (UP, b"GET http://me:pw@y/a HTTP/1.1\r\nHost: y\r\n\r\n"),
            (DOWN, OK),
            (UP, b"GET /?to=ftp://me:pw@z HTTP/1.1\r\nHost: me:pw@y\r\n\r\n"),
            (DOWN, OK),
        ],
        [
            *("1 GET http://me:<redacted, 2 bytes>@y/a", "1 200", "1 end 0/2"),
            "2 GET http://me:<redacted, 2 bytes>@y/?to=ftp://me:<redacted, 2 bytes>@z",
            *("2 200", "2 end 0/2"),
        ],
    ),
    "request body": ([(UP, POST), (DOWN, OK)], ["1 POST http://x/a", "1 200", "1 end 3/2"]),
    "keep-alive": (
        [(UP, GET), (DOWN, OK), (UP, POST), (DOWN, EMPTY)],
        ["1 GET http://x/a", "1 200", "1 end 0/2", "2 POST http://x/a", "2 204", "2 end 3/0"],
    ),
    "pipelined": (
        [(UP, GET + POST + HEAD), (DOWN, OK + EMPTY + OK[:-2])],
        [
            *("1 GET http://x/a", "1 200", "1 end 0/2"),
            *("2 POST http://x/a", "2 204", "2 end 3/0"),
            *("3 HEAD http://x/a", "3 200", "3 end 0/0"),
        ],
    ),
    "not modified, with the length it would have had": (
        [(UP, GET), (DOWN, b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n")],
        ["1 GET http://x/a", "1 304", "1 end 0/0"],
    ),
    "chunked": (
        [
            (UP, GET),
            (DOWN, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, Chunked\r\n\r\n"),
            (DOWN, b'5\r\nhello\r\n00A ; ext="1"\r\n0123\r\n6789\r\n0\r\nX-Sum: 1\r\n\r\n'),
            (UP, GET),
            (DOWN, OK),
        ],
        ["1 GET http://x/a", "1 200", "1 end 0/15", "2 GET http://x/a", "2 200", "2 end 0/2"],
    ),
    "chunked request, bare line feeds": (
        [
            (UP, b"PUT /a HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\n3\nabc\n0\n\n"),
            (DOWN, b"HTTP/1.1 201\nContent-Length: 0\n\n"),
        ],
        ["1 PUT http://x/a", "1 201", "1 end 3/0"],
    ),
    "SHOUTcast's answer": (
        [(UP, GET), (DOWN, b"ICY 200 OK\r\nicy-name: x\r\n\r\nmusic"), (DOWN, None)],
        ["1 GET http://x/a", "1 200", "1 end 0/5"],
    ),
    "until the end": (
        [(UP, GET), (DOWN, b"HTTP/1.0 200 OK\r\n\r\nall that\r\n\r\nfollows"), (DOWN, None)],
        ["1 GET http://x/a", "1 200", "1 end 0/19"],
    ),
    "a coding other than chunked lasts until the end": (
        [(UP, GET), (DOWN, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nxyz"), (DOWN, None)],
        ["1 GET http://x/a", "1 200", "1 end 0/3"],
    ),
    "Transfer-Encoding overrides Content-Length in a response": (
        [
            (UP, GET),
            (DOWN, OK[:-4] + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"),
        ],
        ["1 GET http://x/a", "1 200", "1 end 0/1"],
    ),
    "cut short": (
        [(UP, GET), (DOWN, OK[:-1]), (DOWN, None)],
        ["1 GET http://x/a", "1 200"],
    ),
    "expect": (
        [
            (UP, b"POST /a HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"),
            (DOWN, b"HTTP/1.1 100 Continue\r\n\r\n"),
            (UP, b"abc"),
            (DOWN, b"HTTP/1.1 103 Early Hints\r\nLink: </s>\r\n\r\n" + OK),
        ],
        ["1 POST http://10.0.0.1/a", "1 100", "1 103", "1 200", "1 end 3/2"],
    ),
    "answered before the request was complete": (
        [(UP, POST[:-2]), (DOWN, OK), (UP, b"bc" + GET), (DOWN, EMPTY)],
        ["1 POST http://x/a", "1 200", "1 end 3/2", "2 GET http://x/a", "2 204", "2 end 0/0"],
    ),
    "answer only": (
        [(DOWN, OK + OK)],
        ["1 200", "1 end 0/2", "2 200", "2 end 0/2"],
    ),
    "empty lines between requests": (
        [(UP, b"\r\n\r\n" + POST + b"\r\n" + GET), (DOWN, EMPTY + EMPTY)],
        [
            *("1 POST http://x/a", "1 204", "1 end 3/0"),
            *("2 GET http://x/a", "2 204", "2 end 0/0"),
        ],
    ),
    "absolute-form and asterisk-form": (
        [
            (UP, b"GET http://y/?q HTTP/1.1\r\nHost: x\r\n\r\n"),
            (DOWN, EMPTY),
            (UP, b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n"),
        ],
        ["1 GET http://y/?q", "1 204", "1 end 0/0", "2 OPTIONS http://x"],
    ),
    "odd heads": (
        [
            (
                UP,
                b"GET /a b\xff HTTP/1.1\r\nHost : x\r\nnocolon\r\nX: \x01\xe9\r\nA:1\r\n 2\r\n\r\n",
            ),
            (DOWN, b"HTTP/1.1 200 \x80 weird\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n1"),
        ],
        ["1 GET http://x/a b\\xff", "1 200", "1 end 0/1"],
    ),
    "an upgrade refused": (
        [(UP, UPGRADE), (DOWN, OK), (UP, GET), (DOWN, OK)],
        ["1 GET http://x/ws", "1 200", "1 end 0/2", "2 GET http://x/a", "2 200", "2 end 0/2"],
    ),
    "an upgrade refused before its body was complete": (
        [(UP, UPGRADE[:-2] + b"Content-Length: 3\r\n\r\na"), (DOWN, OK), (UP, b"bc" + GET)],
        ["1 GET http://x/ws", "1 200", "1 end 3/2", "2 GET http://x/a"],
    ),
    "answered before its body, which never comes": (
        [(UP, EXPECTING), (DOWN, FAILED), (UP, POST), (DOWN, OK)],
        ["1 PUT http://x/a", "1 417", "1 end 0/0", "2 POST http://x/a", "2 200", "2 end 3/2"],
    ),
    "answered before its chunks, which never come": (
        [
            (UP, b"PUT /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"),
            *((DOWN, FAILED), (UP, b"DELETE /a HTTP/1.1\r\nHost: x\r\n\r\n"), (DOWN, OK)),
        ],
        ["1 PUT http://x/a", "1 417", "1 end 0/0", "2 DELETE http://x/a", "2 200", "2 end 0/2"],
    ),
    "answered before its body, which comes": (
        [(UP, EXPECTING), (DOWN, FAILED), (UP, b"PUT-a" + GET), (DOWN, OK)],
        ["1 PUT http://x/a", "1 417", "1 end 5/0", "2 GET http://x/a", "2 200", "2 end 0/2"],
    ),
    "answered before its body, which comes and is a request": (
        [
            *((UP, EXPECTING.replace(b": 5", b": %d" % len(GET))), (DOWN, CONTINUE)),
            *((UP, GET), (DOWN, OK)),
        ],
        ["1 PUT http://x/a", "1 100", "1 200", f"1 end {len(GET)}/2"],
    ),
    "HTTP/0.9": (
        [(UP, b"GET /a\r\n"), (DOWN, b"<html>a page</html>"), (DOWN, None)],
        ["1 GET http://10.0.0.1/a", "1 end 0/19"],
    ),
    "HTTP/0.9, answered by what is no text": (
        [(UP, b"GET  /a  \r\n"), (DOWN, b"\0\0\1\0"), (DOWN, None)],
        ["1 GET http://10.0.0.1/a", "1 end 0/4"],
    ),
    "answered as in HTTP/0.9": (
        [(UP, GET), (DOWN, b"a page\n"), (DOWN, None)],
        ["1 GET http://x/a", "1 end 0/7"],
    ),
    "HTTP/0.9, answered by HTTP/1.1": (
        [(UP, b"GET /a\n"), (DOWN, OK), (DOWN, None)],
        ["1 GET http://10.0.0.1/a", "1 200", "1 end 0/2"],
    ),
    "what nginx reads": (
        [
            (UP, b"GET / HTTP/1.1 \r\nHost: x\r\n\r\n"),
            (DOWN, OK),
            (UP, b"A-METHOD-OF-MORE-THAN-TWENTY-LETTERS / HTTP/1.19\r\nHost: x\r\n\r\n"),
            (DOWN, b"HTTP/1.1 405 No\r\nTransfer-Encoding: chunked\r\n\r\n"),
            (DOWN, b"0" * 30 + b"3\r\nabc\r\n" + b"0" * 30 + b"\r\n\r\n"),
            (UP, b"%s / HTTP/1.0199\r\nHost: x\r\n" % (b"M" * 1000)),
            (UP, b"Content-Length: %s2\r\n\r\nab" % (b"0" * 30)),
            (DOWN, b"HTTP/1.1  200\r\nContent-Length: %s2\r\n\r\nok" % (b"0" * 30)),
        ],
        [
            *("1 GET http://x/", "1 200", "1 end 0/2"),
            *("2 A-METHOD-OF-MORE-THAN-TWENTY-LETTERS http://x/", "2 405", "2 end 0/3"),
            *(f"3 {'M' * 1000} http://x/", "3 200", "3 end 2/2"),
        ],
    ),
}

UNFINISHED: dict[str, Exchange] = {
    "nothing was answered": ([(UP, GET)], ["1 GET http://x/a", "1 end 0/0 cut"]),
    "only the client's side is there": (
        [(UP, GET + POST)],
        ["1 GET http://x/a", "2 POST http://x/a", "1 end 0/0 cut", "2 end 3/0 cut"],
    ),
    "the response was cut": (
        [(UP, GET), (DOWN, OK[:-1])],
        ["1 GET http://x/a", "1 200", "1 end 0/1 cut"],
    ),
    "the request was cut": (
        [(UP, POST[:-1]), (DOWN, OK)],
        ["1 POST http://x/a", "1 200", "1 end 2/2 cut"],
    ),
    "pipelined behind a response that ends the connection": (
        [(UP, GET + POST), (DOWN, b"HTTP/1.1 400 No\r\nConnection: close\r\n\r\n"), (DOWN, None)],
        ["1 GET http://x/a", "1 400", "1 end 0/0"],
    ),
    "sent behind a response that ends the connection": (
        [(UP, GET), (DOWN, b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n"), (UP, POST)],
        ["1 GET http://x/a", "1 200", "1 end 0/0"],
    ),
}


def test_what_is_unfinished_is_told_in_the_end(converse: Converse) -> None:
    for chunk in (None, 1, 7):
        for name in UNFINISHED:
            script, expected = UNFINISHED[name]
            conversation = Http1(context=context())
            talk = converse(conversation, script, chunk=chunk)
            conversation.close()
            assert sorted(brief(talk.protocol_events + conversation.protocol_events)) == sorted(
                expected
            )


def test_trailers_come_with_the_end_of_the_exchange(converse: Converse) -> None:
    head = b"Host: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    request = b"PUT /a HTTP/1.1\r\n" + head + b"1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n"
    many = b"".join(b"T%d: 1\r\n" % number for number in range(100))
    response = b"HTTP/1.1 200 OK\r\n" + head + b"0\r\nServer-Timing: a\r\n" + many + b"\r\n"
    talk = converse(Http1(context=context()), [(UP, request), (DOWN, response)])
    end = talk.protocol_events[-1]
    assert isinstance(end, HttpEnd)
    assert end.request_trailers == (("X-Sum", "1"),)
    assert end.trailers is not None
    assert end.trailers[0] == ("Server-Timing", "a")
    assert len(end.trailers) == MAX_TRAILERS


def test_long_trailers_are_not_kept(converse: Converse) -> None:
    long = b"".join(b"T%d: %b\r\n" % (number, b"x" * 1000) for number in range(20))
    talk = converse(
        Http1(context=context()), [(UP, CHUNKED + b"0\r\n" + long + b"\r\n"), (DOWN, OK)]
    )
    end = talk.protocol_events[-1]
    assert isinstance(end, HttpEnd)
    assert end.request_trailers is not None
    assert len(end.request_trailers) == MAX_TRAILER_BYTES // 1000


def context(**more: Any) -> LayerContext:
    return LayerContext(target=Target("10.0.0.1", 80), **more)


def test_every_split_gives_the_same_notices(converse: Converse) -> None:
    for chunk in (None, 1, 7):
        for name in EXCHANGES:
            script, expected = EXCHANGES[name]
            talk = converse(Http1(context=context()), script, chunk=chunk)
            assert brief(talk.protocol_events) == expected
            assert not any(talk.kept.values())
            for direction in Direction:
                sent = b"".join(data for side, data in script if side is direction and data)
                assert bytes(talk.moved[direction]) == sent


@pytest.mark.parametrize("trail", [b"", b"\x16\x03\x01 not ours", CONNECT])
@pytest.mark.parametrize("chunk", [None, 1])
def test_an_upgrade_leaves_both_directions_to_the_inner_protocol(
    chunk: int | None, trail: bytes, converse: Converse
) -> None:
    conversation = Http1()
    before = [(UP, GET + UPGRADE + trail), (DOWN, OK)]
    talk = converse(conversation, before, chunk=chunk)
    assert conversation.up is PAUSE
    assert talk.kept[UP] == trail
    talk = converse(conversation, [(DOWN, SWITCHING + trail)], chunk=chunk)
    assert (conversation.up, conversation.down) == (SWITCH, SWITCH)
    assert conversation.inner == "websocket"
    assert talk.kept[DOWN] == trail
    assert brief(talk.protocol_events) == ["2 GET http://x/ws", "2 101", "2 end 0/0"]
    assert conversation.details() == Http1Details(
        host="x", absolute_form=False, upgrade="websocket"
    )


def test_held_requests_go_on_once_an_upgrade_is_refused(converse: Converse) -> None:
    talk = converse(Http1(), [(UP, UPGRADE + GET), (DOWN, OK + OK)])
    assert talk.moved[UP] == UPGRADE + GET
    assert brief(talk.protocol_events)[2:] == [
        "1 end 0/2",
        "2 GET http://x/a",
        "2 200",
        "2 end 0/2",
    ]


def test_an_h2c_upgrade_names_http2(converse: Converse) -> None:
    conversation = Http1()
    answer = SWITCHING.replace(b"websocket", b"h2c")
    converse(conversation, [(UP, UPGRADE.replace(b"websocket", b"h2c")), (DOWN, answer)])
    assert conversation.inner == "http/2"


def test_an_upgrade_to_something_else_is_left_to_detection(converse: Converse) -> None:
    conversation = Http1()
    answer = SWITCHING.replace(b"websocket", b"TLS/1.2, HTTP/1.1")
    converse(conversation, [(UP, UPGRADE), (DOWN, answer)])
    assert (conversation.up, conversation.down, conversation.inner) == (SWITCH, SWITCH, None)


def test_an_upgrade_waits_for_the_end_of_the_request_body(converse: Converse) -> None:
    conversation = Http1()
    request = UPGRADE[:-2] + b"Content-Length: 3\r\n\r\n"
    converse(conversation, [(UP, request + b"a"), (DOWN, SWITCHING + b"inner")])
    assert (conversation.up, conversation.down) == (Forward(2), SWITCH)
    talk = converse(conversation, [(UP, b"bcinner")])
    assert (conversation.up, conversation.down) == (SWITCH, SWITCH)
    assert talk.kept[UP] == b"inner"
    assert brief(talk.protocol_events) == ["1 end 3/0"]


@pytest.mark.parametrize("chunk", [None, 1])
def test_a_connect_waits_unread_for_the_answers_before_it(
    chunk: int | None, converse: Converse
) -> None:
    conversation = Http1()
    talk = converse(conversation, [(UP, POST + CONNECT), (DOWN, OK[:-1])], chunk=chunk)
    assert conversation.up is PAUSE
    assert talk.moved[UP] == POST
    converse(conversation, [(DOWN, b"i")])
    assert (conversation.up, conversation.down) == (SWITCH, SWITCH)


def test_held_bytes_go_on_when_the_server_leaves_without_an_answer(converse: Converse) -> None:
    conversation = Http1()
    converse(conversation, [(UP, UPGRADE), (DOWN, None)])
    assert conversation.up == FORWARD_ALL


def test_a_large_body_is_passed_and_never_looked_at(converse: Converse) -> None:
    conversation = Http1()
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"
    converse(conversation, [(UP, GET), (DOWN, head)])
    assert conversation.down == Forward(1_000_000)
    converse(conversation, [(DOWN, bytes(999_999))], chunk=100_000)
    assert conversation.down == Forward(1)


def test_small_chunks_that_have_all_come_are_taken_at_one_look(converse: Converse) -> None:
    chunks = b"3\r\nabc\r\n" * 100
    conversation = Http1()
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    converse(conversation, [(UP, GET)])
    assert conversation.feed(DOWN, head + chunks) == len(head + chunks)


def test_what_ends_a_chunk_is_not_held_back_for_the_next(converse: Converse) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    talk = converse(Http1(), [(UP, GET), (DOWN, head + b"3\r\nabc\r\n")])
    assert not talk.kept[DOWN]


def test_the_layer_excludes_inner_by_its_first_head(converse: Converse) -> None:
    conversation = Http1()
    converse(conversation, [(UP, GET[:-1])])
    assert not conversation.details_ready
    conversation.feed(UP, GET)
    assert conversation.details_ready
    answer_only = Http1()
    converse(answer_only, [(DOWN, OK)])
    assert answer_only.details_ready


def test_notices_carry_the_head(converse: Converse) -> None:
    times = iter([1.0, 3.5])
    outside = context(clock=lambda: next(times), secure=True, shown=Shown(headers=True))
    request = b"GET / HTTP/1.0\r\nX-One:  a b \r\nX-Two: \xc3\xa9\r\n\r\n"
    response = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 0\r\n\r\n"
    talk = converse(Http1(context=outside), [(UP, request), (DOWN, response)])
    assert talk.protocol_events == [
        HttpRequest(
            stream=1,
            method="GET",
            url="https://10.0.0.1:80/",
            version="HTTP/1.0",
            content_type=None,
            headers=(("X-One", "a b"), ("X-Two", "é")),
        ),
        HttpResponse(
            stream=1,
            status=200,
            version="HTTP/1.1",
            content_type="text/html",
            headers=(("Content-Type", "text/html"), ("Content-Length", "0")),
        ),
        HttpEnd(stream=1, request_bytes=0, response_bytes=0, duration_s=2.5),
    ]


CHUNKED = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
BROKEN = {
    "not HTTP": [(UP, b"SSH-2.0-x\r\n")],
    "not HTTP after a request": [(UP, GET + b"\x16\x03")],
    "not HTTP in answer": [(UP, POST), (DOWN, b"ICQ 200 OK\r\n")],
    "not HTTP in the second answer": [(UP, GET * 2), (DOWN, OK), (DOWN, b"ICQ 200 OK\r\n")],
    "frames of HTTP/2 in answer": [(UP, GET), (DOWN, b"\0\0\6\4\0\0\0\0\0")],
    "another version in answer": [(UP, GET), (DOWN, b"HTTP/3 200 OK\r\n")],
    "both lengths": [(UP, POST[:-5] + b"Transfer-Encoding: chunked\r\n\r\n")],
    "conflicting lengths": [(UP, POST[:-5] + b"Content-Length: 4\r\n\r\n")],
    "conflicting lengths in a list": [(UP, b"POST / HTTP/1.1\r\nContent-Length: 3, 4\r\n\r\n")],
    "signed length": [(UP, b"POST / HTTP/1.1\r\nContent-Length: +3\r\n\r\n")],
    "empty length": [(UP, b"POST / HTTP/1.1\r\nContent-Length:\r\n\r\n")],
    "endless length": [(UP, b"POST / HTTP/1.1\r\nContent-Length: " + b"9" * 19 + b"\r\n\r\n")],
    "chunked twice": [(UP, CHUNKED[:-4] + b", chunked\r\n\r\n")],
    "not chunked at the end": [(UP, CHUNKED[:-4] + b", gzip\r\n\r\n")],
    "chunked in HTTP/1.0": [(UP, CHUNKED.replace(b"1.1", b"1.0"))],
    "framing field with a space": [(UP, CHUNKED.replace(b"g:", b"g :"))],
    "framing field with a vertical tab": [(UP, CHUNKED.replace(b"Tr", b"\x0bTr"))],
    "framing field without a colon": [(UP, CHUNKED.replace(b":", b""))],
    "folded first field": [(UP, CHUNKED.replace(b"Tr", b" Tr"))],
    "chunk of 2^64": [(UP, CHUNKED + b"10000000000000000\r\n")],
    "chunk without a size": [(UP, CHUNKED + b"; x\r\n")],
    "negative chunk": [(UP, CHUNKED + b"-1\r\n")],
    "chunk longer than its size": [(UP, CHUNKED + b"1\r\nab\r\n")],
    "endless chunk extension": [(UP, CHUNKED + b"1;" + bytes(MAX_PEEK))],
    "endless trailer": [(UP, CHUNKED + b"0\r\n" + b"a" * MAX_PEEK)],
    "endless head": [(UP, GET[:-2] + b"a" * MAX_PEEK)],
    "endless request line": [(UP, b"GET /" + b"a" * MAX_PEEK)],
    "endless status line": [(DOWN, b"HTTP/1.1 200 " + b"a" * MAX_PEEK)],
    "101 among pipelined requests": [(UP, GET + GET), (DOWN, SWITCHING)],
    "too many unanswered requests": [(UP, b"GET / HTTP/1.1\r\n\r\n" * (MAX_OUTSTANDING + 1))],
    "too many bytes of them": [
        (UP, (GET[:-2] + b"X: " + b"a" * 50_000 + b"\r\n\r\n") * (MAX_WAITING_BYTES // 50_000 + 2))
    ],
    "too many fields of them": [
        (UP, (GET[:-2] + b"a:\r\n" * 400 + b"\r\n") * (MAX_WAITING_BYTES // 64_000 + 2))
    ],
}


def test_what_readers_disagree_about_is_refused(converse: Converse) -> None:
    for name in BROKEN:
        with pytest.raises(ProtocolError):
            converse(Http1(), BROKEN[name])


@pytest.mark.parametrize("chunk", [None, 1])
def test_bytes_that_cannot_become_a_head_are_not_waited_for(
    chunk: int | None, converse: Converse
) -> None:
    for script in ([(UP, GET), (UP, b"GET x\x00")], [(UP, GET), (DOWN, b"HTTP/2")]):
        with pytest.raises(ProtocolError):
            converse(Http1(), script, chunk=chunk)


def test_a_field_whose_name_only_contains_a_framing_fields_is_an_ordinary_one(
    converse: Converse,
) -> None:
    request = b"GET / HTTP/1.1\r\nHost: x\r\nX-Content-Length: 7\r\n\r\n"
    talk = converse(Http1(), [(UP, request + GET), (DOWN, EMPTY + EMPTY)])
    assert "2 GET http://x/a" in brief(talk.protocol_events)


token = st.from_regex(rb"[A-Za-z][A-Za-z0-9-]{0,10}", fullmatch=True)
value = st.from_regex(rb"(?:[!-~\x80-\xff]+(?:[ \t][!-~\x80-\xff]+)*)?", fullmatch=True)
field = st.tuples(token, value, st.sampled_from([b": ", b":", b":\t"]))


@given(
    fields=st.lists(field, max_size=6),
    target=st.from_regex(rb"/[!-~]{0,20}", fullmatch=True),
    end=st.sampled_from([b"\r\n", b"\n"]),
)
def test_whatever_head_h11_reads_is_read_alike(
    fields: list[tuple[bytes, bytes, bytes]], target: bytes, end: bytes, converse: Converse
) -> None:
    lines = [b"GET " + target + b" HTTP/1.1", b"Host: x"]
    lines += [name + colon + value for name, value, colon in fields]
    head = end.join(lines) + end + end
    peer = h11.Connection(h11.SERVER)
    peer.receive_data(head)
    try:
        expected = peer.next_event()
    except h11.RemoteProtocolError:
        return
    assert isinstance(expected, h11.Request)
    conversation = Http1(context=context(shown=Shown(headers=True)))
    assert conversation.feed(UP, head) == len(head)
    (protocol_event,) = (
        item for item in conversation.protocol_events if isinstance(item, HttpRequest)
    )
    assert protocol_event.url == f"http://x{target.decode()}"
    assert protocol_event.headers == pairs(
        (name, value) for name, value in expected.headers.raw_items()
    )


def verdict(up: bytes = b"", down: bytes = b"", *, up_ended: bool = False) -> Verdict:
    assert PROTOCOL.detect is not None
    return PROTOCOL.detect(Opening(up=up, down=down, up_ended=up_ended))


def test_a_request_line_matches_once_it_is_whole() -> None:
    for line in (
        b"GET / HTTP/1.1\r\n",
        b"GET / HTTP/1.0\n",
        b"\r\n\r\nPOST /a?b=c HTTP/1.1\r\nHost",
        b"GET http://a/ HTTP/1.1\r\n",
        b"OPTIONS * HTTP/1.1\r\n",
        b"M-SEARCH * HTTP/1.1\r\n",
        b"get /a b HTTP/1.1\r\n",
        b"GET a.example/ HTTP/1.1\r\n",
        b"GET  /a HTTP/1.0\r\n",
        b"GET ?x HTTP/1.1\r\n",
        b"RPC_IN_DATA /rpc/rpcproxy.dll?x:593 HTTP/1.1\r\n",
        b"X!# /" + b"a" * 9000 + b" HTTP/1.1\r\n",
    ):
        assert verdict(line) is Verdict.MATCH
        end = line.index(b"HTTP/") + len("HTTP/1.1\r") if b"\r" in line else line.index(b"\n")
        for size in range(end - 60 if end > 60 else 0, end):
            assert verdict(line[:size]) in (Verdict.NEED_MORE, Verdict.LIKELY)


@pytest.mark.parametrize("beginning", [b"GET /", b"POST http://a", b"\r\nPROPFIND /x HTTP/1"])
def test_a_known_method_and_target_are_the_candidate(beginning: bytes) -> None:
    assert verdict(beginning) is Verdict.LIKELY


@pytest.mark.parametrize("beginning", [b"GE", b"GET ", b"X /", b"OPTIONS sip:a", b"GET foo", b"\r"])
def test_less_than_that_needs_more(beginning: bytes) -> None:
    assert verdict(beginning) is Verdict.NEED_MORE


def test_other_lines_wait_for_the_answer() -> None:
    for opening in (
        b"GET foo\r\n",
        b"get key1 key2\r\n",
        b"HEAD\r\n",
        b"NICK x\r\n",
        b"USER anonymous\r\n",
        b"USER a 0 * :b\r\n",
        b"AUTH LOGIN\r\n",
        b"EHLO a.example\r\n",
        b"DESCRIBE rtsp://a/b RTSP/1.0\r\n",
        b"OPTIONS * RTSP/1.0\r\n",
        b"OPTIONS sip:a@b SIP/2.0\r\n",
        b"REQMOD icap://a/b ICAP/1.0\r\n",
        b"SOURCE /m ICE/1.0\r\n",
        b"PRI * HTTP/2.0\r\n",
        b"PING\r\n",
        b"SET a b\r\n",
        b"*1\r\n$4\r\nPING\r\n",
        b"CONNECT\n",
        b"CONNECT {",
        b"CONNECT a:1 HTTP/1.1\r\n",
        b"\r\n" * 5 + b"GET / HTTP/1.1\r\n",
        b"A" * 8193,
        b"SSH-2.0-OpenSSH_9.6\r\n",
    ):
        assert verdict(opening) is Verdict.NEED_MORE
        assert verdict(opening, b"+OK\r\n") is Verdict.REJECT
        assert verdict(opening, b"220 hello\r\n") is Verdict.REJECT
        assert verdict(opening, b"HTTP/1.") is Verdict.NEED_MORE


@pytest.mark.parametrize("opening", [b"GET\x00", b"\x00GET", b"\x16\x03\x01"])
def test_what_is_no_line_is_rejected(opening: bytes) -> None:
    assert verdict(opening) is Verdict.REJECT


def test_an_odd_request_is_known_by_its_answer() -> None:
    for up, down, expected in (
        # As lighttpd, Apache, tinyproxy and SHOUTcast answer.
        (b"GET / HTTP/1.10\r\n\r\n", b"HTTP/1.0 400 Bad Request\r\n", Verdict.MATCH),
        (b"GET HTTP/1.1\r\n", b"HTTP/1.1 200 OK\r\n", Verdict.MATCH),
        (b"GET\r\n\r\n", b"HTTP/1.1 400 Bad Request\r\n", Verdict.MATCH),
        (b"GET / HTTX/1.0\r\n", b"HTTP/1.1 400 Bad Request\r\n", Verdict.LIKELY),
        (b"FOO\r\n\r\n", b"HTTP/1.0 400 Bad Request\r\n", Verdict.LIKELY),
        (b"get / http/1.0\r\n", b"HTTP/1.0 501 Not Implemented\r\n", Verdict.LIKELY),
        (b"OPTIONS sip:a SIP/2.0\r\n", b"HTTP/1.1 400 No\r\n", Verdict.LIKELY),
        (b"GET /x\r\n", b"HTTP/1.0 200 OK\r\n", Verdict.MATCH),
        (b"GET /cgi-bin/x?y=z\r\n", b"<HTML><HEAD><TITLE>404", Verdict.MATCH),
        (b"GET /\r\n", b"\n<!doctype html>", Verdict.MATCH),
        (b"GET /x\r\n", b"hello", Verdict.LIKELY),
        (b"GET /x\r\n", b"", Verdict.LIKELY),
        (b"GET / ICY\r\n", b"ICY 200 OK\r\n", Verdict.MATCH),
        (b"GET /\x01 HTTP/1.1\r\n", b"HTTP/1.1 400 Bad Request\r\n", Verdict.MATCH),
    ):
        assert verdict(up, down) is expected


def test_a_server_that_a_capture_takes_for_the_client_is_left_alone(converse: Converse) -> None:
    assert verdict(OK) is Verdict.MATCH
    conversation = Http1()
    talk = converse(conversation, [(UP, OK), (DOWN, GET), (UP, OK)])
    assert conversation.details_ready
    assert (conversation.up, conversation.down) == (FORWARD_ALL, FORWARD_ALL)
    assert not talk.kept[UP]
    assert conversation.details() == Http1Details(host=None, absolute_form=False, upgrade=None)


def test_a_status_line_of_the_clients_has_time_to_become_one() -> None:
    for size in range(1, len(b"HTTP/1.1 200")):
        assert verdict(OK[:size], b"GET / ") is Verdict.NEED_MORE
    assert verdict(OK, b"GET / ") is Verdict.MATCH


def test_a_status_line_alone_is_an_answer() -> None:
    line = b"HTTP/1.1 200 OK\r\n"
    assert [verdict(down=line[:size]) for size in range(14)] == [Verdict.NEED_MORE] * 13 + [
        Verdict.LIKELY
    ]
    for end in (b"HTTP/1.1 204\r\n", b"ICY 200 OK\r\n"):
        assert verdict(down=end) is Verdict.LIKELY
        assert verdict(down=end, up_ended=True) is Verdict.MATCH
    for other in (b"HTTP/2", b"HTTP/1.1 099", b"HTTP/1.1 2000", b"220 ", b"ICYS"):
        assert verdict(down=other) is Verdict.NEED_MORE


lines = st.sampled_from(
    [b"GET / HTTP/1.1\r\n", b"get foo\r\n", b"CONNECT a:1 HTTP/1.1\r\n", b"X * RTSP/1.0\r\n\r\n"]
)


@given(start=st.one_of(st.binary(max_size=40), lines), more=st.binary(max_size=8))
def test_the_verdict_never_flips(start: bytes, more: bytes) -> None:
    data = start + more
    verdicts = [verdict(data[:size]) for size in range(1, len(data) + 1)]
    details_ready = [item for item in verdicts if item in (Verdict.MATCH, Verdict.REJECT)]
    assert len(set(details_ready)) <= 1
    assert verdicts[len(verdicts) - len(details_ready) :] == details_ready


def test_the_first_bytes_of_the_row_cover_what_is_detected() -> None:
    assert PROTOCOL.client_first is not None
    for byte in range(256):
        beginning = verdict(bytes([byte])) is not Verdict.REJECT
        assert beginning == (byte in PROTOCOL.client_first)


@pytest.mark.parametrize("request_head", [GET, UPGRADE, b"GET http://a.example/ HTTP/1.1\r\n\r\n"])
def test_no_host_is_looked_for_where_the_policy_refuses_nothing(request_head: bytes) -> None:
    target = Target("192.0.2.1", 80)
    for refuses_nothing in (False, True):
        policy = FlowPolicy(refuses_nothing=refuses_nothing)
        conversation = Http1(context=LayerContext(target=target, policy=policy))
        decision = conversation.receive(UP, request_head)
        assert bool(decision.named) is not refuses_nothing
