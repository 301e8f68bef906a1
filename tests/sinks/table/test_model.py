"""What the table knows after each event."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitml4.address import Address
from mitml4.events import (
    FlowClose,
    FlowError,
    FlowLayer,
    FlowOpen,
    LayerEvent,
    QuicRefused,
    RuleApplied,
)
from mitml4.printable import printable
from mitml4.protocols.conversation import Direction, Target
from mitml4.protocols.http.events import HttpRequest, HttpResponse
from mitml4.protocols.http.http1 import Http1Details
from mitml4.protocols.http.websocket import WebSocketMessage
from mitml4.protocols.protocol_event import ProtocolEvent
from mitml4.protocols.socks5 import Socks5Details
from mitml4.protocols.tls.protocol import TlsDetails
from mitml4.protocols.xmpp import XmppDetails
from mitml4.sinks.table.model import MAX_ROWS, Row, TableModel
from mitml4.sinks.updates import BytesMoved, Note, OutputFailed, QuicBlocked, Stopping


def opened(flow: int = 1, **fields) -> FlowOpen:
    ends = {"client": Address("192.0.2.1", 5000), "destination": Address("198.51.100.7", 443)}
    return FlowOpen(flow=flow, **(ends | fields))


def layer(depth: int, protocol: str, action="relayed", details=None, flow: int = 1) -> FlowLayer:
    return FlowLayer(
        flow=flow, depth=depth, protocol=protocol, speaker="client", action=action, details=details
    )


def told(content: ProtocolEvent) -> LayerEvent:
    return LayerEvent(flow=1, depth=1, content=content)


def request(stream: int, url: str) -> LayerEvent:
    return told(HttpRequest(stream=stream, method="GET", url=url, version="2"))


def response(stream: int, status: int) -> LayerEvent:
    return told(HttpResponse(stream=stream, status=status, version="2"))


def failure(reason: str, side="server") -> FlowError:
    return FlowError(flow=1, depth=0, side=side, stage="connect", kind="refused", reason=reason)


def closed(reason="closed", flow: int = 1, up: int = 10, down: int = 20) -> FlowClose:
    return FlowClose(
        flow=flow, stack=("tls",), reason=reason, bytes_up=up, bytes_down=down, duration_s=1.0
    )


def after(*events) -> Row:
    model = TableModel()
    for event in events:
        model.add(event)
    return model.rows(1)[0]


def test_a_flow_goes_by_its_address_then_its_name_then_what_is_asked_for_inside() -> None:
    socks = layer(0, "socks5", details=Socks5Details(target=Target("inner.example", 8443)))
    tls = layer(1, "tls", details=TlsDetails(sni="front.example"))
    seen = [opened(), opened(name="dns.example"), socks, tls]
    for count, server in (
        (1, ("198.51.100.7", 443)),
        (2, ("dns.example", 443)),
        (3, ("inner.example", 8443)),
        (4, ("front.example", 8443)),
    ):
        row = after(*seen[:count])
        assert (row.server, row.port) == server


@pytest.mark.parametrize(
    ("url", "server", "info"),
    [
        ("http://www.example/x?y", "www.example", "GET /x?y"),
        ("http://www.example:8080/", "www.example", "GET /"),
        ("http://www.example?q=/a", "www.example", "GET /?q=/a"),
        ("http://[2001:db8::1]:81/", "2001:db8::1", "GET /"),
        ("http://", "198.51.100.7", "GET /"),
        ("*", "198.51.100.7", "GET *"),
        ("http://a\x1b[2J.example/", "a\\x1b[2J.example", "GET /"),
    ],
)
def test_a_server_goes_by_the_host_that_is_asked_for(url: str, server: str, info: str) -> None:
    row = after(opened(name="dns.example" if server == "www.example" else None), request(1, url))
    assert (row.server, row.port, row.info) == (server, 443, info)


def test_a_host_is_known_before_any_request_is_told() -> None:
    plain = layer(0, "http/1", details=Http1Details(host="a", absolute_form=False, upgrade=None))
    row = after(opened(), plain, closed("blocked"))
    assert (row.server, row.info) == ("a", "blocked")
    row = after(opened(), layer(0, "xmpp", details=XmppDetails(host=b"chat\x1b[2J")))
    assert row.server == r"chat\x1b[2J"


def test_an_inner_name_is_not_changed_by_a_request() -> None:
    tls = layer(0, "tls", details=TlsDetails(sni="front.example"))
    assert after(opened(), tls, request(1, "https://behind.example/")).server == "front.example"


def test_a_proxy_keeps_its_own_name_and_its_requests_are_told_whole() -> None:
    proxied = layer(0, "http/1", details=Http1Details(host="a", absolute_form=True, upgrade=None))
    row = after(opened(), proxied, request(1, "http://a.example/x"))
    assert (row.server, row.info) == ("198.51.100.7", "GET http://a.example/x")


def test_layers_stack_up_whatever_order_they_are_announced_in() -> None:
    assert after(opened(), layer(0, "socks5"), layer(1, "tls")).stack == ("socks5", "tls")
    late = after(opened(), layer(0, "socks5"), layer(2, "http/2"), layer(1, "tls"))
    assert late.stack == ("socks5", "tls", "http/2")


def test_a_flow_that_is_passed_through_says_why() -> None:
    row = after(opened(), layer(0, "tls", "passthrough", TlsDetails(passthrough="pinned")))
    assert row.passed_through
    assert row.info == "pinned, passed through"


def test_a_response_is_told_with_its_own_request_only() -> None:
    asked = (opened(), request(1, "https://a.example/x?y"), request(3, "https://a.example"))
    assert after(*asked[:2]).info == "GET /x?y"
    assert after(*asked).info == "GET /"
    assert after(*asked, response(1, 404)).info == "GET /"
    assert after(*asked, response(3, 200)).info == "200 GET /"


def test_a_websocket_message_is_told() -> None:
    message = WebSocketMessage(direction=Direction.UP, opcode="text", size=5)
    assert after(opened(), told(message)).info == "text, 5 B up"


def test_the_state_and_what_is_said_of_it() -> None:
    for events, state, info in (
        ([], "open", ""),
        ([closed()], "closed", ""),
        ([request(1, "/"), closed()], "closed", "GET /"),
        ([closed("shutdown")], "closed", ""),
        ([closed("reset")], "failed", "reset"),
        ([closed("timeout")], "failed", "timeout"),
        ([request(1, "/"), closed("reset")], "failed", "reset, GET /"),
        ([failure("no answer"), closed("timeout")], "failed", "server: no answer"),
        ([failure("unknown_ca", "client"), closed("error")], "failed", "client: unknown_ca"),
        ([request(1, "/"), closed("blocked")], "blocked", "blocked"),
    ):
        row = after(opened(), *events)
        assert (row.state, row.info) == (state, info)


def test_a_flow_that_was_edited_is_marked_with_and_without_more_to_say() -> None:
    for what, alone, with_request in (
        ("reset", "edited", "edited: GET /"),
        ("unedited", "", "GET /"),
        ("not replaced", "", "GET /"),
    ):
        assert after(opened(), applied(what)).text == alone
        assert after(opened(), applied(what), request(1, "/")).text == with_request


def applied(what: str) -> RuleApplied:
    return RuleApplied(
        flow=1, depth=0, stream=None, rule=1, file="a.toml", match=None, what=what, reason=None,
        hook=None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("198.51.100.7:443 is not in --allow", "denied"),
        ("b.test:443 is not in --allow", "denied: b.test:443 is not in --allow"),
        ("TLS that is not opened (pinned)", "denied: TLS that is not opened (pinned)"),
    ],
)
def test_why_a_flow_was_denied_is_told_unless_its_server_says_it(reason: str, said: str) -> None:
    refused = FlowError(
        flow=1, depth=0, side="client", stage="relay", kind="refused", reason=reason
    )
    row = after(opened(), refused, request(1, "/"), closed("denied"))
    assert (row.state, row.info) == ("blocked", said)


def test_the_bytes_of_an_open_flow_are_measured_and_their_rate() -> None:
    model = TableModel()
    model.add(opened())
    (row,) = model.rows(1)
    model.add(BytesMoved(flow=1, up=100, down=0, at_s=10.0))
    assert (row.up, row.down, row.rate) == (100, 0, None)
    model.add(BytesMoved(flow=1, up=100, down=50, at_s=10.5))
    assert (row.up, row.down, row.rate) == (100, 50, 100.0)
    model.add(closed(up=120, down=60))
    assert (row.up, row.down, row.rate) == (120, 60, None)


def test_what_the_session_says_of_itself_is_known() -> None:
    model = TableModel()
    for update in (Note("one"), OutputFailed("two"), QuicBlocked(3), QuicBlocked(4), Stopping()):
        model.add(update)
    assert (model.notes, model.quic_blocked, model.stopping) == (("one", "two"), 4, True)


def test_only_the_latest_flows_are_kept_and_closed_ones_go_first() -> None:
    model = TableModel()
    for flow in range(1, MAX_ROWS + 1):
        model.add(opened(flow))
    model.add(closed(flow=3))
    model.add(closed(flow=2))
    for flow in (MAX_ROWS + 1, MAX_ROWS + 2, MAX_ROWS + 3):
        model.add(opened(flow))
    kept = [row.flow for row in model.rows(MAX_ROWS)]
    assert kept == [*range(4, MAX_ROWS + 4)]
    assert model.flows == MAX_ROWS + 3
    assert model.open == MAX_ROWS + 1


def test_totals_are_exact_once_all_is_closed_whatever_was_forgotten() -> None:
    model = TableModel()
    flows = range(1, MAX_ROWS + 50)
    for flow in flows:
        model.add(opened(flow))
        model.add(BytesMoved(flow=flow, up=5, down=7, at_s=0.0))
    for flow in flows:
        model.add(closed(flow=flow))
    assert (model.bytes_up, model.bytes_down) == (10 * len(flows), 20 * len(flows))
    assert (model.open, len(model)) == (0, MAX_ROWS)


def test_rows_are_asked_for_from_the_newest_back() -> None:
    model = TableModel()
    for flow in range(1, 6):
        model.add(opened(flow))
    assert [row.flow for row in model.rows(2)] == [4, 5]
    assert [row.flow for row in model.rows(2, skip=1)] == [3, 4]
    assert [row.flow for row in model.rows(9)] == [1, 2, 3, 4, 5]
    assert model.rows(0) == []


def test_a_copy_does_not_change() -> None:
    model = TableModel()
    model.add(opened())
    picture = model.copy()
    model.add(closed("reset"))
    model.add(opened(2))
    assert [row.state for row in picture.rows(9)] == ["open"]
    assert picture.flows == 1


@given(st.text(st.characters(codec=None), max_size=400))
def test_nothing_from_the_network_is_kept_that_a_terminal_would_obey(text: str) -> None:
    row = after(
        opened(name=text),
        layer(0, "socks5", details=Socks5Details(target=Target(text, 1))),
        layer(1, "tls", "passthrough", TlsDetails(sni=text, passthrough=text)),
    )
    asked = after(opened(), request(1, text), response(1, 200))
    failed = after(opened(), failure(text))
    for shown in (row.server, row.info, asked.info, failed.info):
        assert printable(shown) == shown
        assert len(shown) < 4000


def test_a_flow_that_had_an_error_counts_as_failed_once_however_it_closes() -> None:
    model = TableModel()
    for flow, reason in ((1, "closed"), (2, "error"), (3, "refused"), (4, "closed")):
        model.add(opened(flow=flow))
        if flow < 3:
            model.add(replace(failure("no"), flow=flow))
            model.add(replace(failure("again"), flow=flow))
        model.add(closed(reason, flow=flow))
    assert model.failed == 3
    assert [row.flow for row in model.rows(9, failures=True)] == [1, 2, 3]


def test_flows_that_failed_are_kept_longer_than_others() -> None:
    model = TableModel()
    for flow in range(1, 3 * MAX_ROWS):
        model.add(opened(flow=flow))
        model.add(closed("refused" if flow == 1 else "closed", flow=flow))
    assert len(model) == MAX_ROWS
    assert [row.flow for row in model.rows(9, failures=True)] == [1]


def test_a_connection_that_comes_instead_of_quic_is_marked() -> None:
    model = TableModel()
    first = opened()
    refused = QuicRefused(
        client=Address("192.0.2.1", 40000),
        destination=first.destination,
        name=None,
        sni="example.com",
        alpn=(b"h3",),
        ja4=None,
        time=first.time,
    )
    model.add(opened(1))
    model.add(refused)
    model.add(opened(2))
    model.add(opened(3, client=Address("192.0.2.9", 5000)))
    model.add(opened(4, time=first.time + timedelta(minutes=1)))
    model.add(opened(5, destination=Address(first.destination.ip, 22)))
    texts = {row.flow: row.text for row in model.listed()}
    assert texts == {1: "", 2: "QUIC refused, by TCP", 3: "", 4: "", 5: ""}
    model.add(replace(request(1, "https://example.com/"), flow=2))
    (row,) = (row for row in model.listed() if row.flow == 2)
    assert row.text == "QUIC refused, by TCP: GET /"


@pytest.mark.parametrize(
    ("tried", "sni", "is_marked"),
    [
        ("example.com", "example.com", True),
        ("example.com", "other.example", False),
        ("example.com", None, True),
        (None, "other.example", True),
    ],
)
def test_a_connection_for_another_name_does_not_come_instead_of_quic(
    tried: str | None, sni: str | None, is_marked: bool
) -> None:
    model = TableModel()
    first = opened()
    model.add(
        QuicRefused(
            client=Address("192.0.2.1", 40000),
            destination=first.destination,
            name=None,
            sni=tried,
            alpn=None,
            ja4=None,
            time=first.time,
        )
    )
    model.add(opened(2))
    model.add(layer(0, "tls", details=TlsDetails(sni=sni), flow=2))
    (row,) = model.listed()
    assert row.fell_back is is_marked
