"""Events to flows: from a session's events and from the lines of a file alike."""

from __future__ import annotations

import json
import pickle
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

import pytest

from mitml4.address import Address
from mitml4.encoding import encode
from mitml4.events import EVENTS as EVENTS_OF_SESSIONS
from mitml4.events import (
    ClientProbe,
    Event,
    FlowClose,
    FlowError,
    FlowLayer,
    FlowOpen,
    LayerEvent,
    RuleApplied,
    ScriptError,
)
from mitml4.filter.expression import Subject
from mitml4.filter.parser import parse_filter
from mitml4.model.builder import _HANDLERS, FlowBuilder
from mitml4.model.flow import (
    Body,
    Data,
    Edit,
    Exchange,
    Flow,
    Layer,
    Message,
    Probe,
    Problem,
    Request,
    Response,
)
from mitml4.protocols.conversation import Direction, Target
from mitml4.protocols.flow_data import FlowData
from mitml4.protocols.http.events import (
    GrpcMessage,
    HttpBody,
    HttpEnd,
    HttpRequest,
    HttpResponse,
)
from mitml4.protocols.http.websocket import WebSocketMessage
from mitml4.protocols.socks5 import Socks5Details
from mitml4.protocols.tls.protocol import TlsDetails

CLIENT, SERVER = Address("192.0.2.1", 50000), Address("192.0.2.2", 1080)
TIME = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)


def layer(depth: int, protocol: str, details: Any = None, action: Any = "relayed") -> FlowLayer:
    return FlowLayer(
        time=TIME,
        flow=1,
        depth=depth,
        protocol=protocol,
        speaker="client",
        action=action,
        details=details,
    )


def http(content: Any) -> LayerEvent:
    return LayerEvent(time=TIME, flow=1, depth=2, content=content)


def request(stream: int, path: str) -> HttpRequest:
    return HttpRequest(
        stream=stream,
        method="GET",
        url=f"https://www.example{path}",
        version="1.1",
        headers=(("Accept", "*/*"),),
    )


OPENED = FlowOpen(time=TIME, flow=1, client=CLIENT, destination=SERVER, interface="lan")
CLOSED = FlowClose(
    time=TIME,
    flow=1,
    stack=("socks5", "tls", "http/1"),
    reason="closed",
    bytes_up=10,
    bytes_down=20,
    duration_s=1.5,
)
EVENTS: tuple[Event, ...] = (
    OPENED,
    layer(0, "socks5", Socks5Details(target=Target("www.example", 443), username=b"\xffj")),
    layer(1, "tls", TlsDetails(sni="www.example"), "intercepted"),
    layer(2, "http/1"),
    http(request(1, "/a")),
    http(request(2, "/b")),
    http(HttpResponse(stream=1, status=103, version="1.1")),
    http(HttpResponse(stream=1, status=200, version="1.1", content_type="text/plain")),
    http(
        HttpEnd(
            stream=1,
            request_bytes=0,
            response_bytes=3,
            duration_s=0.25,
            trailers=(("Digest", "x"),),
        )
    ),
    http(WebSocketMessage(direction=Direction.UP, opcode="text", size=5)),
    FlowError(
        time=TIME, flow=1, depth=2, side="server", stage="relay", kind="reset", reason="gone"
    ),
    CLOSED,
)


def built(events: Any) -> list[Flow]:
    builder = FlowBuilder()
    flows = [flow for event in events for flow in builder.add(event)]
    return flows + builder.finish()


def lines(events: Any) -> list[dict[str, Any]]:
    return [json.loads(encode(event)) for event in events]


def test_events_and_their_lines_give_the_same_flow_which_can_be_pickled() -> None:
    (flow,) = built(EVENTS)
    assert built(lines(EVENTS)) == [flow]
    assert pickle.loads(pickle.dumps(flow)) == flow


def test_a_flow_has_what_its_events_said() -> None:
    (flow,) = built(EVENTS)
    assert (flow.number, flow.client, flow.destination) == (1, CLIENT, SERVER)
    assert (flow.interface, flow.name, flow.opened_at, flow.closed_at) == ("lan", None, TIME, TIME)
    assert flow.stack == ("socks5", "tls", "http/1")
    assert flow.server == Target("www.example", 443)
    assert flow.layers[0].details["username"] == "\\xffj"
    assert (flow.reason, flow.is_open, flow.passthrough) == ("closed", False, None)
    assert (flow.bytes_up, flow.bytes_down, flow.duration_s) == (10, 20, 1.5)
    first, second = flow.exchanges
    assert (first.request.url, first.request.headers) == (
        "https://www.example/a",
        (("Accept", "*/*"),),
    )
    assert first.response is not None
    assert (first.response.status, first.response.trailers) == (200, (("Digest", "x"),))
    assert [each.status for each in first.informational] == [103]
    assert (first.request.body_bytes, first.response.body_bytes) == (0, 3)
    assert (first.outcome, first.duration_s, first.ended) == ("complete", 0.25, True)
    assert (second.request.url, second.response, second.ended) == (
        "https://www.example/b",
        None,
        False,
    )
    assert [(each.opcode, each.size) for each in flow.messages] == [("text", 5)]
    assert [each.reason for each in flow.problems] == ["gone"]


@pytest.mark.parametrize(
    ("said", "text", "is_edited"),
    [
        ({"rule": 2, "file": "a.toml", "what": "to"}, "edited by rule 2 of a.toml: to", True),
        ({"rule": 2, "what": "to"}, "edited by rule 2: to", True),
        (
            {"rule": 2, "file": "a.toml", "what": "not replaced", "reason": "it takes too long"},
            "not edited: rule 2 of a.toml: not replaced (it takes too long)",
            False,
        ),
        ({"what": "unedited", "reason": "a body"}, "not edited: a body", False),
        (
            {"hook": "a.py: request", "what": "changed headers"},
            "edited by a.py: request: changed headers",
            True,
        ),
        (
            {"type": "script.error", "hook": "a.py: request", "what": "ended", "reason": "exit"},
            "not edited: a.py: request: ended (exit)",
            False,
        ),
    ],
)
def test_an_edit_says_whether_it_has_changed_something(
    said: dict[str, Any], text: str, is_edited: bool
) -> None:
    event = {"type": "rule.applied", "time": "2026-01-01T00:00:00Z", "flow": 1, "depth": 1} | said
    (flow,) = built([*lines(EVENTS[:1]), event])
    assert [edit.text for edit in flow.edits] == [text]
    assert flow.is_edited is is_edited
    subject = Subject(flow, is_final=True)
    assert parse_filter("state:edited").root.value(subject) is is_edited


def test_bodies_messages_and_data_are_texts_or_bytes() -> None:
    body = {"type": "http.body", "time": "2026-01-01T00:00:00Z", "flow": 1, "depth": 2, "stream": 1}
    response = {"side": "response", "size": 3, "decoded_size": 9, "encoding": ["gzip"]}
    common = {"time": "2026-01-01T00:00:00Z", "flow": 1, "depth": 2, "direction": "down"}
    said = [
        *lines(EVENTS[:-1]),
        body | {"side": "request", "size": 2, "text": "hé", "truncated": True},
        body | response | {"text": None, "base64": "/w=="},
        body | {"stream": 9, "side": "response", "size": 1, "text": "of no request"},
        common | {"type": "grpc.message", "stream": 1, "size": 1, "compressed": True,
                  "base64": "AA=="},
        common | {"type": "flow.data", "offset": 7, "text": "+OK"},
        *lines([CLOSED]),
    ]  # fmt: skip
    (flow,) = built(said)
    (exchange, _) = flow.exchanges
    assert exchange.response is not None
    asked, answered = exchange.request.body, exchange.response.body
    assert asked == Body(size=2, text="hé", truncated=True)
    assert asked.content == "hé".encode()
    assert answered == Body(size=3, decoded_size=9, encoding=("gzip",), base64="/w==")
    assert answered.content == b"\xff"
    assert (flow.messages[-1].protocol, flow.messages[-1].content) == ("grpc", b"\0")
    assert [(each.offset, each.content) for each in flow.data] == [(7, b"+OK")]
    assert flow.messages[0].content is None  # the session did not keep it


def test_no_field_of_an_event_is_missing_in_the_model() -> None:
    """A field that is added to an event has to be added here, too."""
    place = {"type", "flow", "depth", "stream", "time", "weight", "direction", "side"}
    for event, *models in (
        (FlowOpen, Flow),
        (FlowLayer, Layer),
        (FlowError, Problem),
        (RuleApplied, Edit),
        (ScriptError, Edit),
        (FlowClose, Flow),
        (ClientProbe, Probe),
        (HttpRequest, Request),
        (HttpResponse, Response),
        (HttpBody, Body),
        (HttpEnd, Exchange, Request, Response),
        (WebSocketMessage, Message),
        (GrpcMessage, Message),
        (FlowData, Data),
    ):
        known = {each.name for model in models for each in fields(model)}
        # Lengths of bodies and trailers are with the request and the response.
        known |= {
            "client",
            "process",
            "stack",
            "request_bytes",
            "response_bytes",
            "request_trailers",
        }
        assert {each.name for each in fields(event)} - place - known == set(), event
    named = {event.type for event in EVENTS_OF_SESSIONS}
    assert named - set(_HANDLERS) <= {
        "session.start",
        "session.stop",
        "flow.open",
        "dns.refused",
        "quic.refused",
    }


def test_events_of_protocols_that_have_no_other_place_are_kept() -> None:
    said = {"type": "upsd.command", "v": 1, "flow": 1, "depth": 1, "time": "2026-01-01T00:00:00Z"}
    (flow,) = built([OPENED, said | {"verb": "LIST", "stream": None}, CLOSED])
    (event,) = flow.others
    assert (event.type, event.depth, event.time.year) == ("upsd.command", 1, 2026)
    assert event.details == {"verb": "LIST", "stream": None}


def test_what_a_later_version_says_is_ignored() -> None:
    said = [each | {"added": {"a": 1}, "v": 2} for each in lines(EVENTS)]
    new = {"type": "flow.mood", "flow": 1, "time": "2026-01-01T00:00:00Z"}
    said.insert(3, new)
    said.append({"type": "rule.praised"})
    assert built(said) == built(EVENTS)


def test_the_why_of_what_was_passed_through() -> None:
    for details, why in (
        (TlsDetails(sni="a.example", passthrough="pinned"), "pinned"),
        (TlsDetails(sni="a.example"), "policy"),
    ):
        (flow,) = built([OPENED, layer(0, "tls", details, "passthrough")])
        assert flow.passthrough == why


def test_flows_are_finished_in_the_order_of_their_ends_and_open_ones_last() -> None:
    second = FlowOpen(time=TIME, flow=2, client=CLIENT, destination=SERVER)
    assert [flow.number for flow in built([OPENED, second, CLOSED])] == [1, 2]
    # Two sessions in one file, of which the first was killed; and a number that is used again.
    start = {"type": "session.start", "time": "2026-01-01T00:00:00Z"}
    twice = built([*lines([OPENED, second]), start, *lines([second, OPENED, second, CLOSED])])
    assert [(flow.number, flow.is_open) for flow in twice] == [
        (1, True), (2, True), (2, True), (1, False), (2, True),
    ]  # fmt: skip
    # The file begins in the middle of a flow.
    assert built(EVENTS[4:]) == []


@pytest.mark.parametrize("name", ["flow", "client", "destination", "time", "type"])
def test_an_object_that_lacks_a_field_is_no_event(name: str) -> None:
    (said,) = lines([OPENED])
    del said[name]
    with pytest.raises(LookupError):
        built([said])


@pytest.mark.parametrize(
    ("number", "wrong"),
    [
        (0, {"client": 7}),
        (0, {"client": {"ip": 7, "port": 1}}),
        (0, {"time": "yesterday"}),
        (0, {"flow": [1]}),
        (1, {"details": 7}),
        (1, {"protocol": None}),
        (4, {"url": 7}),
        (4, {"headers": [["a"]]}),
        (4, {"content_type": []}),
        (0, {"name": 7}),
        (0, {"process": "curl"}),
        (7, {"status": "many"}),
        (-1, {"bytes_up": None}),
    ],
)
def test_a_value_of_another_type_is_no_event(number: int, wrong: dict[str, Any]) -> None:
    said = lines(EVENTS)
    said[number] |= wrong
    with pytest.raises((TypeError, ValueError)):
        built(said)
