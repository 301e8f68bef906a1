"""One flow in the table: what is kept of it, and its lines."""

from __future__ import annotations

from base64 import b64encode
from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from mitml4.address import Address
from mitml4.events import FlowClose, FlowLayer, FlowOpen, LayerEvent
from mitml4.model.flow import Body, Data, Exchange, Flow, Layer, Message, Problem, Request, Response
from mitml4.payload.text import PayloadText
from mitml4.printable import printable
from mitml4.protocols.conversation import Direction
from mitml4.protocols.flow_data import FlowData
from mitml4.screen.detail import Detail, detail, exchange_at
from mitml4.sinks.table import history
from mitml4.sinks.table.history import History, Reader

TIME = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
CLOCK = f"{TIME.astimezone():%H:%M:%S}.000"
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


def test_messages_are_shown_with_what_was_undone_and_closes_with_their_code() -> None:
    common: dict[str, Any] = {"depth": 2, "stream": None, "direction": "up", "time": TIME}
    messages = [
        Message(protocol="grpc", size=9, base64="aGk=", encoding=("gzip",), **common),
        Message(protocol="websocket", opcode="close", size=7, base64="A+kgYnllIQ==", **common),
        Message(protocol="websocket", opcode="close", size=1, base64="Aw==", **common),
    ]
    lines = text(flow(messages=messages))
    assert f"↑ grpc, 9 bytes  {CLOCK}  [text, 2 bytes, gzip undone]" in lines
    assert f"↑ close, 7 bytes  {CLOCK}  1001  bye!" in lines
    assert f"↑ close, 1 bytes  {CLOCK}  [binary, 1 bytes]" in lines


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
        f"1  GET https://a/x  {CLOCK}",
        "200  text/html  5B  31.2 ms",
        "    [text, 3 bytes, gzip undone, cut]",
        "    <p>",
        f"↑ text, 2 bytes  {CLOCK}  [text, 2 bytes]",
        "    hi",
        f"↓ down  {CLOCK}  [text, 5 bytes]",
        "    +OK",
    ):
        assert expected in lines


def test_the_nearest_request_is_known() -> None:
    lines = detail(flow(exchanges=[exchange("https://a/1"), exchange("https://a/2", 2)]), 80)
    second = [at for at, line in enumerate(lines) if line.is_first][1]
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
    content = FlowData(direction=Direction.UP, offset=0, text=PayloadText("x" * size))
    return LayerEvent(flow=number, depth=0, content=content)


def test_a_flow_is_built_of_its_events_and_continued() -> None:
    kept = History()
    reader = Reader(kept)
    close = FlowClose(flow=1, stack=(), reason="closed", bytes_up=1, bytes_down=2, duration_s=3.0)
    for event in (opened(1), opened(2), data(1, 5)):
        kept.add(event)
    assert reader.unread(1) == 2
    first = reader.flow(1)
    assert first
    assert (first.flow.reason, first.version, reader.unread(1)) == (None, (0, 2), 0)
    kept.add(data(1, 6))
    kept.add(close)
    second = reader.flow(1)
    assert second
    assert second.flow is first.flow
    assert (second.flow.number, second.flow.reason, second.version) == (1, "closed", (0, 4))
    assert [piece.text for piece in second.flow.data] == ["x" * 5, "x" * 6]
    assert reader.flow(2) is not None
    assert reader.flow(3) is None


def test_events_are_forgotten_beyond_a_bound(monkeypatch: Any) -> None:
    monkeypatch.setattr(history, "_TOTAL_BYTES", 20_000)
    monkeypatch.setattr(history, "_FLOW_BYTES", 5_000)
    kept = History()
    for number in range(1, 10):
        kept.add(opened(number))
        for _ in range(10):
            kept.add(data(number, 1000))
    assert kept.kept(1)[1] == ()
    assert len(kept.kept(9)[1]) < 7
    assert sum(len(kept.kept(number)[1]) > 0 for number in range(1, 10)) >= 3


def test_of_a_long_flow_what_it_is_and_what_was_said_last_is_kept(monkeypatch: Any) -> None:
    monkeypatch.setattr(history, "_FLOW_BYTES", 50_000)
    kept = History()
    reader = Reader(kept)
    kept.add(opened(1))
    kept.add(FlowLayer(flow=1, depth=0, protocol="redis", speaker="client", action="relayed"))
    for offset in range(1000):
        content = FlowData(direction=Direction.UP, offset=offset, text=PayloadText("x" * 500))
        kept.add(LayerEvent(flow=1, depth=0, content=content))
        built = reader.flow(1)
        assert built
        assert built.flow.stack == ("redis",)
        offsets = [piece.offset for piece in built.flow.data]
        assert offsets == list(range(kept.missing(1), offset + 1)), offset
        assert len(offsets) < 100
    assert kept.missing(1) > 900
    kept.add(FlowClose(flow=1, stack=(), reason="reset", bytes_up=1, bytes_down=2, duration_s=3.0))
    built = reader.flow(1)
    assert built
    assert built.flow.reason == "reset"
    lines = Detail().lines(built.flow, 80, missing=kept.missing(1))
    note = f"{kept.missing(1)} earlier events are not kept here; -o writes them"
    assert note in [line.text for line in lines]


def test_long_and_odd_lines_are_wrapped_whole() -> None:
    odd = ("漢" * 3000, "a" * 9000, "a\u0301" * 3000, "\x1b[2J\u202e" * 900, "\U0001f600" * 999)
    for line in odd:
        shown_lines = detail(
            flow(exchanges=[exchange("https://a/", body=Body(text=line, size=1))]), 80
        )
        texts = [each.text for each in shown_lines]
        assert max(map(cell_len, texts)) <= 80
        start = next(at for at, each in enumerate(texts) if each.startswith("    [text"))
        assert "".join(each[4:] for each in texts[start + 1 :]) == printable(line)


def test_the_certificate_of_a_capture_stands_alone() -> None:
    certificate = {"subject": "CN=a.test", "issuer": "CN=R1"}
    layer = tls("intercepted", certificate=certificate, mirrored=[], not_mirrored=[])
    lines = text(flow(layers=[layer]))
    assert [line.split() for line in lines if "CN=" in line or "of the server" in line] == [
        ["certificate", "of", "the", "server"],
        ["subject", "CN=a.test"],
        ["issuer", "CN=R1"],
    ]


def test_all_of_a_certificate_is_shown_in_a_narrow_window() -> None:
    certificate: dict[str, Any] = {
        "subject": "CN=a.test", "san": [f"name-{at}.test" for at in range(9)],
        "sha256": "ab" * 32, "verify": "ok",
    }  # fmt: skip
    layer = tls("intercepted", certificate=certificate, mirrored=["subject", "san"])
    lines = text(flow(layers=[layer]), 80)
    start = next(at for at, line in enumerate(lines) if line.startswith("  certificate"))
    left = "".join(line[18:48].strip() for line in lines[start + 1 :])
    right = "".join(line[50:].strip() for line in lines[start + 1 :])
    for value in [*certificate["san"], certificate["sha256"]]:
        assert value in left
    assert all(value in right for value in certificate["san"])
    assert right.endswith("differs")  # the fingerprint; of a result there is nothing to say


def test_several_requests_are_listed_and_each_has_a_first_line() -> None:
    exchanges = [exchange(f"https://a/{at}", at) for at in range(1, 201)]
    lines = detail(flow(exchanges=exchanges), 80)
    texts = [line.text for line in lines]
    at = texts.index("200 requests")
    assert texts[at + 1] == "   1  200     5   31.2 ms  GET https://a/1"
    assert texts[at + 200] == " 200  200     5   31.2 ms  GET https://a/200"
    firsts = [line.exchange for line in lines if line.is_first]
    assert firsts == exchanges
    assert "1 requests" not in text(flow(exchanges=exchanges[:1]))


def test_the_directions_take_turns_as_they_did() -> None:
    def piece(direction: str, offset: int, said: str) -> Data:
        return Data(depth=0, direction=direction, offset=offset, time=TIME, text=said)

    lines = text(
        flow(data=[piece("up", 0, "PI"), piece("up", 2, "NG\r\n"), piece("down", 0, "+PONG\r\n"),
                   piece("up", 6, "QUIT\r\n")])
    )  # fmt: skip
    said = [line.strip() for line in lines if line.startswith("    ")]
    assert said == ["PING", "+PONG", "QUIT"]


def test_only_what_has_changed_is_made_again() -> None:
    """The lines are those of a new `Detail`, at each step of a flow that goes on."""
    shown_flow, kept = flow(), Detail()

    def say(offset: int) -> None:
        piece = Data(depth=0, direction="up", offset=offset, time=TIME, text="ab"[offset])
        shown_flow.data.append(piece)

    steps = [
        lambda: shown_flow.exchanges.append(exchange("https://a/1")),
        lambda: setattr(shown_flow.exchanges[0].response, "body", Body(text="<p>", size=3)),
        lambda: shown_flow.exchanges.append(exchange("https://a/2")),
        lambda: setattr(shown_flow.exchanges[1], "outcome", "reset"),
        lambda: say(0),
        lambda: say(1),
    ]
    for version, step in enumerate(steps, 1):
        step()
        assert kept.lines(shown_flow, 80, version=version) == detail(shown_flow, 80)
    assert kept.lines(shown_flow, 40, version=len(steps)) == detail(shown_flow, 40)


def test_the_bytes_of_an_open_flow_are_those_of_the_table() -> None:
    lines = Detail().lines(flow(), 80, moved=(1200, 34))
    assert any(line.text.endswith("open  ↑ 1.2k ↓ 34") for line in lines)


def test_a_text_that_is_cut_within_a_character_is_a_text() -> None:
    whole = "漢字".encode()
    for cut in (3, 4, 5, 6):
        piece = Data(depth=0, direction="up", offset=0, time=TIME, truncated=True,
                     base64=b64encode(whole[:cut]).decode())  # fmt: skip
        assert text(flow(data=[piece]))[-2:] == [
            f"↑ up  {CLOCK}  [text, {cut} bytes, cut]",
            f"    {whole[:cut].decode(errors='ignore')}",
        ]


def test_a_duration_fits_its_column() -> None:
    for seconds, shown_as in ((0.000477, "0.477 ms"), (0.9994, "999 ms"), (0.9996, "1 s"),
                              (59.94, "59.9 s"), (999.4, "999 s"), (5000, "5000 s")):  # fmt: skip
        one = exchange("https://a/")
        one.duration_s = seconds
        assert any(line.endswith(f"5B  {shown_as}") for line in text(flow(exchanges=[one])))
