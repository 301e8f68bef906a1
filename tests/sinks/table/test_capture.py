"""The table of `detect`: complete, in order, and in memory that does not grow with a capture."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from mitml4.address import Address
from mitml4.capture.files.comments import Side
from mitml4.events import FlowClose, FlowLayer, FlowOpen, LayerEvent
from mitml4.protocols.git import GitDetails
from mitml4.protocols.http.connect import HttpConnectDetails
from mitml4.protocols.http.events import HttpRequest
from mitml4.protocols.http.http1 import Http1Details
from mitml4.protocols.policy import Target
from mitml4.protocols.stomp import StompDetails
from mitml4.protocols.tls.protocol import TlsDetails
from mitml4.protocols.xmpp import XmppDetails
from mitml4.sinks.table.capture import CaptureTable

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TARGET = HttpConnectDetails(target=Target("192.0.2.9", 443), status=200)


def opened(flow: int) -> FlowOpen:
    return FlowOpen(
        time=NOW,
        flow=flow,
        client=Address("192.0.2.1", 40000),
        destination=Address("192.0.2.2", 443),
        interface=None,
        name=None,
    )


def closed(flow: int) -> FlowClose:
    return FlowClose(
        time=NOW,
        flow=flow,
        stack=("unknown",),
        reason="closed",
        bytes_up=1,
        bytes_down=2,
        duration_s=0.5,
    )


def numbers(text: str) -> list[str]:
    return [line.split()[0] for line in text.splitlines()]


def test_flows_stand_in_the_order_of_their_opening(capsys) -> None:
    table = CaptureTable()
    for event in (opened(1), opened(2), closed(2), closed(1)):
        table.publish(event)
    table.finish()
    assert numbers(capsys.readouterr().out) == ["#", "1", "2"]


def test_an_address_that_spells_an_emoji_stays_an_address(capsys) -> None:
    table = CaptureTable()
    table.publish(replace(opened(1), client=Address("2001:db8:a:ab::b:1", 4)))
    table.publish(closed(1))
    table.finish()
    assert "[2001:db8:a:ab::b:1]" in capsys.readouterr().out


@pytest.mark.parametrize("surplus", [0, 1])
def test_a_thousand_flows_are_printed_as_soon_as_they_have_closed(capsys, surplus: int) -> None:
    table = CaptureTable()
    for flow in range(1, 1001 + surplus):
        table.publish(opened(flow))
        table.publish(closed(flow))
    before = numbers(capsys.readouterr().out)
    assert before == ["#", *map(str, range(1, 1001))]
    table.finish()
    assert numbers(capsys.readouterr().out) == (["#", "1001"] if surplus else [])


def test_a_capture_without_flows_shows_what_would_stand_there(capsys) -> None:
    CaptureTable().finish()
    assert numbers(capsys.readouterr().out) == ["#"]


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120, 200])
def test_a_flow_takes_one_line_at_any_width(capsys, monkeypatch, width: int) -> None:
    """The stack has its room first; a long address is elided; a name stands there once."""
    monkeypatch.setenv("COLUMNS", str(width))
    table = CaptureTable("never")
    name = "a-host-with-a-rather-long-name.of.some.zone.in.a.cdn.example"
    address = Address("2001:db8:1234:5678:9abc:def0:1234:5678", 50000)
    stack = ("socks5", "tls", "http/2")
    details = TlsDetails(sni=name, version="TLSv1.3")
    layer = FlowLayer(
        time=NOW,
        flow=1,
        depth=1,
        protocol="tls",
        speaker="client",
        action="passthrough",
        details=details,
    )
    for flow in range(1, 30):
        table.publish(replace(opened(flow), client=address, destination=address))
        table.publish(replace(layer, flow=flow))
        table.publish(replace(closed(flow), stack=stack))
    table.finish()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 30
    assert max(map(len, lines)) <= width
    for line in lines[1:]:
        assert ("socks5 › tls › http/2" if width >= 60 else "http/2") in line
        assert line.count("a-hos") == 1 or width < 40
        assert "TLSv1.3" in line or width < 120


def http(host: str, *, absolute_form: bool = False) -> Http1Details:
    return Http1Details(host=host, absolute_form=absolute_form, upgrade=None)


NAMES = {
    (http("www.example"),): "www.example:1080",
    (http("www.example:81"),): "www.example:81",
    (http("[2001:db8::7]:81"),): "[2001:db8::7]:81",
    (http("2001:db8::7"),): "[2001:db8::7]:1080",
    (http("www.example", absolute_form=True),): "192.0.2.2:1080",
    (XmppDetails(host=b"chat.example"),): "chat.example:1080",
    (GitDetails(host=b"git.example:9419"),): "git.example:9419",
    (StompDetails(host=b"\xff\x1b[2J"),): r"\xff\x1b[2J:1080",
    (TARGET, TlsDetails(sni="www.example")): "www.example:443",
    (TARGET, http("www.example")): "www.example:443",
    (TARGET, TlsDetails()): "192.0.2.9:443",
}
"""The details of the layers of a flow to 192.0.2.2:1080, and its server."""


def test_a_server_has_the_innermost_name_and_the_port_that_goes_with_it(capsys) -> None:
    for layers, server in NAMES.items():
        table = CaptureTable("never")
        table.publish(replace(opened(1), destination=Address("192.0.2.2", 1080)))
        for depth, details in enumerate(layers):
            table.publish(
                FlowLayer(
                    flow=1,
                    depth=depth,
                    protocol="any",
                    speaker="client",
                    action="intercepted",
                    details=details,
                )
            )
        table.publish(closed(1))
        table.finish()
        assert capsys.readouterr().out.splitlines()[1].split()[2] == server


def test_a_duration_is_cut_nowhere(capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = {0: "0.00", 9.994: "9.99", 9.996: "10.0", 99.96: "100", 375.02: "375", 86400: "86k"}
    for seconds, text in shown.items():
        table = CaptureTable("never")
        table.publish(replace(opened(1), client=Address("2001:db8:1:2:3:4:5:6", 1)))
        table.publish(replace(closed(1), duration_s=seconds))
        table.finish()
        assert capsys.readouterr().out.split()[-1] == text


def test_the_sides_of_a_flow_have_a_column_where_they_are_known(capsys) -> None:
    cases: tuple[tuple[Side | None, ...], ...] = (("client", "server"), (None, None))
    for sides in cases:
        table = CaptureTable()
        for flow, side in enumerate(sides, 1):
            table.publish(replace(opened(flow), side=side, session_flow=7 if side else None))
            table.publish(closed(flow))
        table.finish()
    first, second = capsys.readouterr().out.split("#")[1:]
    assert "side" in first
    assert "7 client" in first
    assert "7 server" in first
    assert "side" not in second


def test_the_first_request_of_the_innermost_layer_is_told(capsys) -> None:
    table = CaptureTable()
    table.publish(opened(1))
    for depth, method, url in (
        (0, "CONNECT", "www.example:443"),
        (2, "GET", "https://a/1"),
        (2, "GET", "https://a/2"),
        (0, "CONNECT", "other.example:443"),
    ):
        content = HttpRequest(stream=1, method=method, url=url, version="HTTP/1.1")
        table.publish(LayerEvent(time=NOW, flow=1, depth=depth, content=content))
    table.publish(closed(1))
    table.finish()
    (_, line) = capsys.readouterr().out.splitlines()
    assert "GET https://a/1" in line
    assert "CONNECT" not in line
