"""One flow in the table: what is kept of it, and its lines."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from mitml4.address import Address
from mitml4.events import FlowClose, FlowOpen, LayerEvent
from mitml4.model.flow import Body, Data, Exchange, Flow, Layer, Message, Problem, Request, Response
from mitml4.protocols.conversation import Direction
from mitml4.protocols.flow_data import FlowData
from mitml4.sinks.table import history
from mitml4.sinks.table.detail import detail, exchange_at
from mitml4.sinks.table.history import History, flow_of

TIME = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
CLIENT, SERVER = Address("192.0.2.1", 50000), Address("192.0.2.2", 443)


def exchange(url: str, stream: int = 1, body: Body | None = None) -> Exchange:
    return Exchange(
        depth=1,
        stream=stream,
        request=Request(method="GET", url=url, version="2", time=TIME),
        response=Response(
            status=200, version="2", content_type="text/html", body=body, body_bytes=5, time=TIME
        ),
        duration_s=0.0312,
        outcome="complete",
    )


def flow(**given: Any) -> Flow:
    usual = {"number": 7, "client": CLIENT, "destination": SERVER, "opened_at": TIME}
    return Flow(**{**usual, **given})


def tls(action: str, **details: Any) -> Layer:
    return Layer(
        depth=0, protocol="tls", action=action, speaker="client", details=details, time=TIME
    )


def text(shown: Flow, width: int = 100) -> list[str]:
    return [line.text for line in detail(shown, width)]


def test_the_certificates_stand_side_by_side() -> None:
    certificate = {"subject": "CN=a.test", "issuer": "CN=R1", "san": ["a.test", "b.test"]}
    lines = text(
        flow(layers=[tls("intercepted", sni="a.test", certificate=certificate,
                         mirrored=["subject", "san"], not_mirrored=["scts"])])
    )  # fmt: skip
    table = [line.split() for line in lines[-5:]]
    assert table == [
        ["certificate", "of", "the", "server", "shown", "to", "the", "client"],
        ["subject", "CN=a.test", "CN=a.test"],
        ["issuer", "CN=R1", "mitml4"],
        ["san", "a.test,", "b.test", "a.test,", "b.test"],
        ["not", "mirrored:", "scts"],
    ]
    assert "  sni: a.test" in lines


def test_why_a_flow_was_passed_through_and_what_failed_is_said() -> None:
    problem = Problem(
        depth=0, side="client", stage="handshake", kind="alert", reason="unknown_ca", time=TIME
    )
    lines = text(flow(layers=[tls("passthrough", passthrough="pinned")], problems=[problem]))
    assert "TLS was passed through: pinned" in lines
    assert "client, handshake: unknown_ca (alert)" in lines


def test_what_was_said_is_shown_in_the_order_of_its_kinds() -> None:
    body = Body(size=23, text="<p>", encoding=("gzip",), truncated=True)
    message = Message(
        protocol="websocket", depth=2, stream=None, direction="up", opcode="text", size=2,
        time=TIME, text="hi",
    )  # fmt: skip
    data = [
        Data(depth=0, direction="down", offset=offset, time=TIME, text=piece)
        for offset, piece in ((0, "+O"), (2, "K\r\n"))
    ]
    lines = text(
        flow(exchanges=[exchange("https://a/x", body=body)], messages=[message], data=data)
    )
    for expected in (
        "1  GET https://a/x",
        "200  text/html  5B  0.0312 s",
        "    [text, 3 bytes, gzip undone, cut]",
        "    <p>",
        "    [text, 2 bytes]",
        "    hi",
        "    [text, 5 bytes]",
        "    +OK",
    ):
        assert expected in lines


def test_the_nearest_request_is_known() -> None:
    lines = detail(flow(exchanges=[exchange("https://a/1"), exchange("https://a/2", 2)]), 80)
    second = next(at for at, line in enumerate(lines) if line.text.endswith("a/2"))
    for top, url in ((0, "1"), (second - 1, "2"), (second, "2"), (len(lines) - 1, "2")):
        request = exchange_at(lines, top)
        assert request
        assert request.url == f"https://a/{url}"
    assert exchange_at(detail(flow(), 80), 0) is None


@given(st.text(max_size=300), st.integers(1, 120))
def test_no_line_is_wider_than_the_window(said: str, width: int) -> None:
    lines = detail(
        flow(name=said, exchanges=[exchange(said, body=Body(size=len(said), text=said))]), width
    )
    assert max(cell_len(line.text) for line in lines) <= max(width, 20)
    assert all(line.text.isprintable() for line in lines)


def opened(number: int) -> FlowOpen:
    return FlowOpen(flow=number, client=CLIENT, destination=SERVER)


def data(number: int, size: int) -> LayerEvent:
    content = FlowData(direction=Direction.UP, offset=0, text="x" * size)
    return LayerEvent(flow=number, depth=0, content=content)


def test_a_flow_is_built_of_its_events() -> None:
    kept = History()
    close = FlowClose(flow=1, stack=(), reason="closed", bytes_up=1, bytes_down=2, duration_s=3.0)
    for event in (opened(1), opened(2), data(1, 5), close):
        kept.add(event)
    shown = flow_of(kept.events(1))
    assert shown
    assert (shown.number, shown.reason, shown.data[0].text) == (1, "closed", "xxxxx")
    assert flow_of(kept.events(2)) is not None
    assert flow_of(kept.events(3)) is None


def test_events_are_forgotten_beyond_a_bound(monkeypatch: Any) -> None:
    monkeypatch.setattr(history, "_TOTAL_BYTES", 20_000)
    monkeypatch.setattr(history, "_FLOW_BYTES", 5_000)
    kept = History()
    for number in range(1, 10):
        kept.add(opened(number))
        for _ in range(10):
            kept.add(data(number, 1000))
    assert kept.events(1) == ()
    assert len(kept.events(9)) < 7
    assert sum(len(kept.events(number)) > 0 for number in range(1, 10)) >= 3
