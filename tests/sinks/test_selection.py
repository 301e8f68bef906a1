"""Which events a filter lets pass, and when."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitml4.address import Address
from mitml4.engine.plaintext import PlaintextBegun, PlaintextMoved
from mitml4.events import Event, FlowClose, FlowError, FlowLayer, FlowOpen, LayerEvent, weight
from mitml4.filter.parser import parse_filter
from mitml4.model.builder import FlowBuilder
from mitml4.protocols.conversation import Direction
from mitml4.protocols.http.events import HttpEnd, HttpRequest, HttpResponse
from mitml4.protocols.http.websocket import WebSocketMessage
from mitml4.protocols.tls.protocol import TlsDetails
from mitml4.sinks.selection import Selection
from mitml4.sinks.updates import BytesMoved, Note, Published

END = Address("192.0.2.1", 443)
TIME = datetime(2026, 1, 1, tzinfo=UTC)


def test_what_moved_in_tls_waits_with_the_events_of_its_flow() -> None:
    """Where there is no room for it, its length stays."""
    begun = PlaintextBegun(flow=1, time_ns=1, protocol="http/2", port=443)
    moved = PlaintextMoved(flow=1, time_ns=2, direction=Direction.UP, data=bytes(1000))
    end = PlaintextMoved(flow=1, time_ns=3, direction=Direction.UP)
    for capacity, kept in ((1 << 20, (1000, 0)), (100, (0, 1000))):
        passed: list[Published] = []
        selection = Selection(parse_filter("state:reset"), passed.append, capacity=capacity)
        for each in (opened(), begun, moved, end):
            selection.publish(each)
        assert passed == []
        selection.publish(closed(reason="reset"))
        first, second, third, fourth, last = passed
        assert isinstance(first, FlowOpen)
        assert (second, fourth) == (begun, end)
        assert isinstance(third, PlaintextMoved)
        assert (len(third.data), third.lost) == kept
        assert isinstance(last, FlowClose)
    passed = []
    selection = Selection(parse_filter("host:other"), passed.append)
    for event in (opened(), begun, moved, end, closed()):
        selection.publish(event)
    assert passed == []


def opened(flow: int = 1) -> FlowOpen:
    return FlowOpen(time=TIME, flow=flow, client=END, destination=END)


def layer(protocol: str, depth: int = 0, flow: int = 1, sni: str | None = None) -> FlowLayer:
    return FlowLayer(
        time=TIME,
        flow=flow,
        depth=depth,
        protocol=protocol,
        speaker="client",
        action="relayed",
        details=TlsDetails(sni=sni) if sni else None,
    )


def closed(flow: int = 1, reason: Any = "closed", size: int = 0) -> FlowClose:
    return FlowClose(
        time=TIME, flow=flow, stack=(), reason=reason, bytes_up=size, bytes_down=0, duration_s=0.0
    )


def happened(content: Any, flow: int = 1, depth: int = 1) -> LayerEvent:
    return LayerEvent(time=TIME, flow=flow, depth=depth, content=content)


def request(stream: int = 1, method: str = "GET", path: str = "/", flow: int = 1) -> LayerEvent:
    url = f"https://a.example{path}"
    return happened(HttpRequest(stream=stream, method=method, url=url, version="2"), flow)


def response(stream: int = 1, status: int = 200, flow: int = 1) -> LayerEvent:
    return happened(HttpResponse(stream=stream, status=status, version="2"), flow)


def end(stream: int = 1, size: int = 0, flow: int = 1) -> LayerEvent:
    return happened(
        HttpEnd(stream=stream, request_bytes=0, response_bytes=size, duration_s=0.0), flow
    )


def message(stream: int | None = None) -> LayerEvent:
    content = WebSocketMessage(direction=Direction.UP, opcode="text", size=1, stream=stream)
    return happened(content, depth=2)


def selecting(text: str, **limits: int) -> tuple[Selection, list[Published]]:
    passed: list[Published] = []
    return Selection(parse_filter(text), passed.append, **limits), passed


OPENED, TLS, HTTP = opened(), layer("tls", sni="a.example"), layer("http/2", 1)


@pytest.mark.parametrize(
    ("text", "events", "counts"),
    [
        # How many events have passed after each.
        ("protocol:tls", [OPENED, TLS, HTTP, request(), closed()], [0, 2, 3, 4, 5]),
        ("port:443", [OPENED, TLS, request(), message(), closed()], [1, 2, 3, 4, 5]),
        ("method:GET", [OPENED, TLS, HTTP, request(), response(), end()], [0, 0, 0, 4, 5, 6]),
        ("status:200", [OPENED, TLS, request(), response(), end()], [0, 0, 0, 4, 5]),
        ("size>5", [OPENED, request(), response(), end(size=9)], [0, 0, 0, 4]),
        ("size>5", [OPENED, TLS, closed(size=9)], [0, 0, 3]),
        ("not protocol:ssh", [OPENED, TLS, closed()], [0, 0, 3]),
        ("state:reset", [OPENED, request(), end(), closed(reason="reset")], [0, 0, 0, 4]),
        ("status:404", [OPENED, request(), response(), end(), closed()], [0, 0, 0, 0, 0]),
        ("port:80", [OPENED, TLS, closed()], [0, 0, 0]),
        ("method:GET or protocol:ssh", [OPENED, layer("ssh"), closed()], [0, 2, 3]),
    ],
)
def test_events_pass_as_soon_as_their_flow_is_known_to_match(
    text: str, events: list[Event], counts: list[int]
) -> None:
    selection, passed = selecting(text)
    found = []
    for event in events:
        selection.publish(event)
        found.append(len(passed))
    assert found == counts
    assert passed == (events if counts[-1] else [])


def test_of_a_flow_that_matches_the_other_exchanges_are_left_out() -> None:
    one = [request(1), response(1), end(1)]
    other = [request(3, "POST"), response(3, 500), end(3)]
    inside = layer("websocket", 2)
    events = [OPENED, TLS, HTTP, one[0], other[0], other[1], one[1], inside, message(1),
              message(3), message(), other[2], one[2], closed()]  # fmt: skip
    for text, dropped in (
        ("status:5xx", [*one, message(1)]),
        ("method:GET", [*other, message(3)]),
        ("host:a.example", []),
        ("method:PUT", events),
    ):
        selection, passed = selecting(text)
        for event in events:
            selection.publish(event)
        assert passed == [event for event in events if event not in dropped], text


def test_updates_pass_and_those_of_a_flow_only_if_it_matches() -> None:
    selection, passed = selecting("protocol:tls")
    note = Note("hello")
    moved = BytesMoved(flow=1, up=1, down=2, at_s=1.0)
    for event in (note, OPENED, moved, TLS, moved, closed(), moved):
        selection.publish(event)
    assert passed == [note, OPENED, TLS, moved, closed()]


def test_an_event_of_no_open_flow_is_left_out() -> None:
    selection, passed = selecting("port:443")
    for event in (TLS, closed(), OPENED, closed(), TLS, request()):
        selection.publish(event)
    assert passed == [OPENED, closed()]


def test_what_is_held_is_bounded_and_what_is_missing_is_counted() -> None:
    size = weight(request()) * 2
    selection, passed = selecting("protocol:ssh", capacity=10 * size)
    events = [OPENED, TLS, *(request(stream) for stream in range(1, 100, 2))]
    for event in events:
        selection.publish(event)
    assert (passed, selection.dropped) == ([], 0)  # nobody knows yet whether anything is missing
    selection.publish(layer("ssh", 2))
    selection.publish(closed())
    # A flow has half of the room at most, and its opening and end are never missing.
    assert 4 <= len(passed) <= 9
    assert passed[:2] == [OPENED, TLS]
    assert passed[-1] == closed()
    assert len(passed) + selection.dropped == len(events) + 2
    # The room is free again.
    for event in (opened(2), request(flow=2), layer("ssh", 2, flow=2)):
        selection.publish(event)
    assert passed[-3:] == [opened(2), request(flow=2), layer("ssh", 2, flow=2)]


def test_a_flow_without_any_room_is_left_out_whole() -> None:
    selection, passed = selecting("protocol:tls", vital_capacity=10)
    for event in (OPENED, TLS, closed()):
        selection.publish(event)
    assert (passed, selection.dropped) == ([], 1)


def test_nothing_is_kept_of_flows_that_are_over_or_cannot_match() -> None:
    for text in ("status:404", "method:GET", "protocol:tls", "port:80", "not protocol:tls"):
        selection, _ = selecting(text)
        for flow in range(1, 4):
            for event in (
                opened(flow), layer("tls", flow=flow), request(1, flow=flow), request(3, flow=flow),
                response(1, flow=flow), end(1, flow=flow), closed(flow),
            ):  # fmt: skip
                selection.publish(event)
        assert not selection._flows
        assert not selection._builder.finish()
        assert (selection._shares.total, selection._vital_shares.total) == (0, 0)


def test_a_long_flow_does_not_grow() -> None:
    for text in ("method:GET", "method:POST", "status:200", "status:404"):
        selection, _ = selecting(text)
        selection.publish(OPENED)
        for number in range(1, 50):
            for event in (request(number), response(number), end(number)):
                selection.publish(event)
        (flow,) = selection._flows.values()
        assert (len(flow.exchanges), len(flow.flow.exchanges)) == (0, 0)
        assert selection._shares.total == 0
        assert not selection._builder._open[1].exchanges


GONE = FlowError(
    time=TIME, flow=1, depth=0, side="server", stage="relay", kind="reset", reason="gone"
)
CONDITIONS = st.sampled_from(
    ["protocol:tls", "protocol:ssh", "method:GET", "method:POST", "status:200", "status:5xx",
     "state:reset", "state:failed", "size>5", "a.example", "path:/b", "host:b.example", "port:443"]
)  # fmt: skip
EXPRESSIONS = st.recursive(
    CONDITIONS,
    lambda inner: st.one_of(
        inner.map(lambda one: f"not ({one})"),
        st.tuples(inner, inner).map(lambda both: f"({both[0]}) ({both[1]})"),
        st.tuples(inner, inner).map(lambda both: f"({both[0]}) or ({both[1]})"),
    ),
    max_leaves=5,
)


class Told(tuple[Event, ...]):
    """Events that hypothesis shows as their own `repr` does."""

    def __repr__(self) -> str:
        return "\n".join(map(repr, self))


@st.composite
def flows(draw: st.DrawFn) -> Told:
    """The events of one flow, with exchanges that interleave."""
    outer: list[Event] = [OPENED]
    if draw(st.booleans()):
        outer.append(layer("tls", sni=draw(st.sampled_from(["a.example", "b.example"]))))
    streams = {
        stream: [
            request(stream, draw(st.sampled_from(["GET", "POST"])), draw(st.sampled_from("ab"))),
            *([response(stream, draw(st.sampled_from([100, 200, 503])))] * draw(st.booleans())),
            *([end(stream, draw(st.sampled_from([0, 9])))] * draw(st.booleans())),
        ]
        for stream in range(1, draw(st.integers(0, 4)) * 2, 2)
    }
    order = draw(st.permutations([stream for stream in streams for _ in streams[stream]]))
    inner: list[Event] = [streams[stream].pop(0) for stream in order]
    if draw(st.booleans()):
        inner.insert(
            draw(st.integers(0, len(inner))),
            FlowError(
                time=TIME,
                flow=1,
                depth=0,
                side="server",
                stage="relay",
                kind="reset",
                reason="gone",
            ),
        )
    if draw(st.booleans()):
        inner.append(layer("ssh", 2))
    reason = draw(st.sampled_from(["closed", "reset"]))
    last = closed(reason=reason, size=draw(st.sampled_from([0, 9])))
    return Told((*outer, *inner, last))


@given(EXPRESSIONS, flows())
def test_what_passes_is_what_matches_in_the_end(text: str, events: Told) -> None:
    builder = FlowBuilder()
    (flow,) = [flow for event in events for flow in builder.add(event)]
    condition = parse_filter(text)
    selection, passed = selecting(text)
    for event in events:
        selection.publish(event)
    assert bool(passed) == condition.matches(flow)
    if passed:
        assert (passed[0], passed[-1]) == (events[0], events[-1])
        matching = {each.stream for each in flow.exchanges if condition.decide(flow, each)}
        expected = [
            event
            for event in events
            if not isinstance(event, LayerEvent) or event.content.stream in matching  # type: ignore[attr-defined]
        ]
        assert sorted(map(events.index, passed)) == sorted(map(events.index, expected))
        for stream in matching:
            of_stream = [
                e for e in passed if getattr(getattr(e, "content", 0), "stream", 0) == stream
            ]
            assert of_stream == [e for e in expected if e in of_stream]
