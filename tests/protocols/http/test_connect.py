from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import (
    PAUSE,
    PEEK,
    SWITCH,
    Direction,
    LayerContext,
    Opening,
    Target,
    Verdict,
)
from mitml4.protocols.http.connect import PROTOCOL, HttpConnect, HttpConnectDetails
from mitml4.protocols.http.events import HttpEnd, HttpRequest, HttpResponse

UP, DOWN = Direction.UP, Direction.DOWN
Converse = Callable[..., Any]

CONNECT = b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n"
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
# The lengths mean nothing in a 2xx to CONNECT (RFC 9110 §9.3.6).
ESTABLISHED_OF = {
    "plain": ESTABLISHED,
    "counted": b"HTTP/1.0 200 OK\r\nContent-Length: 10\r\n\r\n",
    "chunked": b"HTTP/1.1 299 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    "unframeable": b"HTTP/1.1 200 OK\r\nContent-Length: ?\r\n\r\n",
    "after an informational one": b"HTTP/1.1 100 Continue\r\n\r\n" + ESTABLISHED,
}
# A refusal in each framing, and what the client may send next on the same connection.
REFUSALS = {
    "counted": b"HTTP/1.1 407 Auth\r\nContent-Length: 4\r\n\r\nuser",
    "empty": b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n",
    "chunked": b"HTTP/1.1 407 Auth\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
}


def test_a_2xx_opens_the_tunnel_right_behind_its_head(converse: Converse) -> None:
    for chunk in (None, 1):
        for answer in ESTABLISHED_OF:
            conversation = HttpConnect()
            talk = converse(conversation, [(UP, CONNECT + b"\x16\x03")], chunk=chunk)
            assert conversation.up is PAUSE
            assert talk.kept[UP] == b"\x16\x03"
            assert not conversation.details_ready
            talk = converse(
                conversation, [(DOWN, ESTABLISHED_OF[answer] + b"220 hello")], chunk=chunk
            )
            assert (conversation.up, conversation.down) == (SWITCH, SWITCH)
            assert talk.kept[DOWN] == b"220 hello"
            assert conversation.details_ready
            assert conversation.target == Target("a.example", 443)
            assert conversation.inner is None
            status = 299 if answer == "chunked" else 200
            assert conversation.details() == HttpConnectDetails(
                target=conversation.target, status=status
            )


@pytest.mark.parametrize("chunk", [None, 1])
@pytest.mark.parametrize("answer", REFUSALS)
def test_a_refusal_goes_on_as_http(answer: str, chunk: int | None, converse: Converse) -> None:
    conversation = HttpConnect()
    script = [(UP, CONNECT), (DOWN, REFUSALS[answer])]
    converse(conversation, script, chunk=chunk)
    assert (conversation.up, conversation.down) == (PEEK, PEEK)
    assert conversation.details_ready
    refused = conversation.details()
    assert isinstance(refused, HttpConnectDetails)
    assert refused.status in (403, 407)
    again = CONNECT[:-2] + b"Proxy-Authorization: Basic eDp5\r\n\r\n"
    get = b"GET http://b/ HTTP/1.1\r\n\r\n"
    talk = converse(conversation, [(UP, get + again + b"inner"), (DOWN, REFUSALS["empty"])])
    assert talk.moved[UP] == get + again
    talk = converse(conversation, [(DOWN, ESTABLISHED)], chunk=chunk)
    assert (conversation.up, conversation.down) == (SWITCH, SWITCH)
    assert conversation.details() == HttpConnectDetails(target=conversation.target, status=200)


def test_a_refusal_may_last_until_the_end(converse: Converse) -> None:
    conversation = HttpConnect()
    refusal = b"HTTP/1.0 502 Bad Gateway\r\n\r\nno route"
    talk = converse(conversation, [(UP, CONNECT), (DOWN, refusal), (DOWN, None)])
    assert talk.protocol_events[-1] == HttpEnd(
        stream=1, request_bytes=0, response_bytes=8, duration_s=0.0
    )


def test_the_content_length_of_a_connect_means_nothing(converse: Converse) -> None:
    conversation = HttpConnect()
    request = CONNECT[:-2] + b"Content-Length: 5\r\n\r\n"
    talk = converse(conversation, [(UP, request + b"inner"), (DOWN, ESTABLISHED)])
    assert talk.kept[UP] == b"inner"


def test_notices_name_the_authority(converse: Converse) -> None:
    conversation = HttpConnect(context=LayerContext(secure=True))
    talk = converse(conversation, [(UP, CONNECT), (DOWN, ESTABLISHED)])
    request, response, end = talk.protocol_events
    assert isinstance(request, HttpRequest)
    assert (request.method, request.url) == ("CONNECT", "a.example:443")
    assert isinstance(response, HttpResponse)
    assert response.status == 200
    assert end == HttpEnd(stream=1, request_bytes=0, response_bytes=0, duration_s=0.0)


def test_bytes_that_are_no_http_end_it(converse: Converse) -> None:
    with pytest.raises(ProtocolError):
        converse(HttpConnect(), [(UP, CONNECT), (DOWN, b"\x00")])


def verdict(up: bytes) -> Verdict:
    assert PROTOCOL.detect is not None
    return PROTOCOL.detect(Opening(up=up))


@pytest.mark.parametrize(
    ("line", "target"),
    [
        (b"CONNECT a.example:443 HTTP/1.1\r\n", Target("a.example", 443)),
        (b"\r\nCONNECT 10.0.0.1:80 HTTP/1.0\n", Target("10.0.0.1", 80)),
        (b"CONNECT [2001:db8::1]:8443 HTTP/1.1\r\n", Target("2001:db8::1", 8443)),
        (b"CONNECT 2001:db8::1:8443 HTTP/1.1\r\n", Target("2001:db8::1", 8443)),
        (b"CONNECT a.example HTTP/1.1\r\n", Target("a.example", 443)),
        (b"CONNECT a.example:25 / HTTP/1.0\r\n", Target("a.example", 25)),
        (b"CONNECT / HTTP/1.1\r\n", None),
        (b"CONNECT :1 HTTP/1.1\r\n", None),
        (b"CONNECT a:b HTTP/1.1\r\n", None),
    ],
)
def test_a_connect_line_matches_once_it_is_whole(
    line: bytes, target: Target | None, converse: Converse
) -> None:
    assert verdict(line) is Verdict.MATCH
    word = line.index(b"CONNECT ") + len(b"CONNECT ")
    assert all(verdict(line[:size]) is Verdict.NEED_MORE for size in range(word + 1))
    assert all(verdict(line[:size]) is Verdict.LIKELY for size in range(word + 1, len(line)))
    conversation = HttpConnect()
    converse(conversation, [(UP, line + b"\r\n"), (DOWN, ESTABLISHED)])
    assert conversation.target == target
    assert conversation.details() == HttpConnectDetails(target=target, status=200)


@pytest.mark.parametrize(
    "opening",
    [
        b"CONNECT\n",
        b"CONNECT\r\n",
        b'CONNECT {"verbose"',
        b"CONNECT a:1 HTTP/2\r\n",
        b"CONNECT \x00",
        b"connect a:1",
        b"GET ",
        b"\r\n" * 5 + b"C",
    ],
)
def test_other_connects_are_rejected(opening: bytes) -> None:
    assert verdict(opening) is Verdict.REJECT


@given(
    st.from_regex(rb"\A\r?\n?CONNECT [a-z\[:\]]{0,6}:[0-9]{0,3} (HTTP/1.[01])?\r?\n?"),
    st.binary(max_size=4),
)
def test_the_verdict_never_flips(start: bytes, more: bytes) -> None:
    data = start + more
    verdicts = [verdict(data[:size]) for size in range(len(data) + 1)]
    decided = [item for item in verdicts if item in (Verdict.MATCH, Verdict.REJECT)]
    assert len(set(decided)) <= 1
    assert verdicts[len(verdicts) - len(decided) :] == decided
