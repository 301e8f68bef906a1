"""A line for each flow that has closed."""

from __future__ import annotations

import os
import pty

import pytest
import trio

from mitml4.address import Address
from mitml4.events import DnsRefused, FlowClose, FlowOpen
from mitml4.sinks.lines import FlowLines, line_of
from mitml4.sinks.table.model import Row

CLIENT = Address("192.0.2.2", 40000)


def opened(flow: int = 1, name: str | None = None) -> FlowOpen:
    return FlowOpen(flow=flow, client=CLIENT, destination=Address("2001:db8::2", 443), name=name)


def closed(flow: int = 1) -> FlowClose:
    return FlowClose(
        flow=flow,
        stack=("tls", "http/2"),
        reason="closed",
        bytes_up=1,
        bytes_down=2000,
        duration_s=1,
    )


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (
            Row(
                flow=1, client="c", server="www.example", port=443, stack=("tls",), info="200 GET /"
            ),
            "mitml4: www.example:443  tls  200 GET /  ↑ 0 ↓ 0",
        ),
        (
            Row(flow=1, client="c", server="2001:db8::2", port=80, up=1200, down=34_000_000),
            "mitml4: [2001:db8::2]:80  ↑ 1.2k ↓ 34M",
        ),
    ],
)
def test_a_line_leaves_out_what_is_not_known(row: Row, expected: str) -> None:
    assert line_of(row) == expected


async def write(*events) -> None:
    sink = FlowLines()
    async with trio.open_nursery() as nursery:
        await nursery.start(sink.run)
        for event in events:
            sink.publish(event)
        await sink.aclose()


async def test_a_flow_is_told_of_when_it_closes(capfd) -> None:
    await write(opened(1), opened(2, "www.example"), closed(2))
    assert capfd.readouterr().err == "mitml4: www.example:443  tls › http/2  ↑ 1 ↓ 2.0k\n"


async def test_a_name_that_was_refused_is_told_once(capfd) -> None:
    names = ("a.example", "b.example", "a.example", "A\x1b", None, None)
    await write(*(DnsRefused(client=CLIENT, name=name) for name in names))
    lines = capfd.readouterr().err.splitlines()
    assert lines[:2] == [f"mitml4: {name}  refused (--allow)" for name in names[:2]]
    assert "\x1b" not in lines[2]
    assert lines[3:] == ["mitml4: a DNS query without a host name  refused (--allow)"]


async def test_what_a_name_contains_cannot_move_the_cursor(capfd) -> None:
    await write(opened(1, "evil\x1b[2J"), closed(1))
    written = capfd.readouterr().err
    assert "evil" in written
    assert "\x1b" not in written


async def test_lines_are_dim_where_a_terminal_can_show_it(monkeypatch) -> None:
    for term, no_color, is_dim in (
        ("xterm", "", True),
        ("xterm", "1", False),
        ("dumb", "", False),
    ):
        monkeypatch.setenv("TERM", term)
        monkeypatch.setenv("NO_COLOR", no_color)
        ours, theirs = pty.openpty()
        with os.fdopen(theirs, "w") as terminal:
            monkeypatch.setattr("sys.stderr", terminal)
            await write(opened(1), closed(1))
            assert os.read(ours, 1000).startswith(b"\x1b[2m" if is_dim else b"mitml4: ")
            monkeypatch.undo()
        os.close(ours)


async def test_what_comes_faster_than_it_can_be_written_is_counted() -> None:
    sink = FlowLines()
    for flow in range(1, 1102):
        sink.publish(opened(flow))
        sink.publish(closed(flow))
    assert sink.dropped == 101


async def test_a_reader_that_is_gone_is_a_broken_pipe(monkeypatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe:
        monkeypatch.setattr("sys.stderr", pipe)
        with pytest.raises(BaseExceptionGroup) as raised:
            await write(opened(1), closed(1))
    assert raised.value.subgroup(BrokenPipeError)
