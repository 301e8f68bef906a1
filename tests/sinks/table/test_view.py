"""The picture: a pure function of what is known and the size of the window."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from mitml4.address import Address
from mitml4.events import (
    CertificateAuthority,
    FlowClose,
    FlowError,
    FlowLayer,
    FlowOpen,
    LayerEvent,
    Process,
    SessionStart,
)
from mitml4.protocols.conversation import Target
from mitml4.protocols.http.events import HttpRequest, HttpResponse
from mitml4.protocols.socks5 import Socks5Details
from mitml4.protocols.tls.protocol import TlsDetails
from mitml4.screen.canvas import Line
from mitml4.screen.columns import fit, fit_end, fit_middle, share_out, short_size
from mitml4.screen.keys import KEYS
from mitml4.sinks.table.model import Row, TableModel
from mitml4.sinks.table.view import Mode, body_height, help_page_count, render
from mitml4.sinks.updates import BytesMoved

SNAPSHOTS = Path(__file__).parent / "snapshots"


def make_model() -> TableModel:
    """One flow of each kind."""
    model = TableModel()
    model.notes = ("redirect instead of TPROXY: an input policy drops it",)
    model.quic_blocked = 12
    client = Address("192.0.2.55", 50000)
    ends: dict[str, Any] = {"client": client, "destination": Address("198.51.100.7", 443)}
    inner = Socks5Details(target=Target("www.example", 443))
    exchange = (
        HttpRequest(stream=1, method="GET", url="https://www.example/a", version="2"),
        HttpResponse(stream=1, status=200, version="2"),
    )
    events = [
        SessionStart(
            version="0.1.0",
            mode="intercept",
            interfaces=("eth0", "wg0"),
            listeners=(),
            ca=CertificateAuthority("CN=mitml4 CA of laptop (2026-01-02)", "ab" * 32),
            table="mitml4_1",
            pid=1,
        ),
        FlowOpen(flow=1, client=client, destination=Address("2001:db8::1234", 1080)),
        _layer(1, 0, "socks5", details=inner),
        _layer(1, 1, "tls", "intercepted", TlsDetails(sni="www.example")),
        _layer(1, 2, "http/2"),
        *(LayerEvent(flow=1, depth=2, content=content) for content in exchange),
        FlowOpen(flow=2, **ends),
        _layer(2, 0, "tls", "passthrough", TlsDetails(sni="pinned.example", passthrough="pinned")),
        FlowOpen(flow=3, **ends),
        _layer(3, 0, "tls", "intercepted", TlsDetails(sni="例え.テスト.example")),
        FlowError(
            flow=3,
            depth=0,
            side="client",
            stage="handshake",
            kind="certificate",
            reason="unknown_ca",
        ),
        _close(3, ("tls",), "error"),
        FlowOpen(flow=4, client=client, destination=Address("2001:db8::25", 25)),
        _close(4, ("smtp",), "closed"),
        FlowOpen(flow=5, name="a-host-of-a-long-name.in.some.zone.of.some.cdn.example", **ends),
        _close(5, (), "blocked"),
        FlowOpen(flow=6, name="evil\x1b[2J\u202e[red].example", **ends),
        _layer(6, 0, "unknown"),
    ]
    for event in events:
        model.add(event)
    (row,) = model.rows(1, skip=5)
    model.add(BytesMoved(flow=row.flow, up=1000, down=0, at_s=1.0))
    model.add(BytesMoved(flow=row.flow, up=1234, down=34_567_890, at_s=2.0))
    return model


def _layer(flow: int, depth: int, protocol: str, action="relayed", details=None) -> FlowLayer:
    return FlowLayer(
        flow=flow, depth=depth, protocol=protocol, speaker="client", action=action, details=details
    )


def _close(flow: int, stack: tuple[str, ...], reason) -> FlowClose:
    return FlowClose(
        flow=flow, stack=stack, reason=reason, bytes_up=517, bytes_down=4096, duration_s=0.1
    )


def text_of(lines: list[Line]) -> str:
    return "".join("".join(cell.text for cell in line).rstrip() + "\n" for line in lines)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (40, 10)])
def test_the_picture_is_the_one_that_was_approved(width: int, height: int) -> None:
    """To approve another: UPDATE_SNAPSHOTS=1 pytest …, and look at the difference."""
    model = make_model()
    picture = text_of(render(model, model.rows(body_height(height)), width, height))
    approved = SNAPSHOTS / f"table_{width}x{height}.txt"
    if os.environ.get("UPDATE_SNAPSHOTS"):
        approved.write_text(picture)
    assert picture == approved.read_text()


def test_before_the_session_has_started_and_before_the_first_flow() -> None:
    model = TableModel()
    assert text_of(render(model, [], 80, 24)).startswith("mitml4 is starting\n")
    model.add(
        SessionStart(
            version="0",
            mode="intercept",
            interfaces=("lo",),
            listeners=(),
            ca=None,
            table=None,
            pid=1,
        )
    )
    picture = text_of(render(model, [], 80, 24))
    assert picture.startswith("mitml4 intercepts lo\n")
    assert "waiting for connections" in picture


def test_the_footer_counts_in_grammar() -> None:
    model = TableModel()
    for flow, counted in ((1, "1 open of 1 flow "), (2, "2 open of 2 flows ")):
        address = Address("192.0.2.1", 1)
        model.add(FlowOpen(flow=flow, client=address, destination=address))
        assert counted in text_of(render(model, [], 80, 24))


def test_the_footer_tells_what_the_keys_do_now() -> None:
    model = make_model()
    assert "q quit" in text_of(render(model, [], 80, 24))
    assert "Space go on" in text_of(render(model, [], 80, 24, Mode(paused=True)))
    assert "Ctrl-C quit" in text_of(render(model, [], 80, 24, Mode(keyboard=False)))
    model.stopping = True
    assert "q at once" in text_of(render(model, [], 80, 24))
    assert "Ctrl-C at once" in text_of(render(model, [], 80, 24, Mode(keyboard=False)))


@given(st.integers(1, 300), st.integers(1, 60), st.booleans(), st.booleans())
def test_every_window_is_filled_exactly(
    width: int, height: int, paused: bool, shows_keys: bool
) -> None:
    model = make_model()
    rows = model.rows(body_height(height))
    lines = render(
        model, rows, width, height, Mode(paused=paused, help_page=0 if shows_keys else None)
    )
    assert len(lines) == height
    for line in lines:
        assert sum(cell_len(cell.text) for cell in line) == width


def test_processes_are_a_column_where_they_differ() -> None:
    model = TableModel()
    ends: dict[str, Any] = {
        "client": Address("192.0.2.55", 1),
        "destination": Address("198.51.100.7", 443),
    }

    def shown_with(number: int, name: str) -> list[str]:
        process = Process(pid=number, uid=0, name=name, command=(), cgroup=None)
        model.add(FlowOpen(flow=number, process=process, **ends))
        return text_of(render(model, model.rows(5), 120, 12)).split()

    assert "process" not in shown_with(1, "curl")
    assert "process" not in shown_with(2, "curl")
    shown = shown_with(3, "wget")
    assert shown.count("process") == shown.count("wget") == 1
    assert shown.count("curl") == 2


def test_a_window_shows_as_many_flows_as_there_is_room_for() -> None:
    model = TableModel()
    for flow in range(1, 100):
        model.add(
            FlowOpen(flow=flow, client=Address("192.0.2.1", 1), destination=Address("192.0.2.2", 1))
        )
    for height in range(1, 60):
        picture = text_of(render(model, model.rows(body_height(height)), 80, height))
        assert picture.count("●") == body_height(height)


def test_a_flow_has_the_colour_of_its_state() -> None:
    model = make_model()
    lines = render(model, model.rows(6), 120, 24)
    styles = [line[0].style for line in lines[3:9]]
    assert styles == ["open", "passed", "failed", "closed", "blocked", "open"]


SCRIPTS = st.text(st.characters(codec="utf-8", exclude_categories=["C", "M", "Z"]), max_size=30)


@given(SCRIPTS, st.integers(0, 40))
def test_text_fits_exactly_whatever_its_script(text: str, width: int) -> None:
    for fitted in (fit(text, width), fit_end(text, width), fit_middle(text, width)):
        assert cell_len(fitted) == width
        if cell_len(text) > width > 0:
            assert "…" in fitted
        else:
            assert fitted.rstrip() == (text.rstrip() if width else "")


def test_what_is_cut_off_is_the_end_or_the_beginning() -> None:
    assert fit("abcdef", 4) == "abc…"
    assert fit_end("abcdef", 4) == "…def"
    assert fit("例え", 4) == "例え"
    assert fit("例え例", 4) == "例 …"
    assert fit_end("例え例", 4) == "…例 "
    assert fit_middle("[2001:db8::1]:443", 11) == "[2001…]:443"


def test_columns_share_a_width_by_their_rank() -> None:
    wanted, least, rank = [2, 30, 40, 9, 5], [8, 18, 20, 12, 4], [2, 1, 0, 4, 3]
    assert share_out(wanted, least, rank, 200) == wanted
    for width in range(1, 200):
        widths = share_out(wanted, least, rank, width)
        shown = [cells for cells in widths if cells]
        assert sum(shown) + 2 * (len(shown) - 1) <= width
        assert widths[2], "the first in rank is always there"


def test_a_deep_stack_shows_its_inner_layers() -> None:
    model = TableModel()
    model.add(FlowOpen(flow=1, client=Address("192.0.2.1", 1), destination=Address("192.0.2.2", 1)))
    (row,) = model.rows(1)
    row.stack = ("socks5", "http-connect", "tls", "http/2")
    model.widest_stack = 40
    assert "… › tls › http/2 " in text_of(render(model, [row], 72, 24))
    assert "socks5 › http-connect › tls › http/2" in text_of(render(model, [row], 200, 24))


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.0k"),
        (9949, "9.9k"),
        (9950, "10k"),
        (999_499, "999k"),
        (999_500, "1.0M"),
        (34_567_890, "35M"),
        (1 << 60, "lots"),
    ],
)
def test_sizes_are_short(count: int, text: str) -> None:
    assert short_size(count) == text


@given(st.integers(0, 1 << 70))
def test_sizes_never_take_more_than_four_characters(count: int) -> None:
    assert len(short_size(count)) <= 4


def test_the_selected_flow_is_marked_whatever_its_number() -> None:
    for number, start in ((1, "●›   1"), (9999, "●›9999"), (10_000, "›10000"), (123_456, "›1234")):
        row = Row(flow=number, client="192.0.2.1", server="a.example", port=443)
        shown = text_of(render(TableModel(), [row], 80, 24, Mode(selected=number)))
        (line,) = [each for each in shown.splitlines() if "a.example" in each]
        assert line.startswith(start)


def test_an_ipv6_address_stands_in_brackets() -> None:
    row = Row(flow=1, client="192.0.2.1", server="2001:db8::1", port=443)
    assert "[2001:db8::1]:443" in text_of(render(TableModel(), [row], 80, 24))


def test_all_keys_are_told_at_any_size() -> None:
    for width in (20, 40, 60, 80, 200):
        for height in (3, 10, 24):
            pages = [
                text_of(render(make_model(), [], width, height, Mode(help_page=page)))
                for page in range(help_page_count(width, height))
            ]
            assert all("any key" in page for page in pages)
            above = height - 1 - body_height(height)
            told = " ".join(" ".join(page.splitlines()[above:-1]) for page in pages).split()
            assert told == [word for keys, what in KEYS for word in (*keys.split(), *what.split())]


def test_the_key_that_shows_the_keys_is_named_at_any_width() -> None:
    for width in (20, 40, 56, 80):
        for flows in (1, 999, 123_456):
            for mode in (Mode(), Mode(paused=True), Mode(failures=True)):
                model = make_model()
                model.flows = model.open = flows
                assert "? keys" in text_of(render(model, [], width, 24, mode)).splitlines()[-1]


def test_only_failures_are_shown_on_demand() -> None:
    model = make_model()
    rows = model.rows(20, failures=True)
    assert [row.flow for row in rows] == [3, 5]
    mode = Mode(failures=True)
    assert "! all" in text_of(render(model, rows, 120, 24, mode))
    assert "no flow has failed" in text_of(render(TableModel(), [], 80, 24, mode))


def test_what_was_chosen_is_shown_before_the_totals() -> None:
    """A table that is paused, or shows a part of the flows, never looks like one of all flows."""
    model = TableModel(flows=12345, open=999, failed=77, bytes_up=10**9, bytes_down=10**9)
    for mode, shown in (
        (Mode(paused=True), "paused"),
        (Mode(failures=True), "only failed"),
        (Mode(sort="server"), "by server"),
        (Mode(filter="host:a.example"), "/host:a.example"),
        (Mode(filter="a", unexamined=9), "/a (9 to compare)"),
        (Mode(paused=True, sort="bytes", filter="x"), "paused   /x   by bytes"),
    ):
        for width in (40, 60, 80, 120, 200):
            last = render(model, [], width, 24, mode)[-1]
            assert "".join(cell.text for cell in last).startswith(shown), (mode, width)


def test_the_ca_and_its_code_are_shown_where_there_is_room() -> None:
    code = [f"{line:>3}{'█' * 20}" for line in range(13)]
    for width, height, has_code in (
        (120, 40, True),
        (80, 24, True),
        (60, 40, True),
        (60, 24, True),
        (40, 10, False),
        (20, 3, False),
    ):
        lines = render(make_model(), [], width, height, Mode(qr=code))
        shown = [cell.text for line in lines for cell in line if cell.style == "qr"]
        assert [each for each in shown if each] == (code if has_code else []), (width, height)
        text = " ".join("".join(cell.text for cell in line if cell.style != "qr") for line in lines)
        if height >= 24:
            assert "http://192.0.2.1/" in text
            assert "any key" in text
        assert all(sum(cell_len(cell.text) for cell in line) == width for line in lines)
