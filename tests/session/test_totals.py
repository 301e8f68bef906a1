"""What a session counts, and says when it is over."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mitml4.address import Address
from mitml4.events import Event, FlowClose, FlowError, FlowLayer, FlowOpen
from mitml4.protocols.tls.protocol import TlsDetails
from mitml4.session.reporting.summary import summary
from mitml4.session.reporting.totals import Totals
from mitml4.sinks.updates import ConnectionRefused, Published, QuicBlocked


def opened(flow: int) -> FlowOpen:
    end = Address("192.0.2.1", 443)
    return FlowOpen(flow=flow, client=end, destination=end)


def tls(flow: int, action="intercepted", reason: str | None = None) -> FlowLayer:
    details = TlsDetails(passthrough=reason)
    return FlowLayer(
        flow=flow, depth=0, protocol="tls", speaker="client", action=action, details=details
    )


def error(flow: int, stage="handshake") -> FlowError:
    return FlowError(
        flow=flow, depth=0, side="client", stage=stage, kind="certificate", reason="unknown_ca"
    )


def closed(flow: int, reason="closed", stack: tuple[str, ...] = ("tls", "http/1")) -> FlowClose:
    return FlowClose(
        flow=flow, stack=stack, reason=reason, bytes_up=1500, bytes_down=20, duration_s=0.1
    )


def said(*events: Published, **more) -> list[str]:
    totals = Totals()
    for event in events:
        totals.publish(event)
    settings: dict[str, Any] = {"took_s": 2.0, "files": [], "dropped_events": 0}
    return summary(totals, **(settings | more)).splitlines()


def test_flows_bytes_and_stacks_are_told() -> None:
    lines = said(opened(1), closed(1), opened(2), closed(2, stack=("unknown",)), opened(3))
    assert lines == [
        "3 flows in 2 s, 3.0 kB up, 40 B down",
        "  stacks    1 × tls › http/1, 1 × unknown",
        "  unknown   1 flow",
        "  rules removed",
    ]


def test_stacks_that_clients_make_up_are_counted_together_once_they_are_too_many() -> None:
    totals = Totals()
    for number in range(5000):
        totals.publish(opened(number))
        stack = tuple(bin(number)[2:].replace("0", "socks5 ").replace("1", "tls ").split())
        totals.publish(closed(number, stack=stack))
    totals.publish(closed(5000, stack=("tls",)))
    assert len(totals.stacks) == 1025
    assert sum(totals.stacks.values()) == 5001
    assert totals.stacks["…"] == 5000 - 1024
    assert totals.stacks["tls"] == 2
    assert totals.undetected == 0


@pytest.mark.parametrize(
    ("events", "line"),
    [
        ([tls(1), closed(1)], "1 opened, 0 passed through"),
        ([tls(1), error(1), closed(1, "error")], "0 opened, 1 failed, 0 passed through"),
        ([tls(1), error(1), closed(1)], "1 opened, 0 passed through"),  # the flow went on
        ([tls(1), error(1, "relay"), closed(1, "error")], "1 opened, 0 passed through"),
        (
            [tls(1, "passthrough", "pinned"), tls(2, "passthrough", "pinned"), tls(3)],
            "1 opened, 2 passed through (2 × pinned)",
        ),
    ],
)
def test_of_tls_it_is_told_what_was_opened_and_what_not(events: list[Event], line: str) -> None:
    assert f"  TLS       {line}" in said(*events)


def test_files_and_losses_are_told() -> None:
    refused = ConnectionRefused()
    assert said(QuicBlocked(1), refused, refused, files=["a.har"], dropped_events=7)[1:] == [
        "  refused   2 connections that there was no room for",
        "  blocked   1 QUIC packet",
        "  dropped   7 events that came faster than they were read",
        "  written   a.har",
        "  rules removed",
    ]


def test_blocked_flows_are_counted_apart_from_failed_ones() -> None:
    lines = said(opened(1), closed(1, "blocked"), opened(2), closed(2, "blocked"), QuicBlocked(3))
    assert "  blocked   2 flows, 3 QUIC packets" in lines
    assert not any("failed" in line for line in lines)


def test_failures_are_told_with_their_reasons_and_numbers() -> None:
    refused = [event for flow in range(1, 13) for event in (opened(flow), closed(flow, "refused"))]
    troubled = [opened(13), tls(13), error(13), closed(13)]
    lines = said(*refused, *troubled, opened(14), closed(14))
    assert "  failed    13 flows (12 × refused, 1 × client: unknown_ca)" in lines
    assert "            # 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, …" in lines
    assert not any("failed" in line for line in said(opened(1), closed(1, "shutdown")))


def test_reasons_of_failures_are_bounded() -> None:
    totals = Totals()
    for flow in range(2000):
        totals.publish(replace(error(flow), reason=f"reason {flow}"))
        totals.publish(closed(flow))
    assert len(totals.failures) == 1025
    assert totals.failures.total() == 2000


def test_a_summary_has_few_reasons_and_short_ones() -> None:
    reasons = [f"{number} {'x' * 5000}" for number in range(10) for _ in range(number + 1)]
    failed = [
        event
        for flow, reason in enumerate(reasons)
        for event in (opened(flow), replace(error(flow), reason=reason), closed(flow))
    ]
    (line,) = (line for line in said(*failed) if line.startswith("  failed"))
    assert line.startswith(f"  failed    55 flows (10 × client: 9 {'x' * 49}…, 9 × ")
    assert line.endswith("…, 21 × others)")
    assert len(line) < 330


def test_a_file_that_could_not_be_written_to_its_end_is_not_said_to_be_written() -> None:
    lines = said(
        files=["a.har", "b.pcapng"], dropped_events=7, cut_off={"a.har", "standard output"}
    )
    assert lines[1:] == [
        "  dropped   7 events that were not written",
        "  cut off   a.har",
        "  written   b.pcapng",
        "  rules removed",
    ]
