"""The table that is shown once."""

from __future__ import annotations

import trio

from mitml4.address import Address
from mitml4.events import FlowClose, FlowError, FlowOpen
from mitml4.sinks.table.final import FinalTable
from mitml4.sinks.table.model import MAX_ROWS


async def shown(capsys, *events) -> list[str]:
    sink = FinalTable("never")
    async with trio.open_nursery() as nursery:
        await nursery.start(sink.run)
        for event in events:
            sink.publish(event)
        assert capsys.readouterr().err == ""
        await sink.aclose()
    captured = capsys.readouterr()
    assert captured.out == ""
    return [line.rstrip() for line in captured.err.splitlines()]


def opened(flow: int, name: str | None = None, *, ip: str = "2001:db8::2") -> FlowOpen:
    client, destination = Address("192.0.2.2", 40000), Address(ip, 443)
    return FlowOpen(flow=flow, client=client, destination=destination, name=name)


def closed(flow: int, *stack: str) -> FlowClose:
    return FlowClose(
        flow=flow, stack=stack, reason="closed", bytes_up=1, bytes_down=2000, duration_s=1
    )


async def test_every_flow_has_a_row(capsys) -> None:
    error = FlowError(
        flow=2, depth=0, side="server", stage="connect", kind="refused", reason="Connection refused"
    )
    lines = await shown(
        capsys, opened(1, "www.example"), opened(2), error, closed(1, "tls", "http/2"), closed(2)
    )
    assert lines[0].split() == ["#", "server", "stack", "details", "↑", "↓"]
    assert lines[1].split("  ")[1].strip() == "www.example:443"
    assert "tls › http/2" in lines[1]
    assert "[2001:db8::2]:443" in lines[2]
    assert "Connection refused" in lines[2]


async def test_an_address_that_spells_an_emoji_stays_an_address(capsys) -> None:
    ip = "2001:db8:a:ab::b:1"
    lines = await shown(capsys, opened(1, ip=ip), closed(1))
    assert f"[{ip}]:443" in lines[1]


async def test_no_flow_is_said_as_such(capsys) -> None:
    assert await shown(capsys) == ["no connections"]


async def test_beyond_its_bound_it_says_how_many_are_missing(capsys) -> None:
    events = [event for flow in range(1, MAX_ROWS + 3) for event in (opened(flow), closed(flow))]
    assert (await shown(capsys, *events))[-1] == "… and 2 before these"
