"""HTTP/2 with editing, as a whole flow: what begins in HTTP/1, pushed streams, WebSockets, and the
ends of connections."""

from __future__ import annotations

import zlib

import h2.events
import h2.settings
import pytest

from mitml4.events import RuleApplied
from mitml4.net.memory import MemoryStream
from mitml4.protocols.http import http2_wire as wire
from mitml4.protocols.http.http2_wire import ErrorCode, frame_bytes
from mitml4.session.destinations.policy import Policy
from tests.layers.conftest import EDIT_LIMIT, End, FlowLab, Outcomes, note_sent
from tests.layers.test_editing import met_all, rules, says
from tests.layers.test_misdirected import ALLOWED, Peer, get

UPGRADE = b"GET /a HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade, HTTP2-Settings\r\n"
ACCEPTED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
REPLACE = """
[[rule]]
replace = [
    { in = "response.body", regex = "secret", with = "replaced" },
    { in = "message", regex = "secret", with = "replaced" },
]
"""


def unedited(out: Outcomes) -> list[str | None]:
    applied = [event for event in out.events if isinstance(event, RuleApplied)]
    return [event.reason for event in applied if event.what == "unedited"]


def upgraded(lab: FlowLab, host: str = "a.test", **how: object) -> tuple[Peer, Outcomes]:
    """A request that becomes stream 1, and another one, for this host."""
    client, server = Peer(True, begins=False), Peer(False, begins=False)

    async def ask(end: End) -> None:
        named = client.connection.initiate_upgrade_connection()
        assert named
        await end.send(UPGRADE + b"Upgrade: h2c\r\nHTTP2-Settings: %b\r\n\r\n" % named)
        await end.expect(ACCEPTED)
        client.connection.send_headers(3, get(host), end_stream=True)
        await client.speak(end, lambda: len(client.of(h2.events.StreamEnded)) == 2)

    async def answer(end: End) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += await end.receive(1)
        named = head.partition(b"HTTP2-Settings: ")[2].split()[0]
        await end.send(ACCEPTED)
        server.connection.initiate_upgrade_connection(named)
        server.connection.send_headers(1, [(":status", "200"), ("content-length", "8")])
        server.connection.send_data(1, b"a secret", end_stream=True)
        await server.speak(end, lambda: False)

    out = lab.run(ask, answer, **how)  # type: ignore[arg-type]
    out.check()
    return client, out


def test_a_connection_that_began_as_http_1_is_edited(flow_lab: FlowLab) -> None:
    client, out = upgraded(flow_lab, editor=rules(REPLACE))
    assert client.statuses == {1: "200", 3: "200"}
    (body,) = client.of(h2.events.DataReceived)
    assert body.data == b"a replaced"
    assert out.stack == ("http/1", "http/2")


def test_what_is_allowed_may_begin_as_http_1(flow_lab: FlowLab) -> None:
    client, out = upgraded(flow_lab, policy=Policy(allow=ALLOWED).decide)
    assert client.statuses == {1: "200", 3: "200"}
    assert out.close.reason == "closed"
    client, out = upgraded(flow_lab, "other.test", policy=Policy(allow=ALLOWED).decide)
    assert client.statuses == {1: "200", 3: "421"}
    assert out.close.reason == "denied"


def test_pushed_streams_pass_which_is_said_once(flow_lab: FlowLab) -> None:
    client, server = Peer(True), Peer(False)

    async def ask(end: End) -> None:
        client.connection.send_headers(1, get("a.test"), end_stream=True)
        await client.speak(end, lambda: len(client.of(h2.events.StreamEnded)) == 3)

    async def answer(end: End) -> None:
        await server.speak(end, lambda: bool(server.asked), answers=False)
        for pushed in (2, 4):
            server.connection.push_stream(1, pushed, get("a.test"))
            server.connection.send_headers(pushed, [(":status", "200")])
            server.connection.send_data(pushed, b"a secret", end_stream=True)
        server.connection.send_headers(1, [(":status", "200")])
        server.connection.send_data(1, b"a secret", end_stream=True)
        await server.speak(end, lambda: False)

    out = flow_lab.run(ask, answer, editor=rules(REPLACE))
    out.check()
    bodies = {each.stream_id: each.data for each in client.of(h2.events.DataReceived)}
    assert bodies == {1: b"a replaced", 2: b"a secret", 4: b"a secret"}
    assert unedited(out) == ["pushed streams"]


def test_a_call_of_grpc_goes_on_before_it_ends(flow_lab: FlowLab) -> None:
    """The server answers each message of a stream; who waited for its end would wait for ever."""
    client, server = Peer(True), Peer(False)
    headers = get("a.test", ("content-type", "application/grpc"), method="POST")

    async def ask(end: End) -> None:
        client.connection.send_headers(1, headers)
        client.connection.send_data(1, b"secret")
        await client.speak(end, lambda: bool(client.of(h2.events.DataReceived)))
        client.connection.end_stream(1)
        await client.speak(end, lambda: bool(client.of(h2.events.StreamEnded)))

    async def answer(end: End) -> None:
        await server.speak(end, lambda: bool(server.of(h2.events.DataReceived)), answers=False)
        server.connection.send_headers(1, [(":status", "200"), headers[-1]])
        server.connection.send_data(1, b"secret")
        await server.speak(end, lambda: bool(server.of(h2.events.StreamEnded)))
        server.connection.end_stream(1)
        await server.speak(end, lambda: False)

    editor = rules('[[rule]]\nreplace = { in = "request.body", regex = "secret", with = "x" }')
    out = flow_lab.run(ask, answer, editor=editor)
    out.check()
    assert (server.content(1), client.content(1)) == (b"secret", b"secret")
    assert unedited(out) == ["a body without an end"]


def messages_of(data: bytes) -> list[bytes]:
    """The messages of unmasked frames, undone."""
    found, at = [], 0
    inflater = zlib.decompressobj(-15)
    while at < len(data):
        head, size = data[at], data[at + 1]
        body = data[at + 2 : at + 2 + size]
        at += 2 + size
        found.append(inflater.decompress(body + b"\0\0\xff\xff") if head & 0x40 else body)
    return found


@pytest.mark.parametrize("compresses", [False, True], ids=["plain", "compressed"])
def test_messages_of_a_websocket_over_http_2_are_edited(
    flow_lab: FlowLab, compresses: bool
) -> None:
    client, server = Peer(True), Peer(False)
    extension = [("sec-websocket-extensions", "permessage-deflate")] if compresses else []
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)

    def frame(text: bytes, mask: bytes = b"") -> bytes:
        head = 0x82
        if compresses:
            text = (deflate.compress(text) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]
            head |= 0x40
        masked = bytes(each ^ mask[at % 4] for at, each in enumerate(text)) if mask else text
        return bytes([head, len(text) | (0x80 if mask else 0)]) + mask + masked

    async def ask(end: End) -> None:
        line = [(":method", "CONNECT"), (":protocol", "websocket"), *get("a.test")[1:]]
        client.connection.send_headers(1, line)
        client.connection.send_data(1, b"\x82\x86\0\0\0\0secret")
        await client.speak(end, lambda: len(messages_of(client.content(1))) == 3)
        client.connection.end_stream(1)
        await client.speak(end, lambda: bool(client.of(h2.events.StreamEnded)))

    async def answer(end: End) -> None:
        server.connection.update_settings({h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL: 1})
        await server.speak(end, lambda: bool(server.asked), answers=False)
        server.connection.send_headers(1, [(":status", "200"), *extension])
        for text in (b"a secret", b"another", b"secrets"):
            server.connection.send_data(1, frame(text))
        await server.speak(end, lambda: bool(server.of(h2.events.StreamEnded)))
        server.connection.end_stream(1)
        await server.speak(end, lambda: False)

    out = flow_lab.run(ask, answer, editor=rules(REPLACE))
    out.check()
    assert messages_of(client.content(1)) == [b"a replaced", b"another", b"replaceds"]
    sent = server.content(1)
    assert (len(sent), sent[:2]) == (2 + 4 + 8, b"\x82\x88")
    assert unedited(out) == []
    assert out.stack == ("http/2", "websocket")


def test_a_websocket_that_is_refused_is_a_response(flow_lab: FlowLab) -> None:
    client, server = Peer(True), Peer(False)

    async def ask(end: End) -> None:
        line = [(":method", "CONNECT"), (":protocol", "websocket"), *get("a.test")[1:]]
        client.connection.send_headers(1, line)
        client.connection.send_data(1, b"early", end_stream=True)
        await client.speak(end, lambda: bool(client.of(h2.events.StreamEnded)))

    async def answer(end: End) -> None:
        await server.speak(end, lambda: bool(server.asked), answers=False)
        server.connection.send_headers(1, [(":status", "403")])
        server.connection.send_data(1, b"no", end_stream=True)
        await server.speak(end, lambda: bool(server.of(h2.events.StreamEnded)))

    out = flow_lab.run(ask, answer, editor=rules(REPLACE))
    out.check()
    assert (client.content(1), server.content(1)) == (b"no", b"early")


def test_a_client_that_breaks_the_protocol_is_told_so(flow_lab: FlowLab) -> None:
    settings = frame_bytes(wire.SETTINGS, 0, 0)
    client = says(
        ("send", wire.PREFACE + settings),
        ("expect", settings),
        ("send", frame_bytes(wire.DATA, 0, 1, b"on an idle stream")),
        (
            "expect",
            frame_bytes(wire.GOAWAY, 0, 0, bytes(4) + ErrorCode.PROTOCOL_ERROR.to_bytes(4)),
        ),
        ("expect eof", b""),
        ("eof", b""),
    )
    server = says(
        ("expect", wire.PREFACE + settings), ("send", settings), ("expect eof", b""), ("eof", b"")
    )
    out = flow_lab.run(client, server, editor=rules(REPLACE))
    out.check()
    assert met_all(out), out.met


ELSEWHERE = """
[[rule]]
match = "host:a.test"
to = "http://192.0.2.9:8000/base"
replace = { in = "response.body", regex = "secret", with = "replaced" }
"""
LARGE = b"x" * 3 * EDIT_LIMIT + b"the end ..."


async def read_until(end: End, mark: bytes) -> bytes:
    """Read until it ends with the mark."""
    data = b""
    while not data.endswith(mark) and (more := await end.receive_some()):
        data += more
    return data


def sent_elsewhere(
    lab: FlowLab,
    answered: bytes,
    body: bytes = b"",
    *more: tuple[str, str],
    text: str = ELSEWHERE,
    pieces: list[bytes] | None = None,
) -> tuple[Peer, bytes]:
    """What a client of HTTP/2 gets, and what the other server. `pieces` is
    given what is sent to the server."""
    client, got = Peer(True), bytearray()

    async def ask(end: End) -> None:
        request = get("a.test", *more, method="POST")
        client.connection.send_headers(1, request, end_stream=not body)
        if body:
            await client.send_body(end, 1, body)
        over = (h2.events.StreamEnded, h2.events.StreamReset)
        await client.speak(end, lambda: any(map(client.of, over)))

    async def elsewhere(end: End) -> None:
        assert isinstance(end.stream, MemoryStream)
        note_sent(end.stream.far, [] if pieces is None else pieces)
        mark = b"\r\n\r\n" if not body else body[-10:] if more else b"\r\n0\r\n\r\n"
        got.extend(await read_until(end, mark))
        await end.send(answered)
        await end.send_eof()

    async def server(end: End) -> None:
        await Peer(False).speak(end, lambda: False)

    out = lab.run(ask, server, editor=rules(text), elsewhere=elsewhere)
    out.check()
    return client, bytes(got)


def test_a_request_to_another_server_is_streamed(flow_lab: FlowLab) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(LARGE)
    client, got = sent_elsewhere(flow_lab, head + LARGE, LARGE)
    assert client.content(1) == LARGE
    assert got.startswith(b"POST /base/ HTTP/1.1\r\nHost: 192.0.2.9:8000\r\n")
    assert b"\r\nTransfer-Encoding: chunked\r\n" in got
    assert got.count(b"x") == LARGE.count(b"x")
    client, got = sent_elsewhere(flow_lab, head + LARGE, LARGE, ("content-length", str(len(LARGE))))
    assert client.content(1) == LARGE
    assert got.endswith(b"Connection: close\r\n\r\n" + LARGE)


def test_a_request_with_its_body_is_one_piece_for_another_server(flow_lab: FlowLab) -> None:
    text = ELSEWHERE.replace("response.", "request.")
    pieces: list[bytes] = []
    ok = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    sent_elsewhere(
        flow_lab, ok, b"a secret, and the end", ("content-length", "21"), text=text, pieces=pieces
    )
    assert len(pieces) == 1
    assert pieces[0].endswith(b"\r\n\r\na replaced, and the end")


def test_a_response_of_another_server_is_edited(flow_lab: FlowLab) -> None:
    for answered in (
        b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\na secret",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\na s\r\n5\r\necret\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\na secret",
    ):
        client, _ = sent_elsewhere(flow_lab, answered)
        assert client.content(1) == b"a replaced", answered


def test_a_request_is_one_request_for_another_server_too(flow_lab: FlowLab) -> None:
    """What HTTP/2 can carry in a field would be other fields or requests in HTTP/1."""
    for field in (
        ("x", "1\r\nX-Injected: 1"),
        ("x", "1\n"),
        ("x\r\nx", "1"),
        (":path", "/ HTTP/1.1\r\n\r\nGET /"),
        (":path", "/a b"),
        (":method", "GET /a HTTP/1.1\r\nX:"),
        ("content-length", "-1"),
        ("content-length", "0, 9"),
    ):
        client, got = sent_elsewhere(flow_lab, b"", b"", field)
        assert (client.statuses, got) == ({1: "400"}, b""), field
    for length in (len(LARGE) - 1, len(LARGE) + 1):
        client, got = sent_elsewhere(flow_lab, b"", LARGE, ("content-length", str(length)))
        assert client.statuses == {1: "502"}
        assert got.partition(b"\r\n\r\n")[2] in LARGE


def test_another_server_gets_one_field_with_all_cookies(flow_lab: FlowLab) -> None:
    ok = b"HTTP/1.1 204 No Content\r\n\r\n"
    _, got = sent_elsewhere(flow_lab, ok, b"", ("cookie", "a=1"), ("cookie", "b=2"))
    assert b"\r\nCookie: a=1; b=2\r\n" in got
    assert got.lower().count(b"cookie") == 1


def test_what_another_server_does_not_finish_is_no_response(flow_lab: FlowLab) -> None:
    client, _ = sent_elsewhere(flow_lab, b"nonsense\r\n\r\n")
    assert client.statuses == {1: "502"}
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (2 * len(LARGE))
    client, _ = sent_elsewhere(flow_lab, head + LARGE)
    assert client.of(h2.events.StreamReset)
    assert not client.of(h2.events.StreamEnded)
