"""Hooks on flows in memory. The script's side runs in this process, behind the same frames."""

from __future__ import annotations

import gzip
from types import ModuleType
from typing import Any

import h2.events
import pytest

from mitml4.events import RuleApplied, ScriptError
from mitml4.hooks.editor import HookEditor, HookError, Info
from mitml4.hooks.runner import ScriptHooks, describe
from mitml4.hooks.wire import Contents, Frame
from tests.layers.conftest import EDIT_LIMIT, End, FlowLab, Outcomes, Script
from tests.layers.test_editing import (
    AS_IT_CAME,
    GET,
    OK,
    WEBSOCKET,
    conversation,
    met_all,
    says,
    unchanged,
)
from tests.layers.test_misdirected import Peer, get

IDENTITY = """
def request(flow, request):
    request.url, dict(request.query), dict(request.cookies), request.headers.items(), request.path
    request.headers = request.headers.items()
    if not request.streams:
        request.text = request.text
        request.content = bytes(bytearray(request.content))
def response(flow, request, response):
    dict(response.cookies), response.status_code, response.reason
    response.headers = response.headers.items()
    if not response.streams:
        response.text = response.text
def message(flow, message):
    message.text = message.text
def data(flow, direction, data):
    return bytes(bytearray(data))
"""


class InProcess(HookEditor):
    """Asks a script that runs here."""

    def __init__(self, text: str) -> None:
        super().__init__("hooks.py", EDIT_LIMIT)
        module = ModuleType("hooks")
        exec(text, module.__dict__)
        self.info = Info.of(describe(module))
        self.hooks = ScriptHooks(module)

    async def ask(self, head: dict[str, Any], contents: Contents) -> Frame:
        asked = moved(Frame({"id": 1, **head}, contents.body))
        return moved(await self.hooks.call(asked))

    def say_once(self, hook: str, error: HookError) -> None:
        raise AssertionError(hook, error)


def moved(frame: Frame) -> Frame:
    data = frame.encode()
    at = len(data) - len(frame.body)
    return Frame.decode(data[8:at], data[at:])


def run(lab: FlowLab, text: str, client: Script, server: Script) -> Outcomes:
    out = lab.run(client, server, editor=InProcess(text))
    out.check()
    assert not any(isinstance(event, ScriptError) for event in out.events)
    return out


def applied(out: Outcomes) -> list[str]:
    return [event.what for event in out.events if isinstance(event, RuleApplied)]


@pytest.mark.parametrize("split", [False, True], ids=["whole", "byte by byte"])
@pytest.mark.parametrize("name", AS_IT_CAME)
def test_what_hooks_do_not_change_is_sent_as_it_came(
    flow_lab: FlowLab, name: str, split: bool
) -> None:
    client, server = conversation(*AS_IT_CAME[name])(split)
    out = run(flow_lab, IDENTITY, client, server)
    assert met_all(out), out.met
    assert out.close.reason == "closed"
    assert set(applied(out)) <= {"unedited"}


def test_fields_keep_their_bytes_beside_changed_ones(flow_lab: FlowLab) -> None:
    text = """
def request(flow, request):
    request.headers["b"] = "2"
    request.method, request.path = "PATCH", "/b"
    request.headers["Content-Length"] = "0"
    request.headers.add("Transfer-Encoding", "chunked")
def response(flow, request, response):
    response.status_code = 201
    response.headers.add("B", "2")
    del response.headers["content-length"]
"""
    sent = b"POST /a HTTP/1.1\r\nhOST:a.test\r\nB : 1\r\nA:\t1 \r\nContent-LENGTH:2\r\n\r\nab"
    got = b"PATCH /b HTTP/1.1\r\nhOST:a.test\r\nB: 2\r\nA:\t1 \r\nContent-LENGTH:2\r\n\r\nab"
    answered = b"HTTP/1.1 200 Fine\r\nContent-length: 2\r\na:b\r\n\r\nok"
    received = b"HTTP/1.1 201 Created\r\na:b\r\nB: 2\r\nContent-length: 2\r\n\r\nok"
    client, server = conversation((sent, got, answered, received))(False)
    out = run(flow_lab, text, client, server)
    assert met_all(out), out.met
    assert applied(out) == ["changed method, target, headers", "changed status, headers"]


def test_an_answer_is_given_instead_of_the_servers(flow_lab: FlowLab) -> None:
    text = """
from mitml4.hooks import Response
def request(flow, request):
    if request.path == "/a":
        return Response(404, {"Content-Length": "9", "A": "b"}, b"no")
"""
    own = b"HTTP/1.1 404 Not Found\r\nA: b\r\nContent-Length: 2\r\n\r\nno"
    other = GET.replace(b"/a", b"/b")
    client = says(
        ("send", GET), ("expect", own), ("send", other), ("expect", OK), ("eof", b""),
        ("expect eof", b""),
    )  # fmt: skip
    server = says(("expect", other), ("send", OK), ("expect eof", b""), ("eof", b""))
    out = run(flow_lab, text, client, server)
    assert met_all(out), out.met
    assert applied(out) == ["answered"]


def test_data_is_changed_piece_by_piece_and_that_is_said_once(flow_lab: FlowLab) -> None:
    text = """
def data(flow, direction, data):
    data = data.replace(b"drop", b"")
    return data.replace(b"a", b"bb") if direction == "up" else data
"""
    client = says(
        ("send", b"\0a"), ("expect", b"1"), ("send", b"drop"), ("send", b"xa"), ("expect", b"2"),
        ("eof", b""), ("expect eof", b""),
    )  # fmt: skip
    server = says(
        ("expect", b"\0bb"), ("send", b"1"), ("expect", b"xbb"), ("send", b"2"),
        ("expect eof", b""), ("eof", b""),
    )  # fmt: skip
    out = run(flow_lab, text, client, server)
    assert met_all(out), out.met
    assert applied(out) == ["changed data"]


def test_frames_of_a_websocket_are_no_data(flow_lab: FlowLab) -> None:
    text = """
def message(flow, message):
    message.text = message.text.upper()
def data(flow, direction, data):
    1 / 0
"""
    ask, accept = WEBSOCKET
    client = says(("send", ask), ("expect", accept + b"\x81\x01A"), ("send", b"\x88\x00"))
    server = says(("expect", ask), ("send", accept + b"\x81\x01a"), ("expect", b"\x88\x00"))
    out = run(flow_lab, text, client, server)
    assert met_all(out), out.met
    assert applied(out) == ["changed content"]


def test_what_cannot_match_takes_its_usual_way(flow_lab: FlowLab) -> None:
    text = "match = 'not port:443'\ndef response(flow, request, response): 1 / 0"
    client, server = conversation(unchanged(GET, OK))(False)
    assert met_all(run(flow_lab, text, client, server))


LIES = {"gzip": b"plain text", "gzip, zstd": gzip.compress(b"a"), "sdch": b"text", "br": b"\xff"}
TELLS_HELD = """
def tell(message):
    try:
        message.text += "!"
    except ValueError as error:
        message.headers["X-Told"] = type(error).__name__
def request(flow, request):
    tell(request)
def response(flow, request, response):
    tell(response)
"""


@pytest.mark.parametrize("coding", LIES)
def test_a_body_whose_coding_lies_is_not_taken_for_an_empty_one(
    flow_lab: FlowLab, coding: str
) -> None:
    body = LIES[coding]
    length = b"Content-Length: %d\r\nContent-Encoding: %b\r\n" % (len(body), coding.encode())
    told, sent, answered = b"X-Told: ContentNotHeldError\r\n", b"POST /a HTTP/1.1\r\n", OK[:17]
    client, server = conversation(
        (
            sent + length + b"\r\n" + body,
            sent + length + told + b"\r\n" + body,
            answered + length + b"\r\n" + body,
            answered + length + told + b"\r\n" + body,
        )
    )(False)
    assert met_all(run(flow_lab, TELLS_HELD, client, server))


def test_a_body_whose_coding_lies_is_held_in_http_2_neither(flow_lab: FlowLab) -> None:
    client, server = Peer(True), Peer(False)
    told = []

    async def ask(end: End) -> None:
        field = ("content-encoding", "gzip")
        client.connection.send_headers(1, get("a.test", field, method="POST"))
        client.connection.send_data(1, b"plain text", end_stream=True)
        await client.speak(end, lambda: bool(client.of(h2.events.StreamEnded)))

    async def answer(end: End) -> None:
        await server.speak(end, lambda: bool(server.of(h2.events.StreamEnded)), answers=False)
        told.extend(server.of(h2.events.RequestReceived)[0].headers)
        fields = [(":status", "200"), ("content-encoding", "zstd")]
        server.connection.send_headers(1, fields)
        server.connection.send_data(1, b"plain text", end_stream=True)
        await server.speak(end, lambda: False)

    run(flow_lab, TELLS_HELD, ask, answer)
    told.extend(client.of(h2.events.ResponseReceived)[0].headers)
    assert [value for name, value in told if name == "x-told"] == 2 * ["ContentNotHeldError"]
    assert (server.content(1), client.content(1)) == (b"plain text", b"plain text")
