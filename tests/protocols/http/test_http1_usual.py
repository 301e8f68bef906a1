"""A head that is remembered is read as it would be without that, by the same bytes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import Decision, Direction, LayerContext, Target
from mitml4.protocols.http import http1_conversation
from mitml4.protocols.http.connect import HttpConnect
from mitml4.protocols.http.http1 import Http1
from mitml4.protocols.http.http1_usual import usual_request, usual_response
from mitml4.protocols.payload import Shown
from mitml4.protocols.policy import FlowPolicy

UP, DOWN = Direction.UP, Direction.DOWN

GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"

REQUESTS = [
    GET, GET + GET, GET[:-2], b"\r\n" + GET, GET.replace(b"\r\n\r\n", b"\n\r\n"),
    b"GET /a HTTP/1.1\n\nPOST /b HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n", b"HEAD /?a=me:pw@z HTTP/1.0\r\nHost: me:pw@y\r\n\r\n",
    b"GET /a HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 2000 + b"\r\n\r\n",
    b"GET http://y/a HTTP/1.1\r\nHost: x\r\n\r\n", b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
    b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc",
    b"POST /a HTTP/1.1\r\nContent-Length : 3\r\n\r\nabc", b"GET /a HTTP/1.1\r\n x: y\r\n\r\n",
    b"PUT /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
    b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n",
    b"GET /a HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", b"GET /a HTTP/1.1\r\nHo\rst: y\r\n\r\n",
    b"GET /a\r\n", b"NOT HTTP\r\n\r\n",
]  # fmt: skip
RESPONSES = [
    OK, OK + OK, OK[:-1], b"\r\n" + OK, b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nContent-Type: text/html\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", b"HTTP/1.1 200 OK\n\nHTTP/1.1 1\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\nContent-Length: x\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\nto the end",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: " + b"x" * 2000 + b"\r\nContent-Length: 0\r\n\r\n", b"<html>\r\n\r\n",
]  # fmt: skip

steps = st.lists(
    st.tuples(st.just(UP), st.sampled_from(REQUESTS))
    | st.tuples(st.just(DOWN), st.sampled_from(RESPONSES)),
    max_size=8,
)


def follow(kind: Any, script: list[tuple[Direction, bytes]]) -> list[object]:
    """What is decided about each piece, up to an error."""
    context = LayerContext(
        secure=True,
        target=Target("x", 443),
        shown=Shown(headers=True),
        policy=FlowPolicy(meant=("x",)),
    )
    conversation = kind(context=context)
    kept = {UP: b"", DOWN: b""}
    found: list[object] = []
    for direction, data in script:
        shown = kept[direction] + data
        try:
            decision: Decision = conversation.receive(direction, shown)
        except ProtocolError as error:
            return [*found, error.message, conversation.finish()]
        kept[direction] = shown[decision.taken :]
        found.append(decision)
    return [*found, conversation.details(), conversation.finish()]


@given(kind=st.sampled_from([Http1, HttpConnect]), script=steps)
def test_a_usual_head_is_read_as_any_other(
    kind: Any, script: list[tuple[Direction, bytes]]
) -> None:
    quick = follow(kind, script)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("usual_request", "usual_response"):
            patch.setattr(http1_conversation, name, lambda *_: None)
        assert follow(kind, script) == quick


def test_what_repeats_is_read_once() -> None:
    assert usual_request(GET, 0) is usual_request(b"." + GET + GET, 1)
    assert usual_response(OK, 0) is usual_response(OK[:-2], 0)
    assert usual_request(GET, 0) is not None
    assert usual_response(OK, 0) is not None
