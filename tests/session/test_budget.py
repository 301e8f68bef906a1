"""What one flow may cost. Beyond it the flow goes on, unseen, and its events say so."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import trio

from mitml4.engine import budget
from mitml4.engine.budget import Budget
from mitml4.events import FlowError, LayerEvent, weight
from mitml4.protocols.http.events import HttpRequest, HttpResponse
from mitml4.protocols.http.websocket import WebSocketMessage

TOO_MUCH = "too many messages: relayed unseen from here"
UPGRADE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"


def test_what_a_flow_may_say_fills_up_again() -> None:
    now = [0.0]
    mine = Budget(clock=lambda: now[0])
    assert mine.spend(work_s=0, events=budget.EVENTS_BURST)
    assert not mine.spend(work_s=0, events=1)
    now[0] += 1
    assert mine.spend(work_s=0, events=budget.EVENTS_PER_S - 1)
    assert not mine.spend(work_s=0, events=2)
    now[0] += 1000
    assert mine.spend(work_s=0, events=budget.EVENTS_BURST)


def test_what_a_flow_may_take_of_the_processor_fills_up_again() -> None:
    now = [0.0]
    mine = Budget(clock=lambda: now[0])
    for _ in range(100):  # a share of each second, without end
        assert mine.spend(work_s=budget.WORK_SHARE, events=0)
        now[0] += 1
    assert mine.spend(work_s=budget.WORK_BURST_S, events=0)
    assert not mine.spend(work_s=0.001, events=0)


def requests(count: int) -> Iterator[bytes]:
    for stream in range(1, 2 * count, 2):
        yield b"\0\0\3\1\5" + stream.to_bytes(4) + b"\x82\x86\x84"


@pytest.mark.parametrize(
    ("kind", "opening", "answer", "flood", "speaker"),
    [
        (WebSocketMessage, UPGRADE, SWITCH, b"\x82\x80\0\0\0\0" * 5000, "client"),
        (WebSocketMessage, UPGRADE, SWITCH, b"\x82\0" * 5000, "server"),
        (HttpRequest, HTTP2, HTTP2[24:], b"".join(requests(5000)), "client"),
        (HttpResponse, b"GET / HTTP/1.1\r\n\r\n", b"", b"HTTP/1.1 103 \r\n\r\n" * 5000, "server"),
    ],
)
async def test_a_flow_that_says_too_much_is_relayed_unseen_and_told_as_such(
    lab, monkeypatch, kind: type, opening: bytes, answer: bytes, flood: bytes, speaker: str
) -> None:
    monkeypatch.setattr(budget, "EVENTS_BURST", 100 * 512)
    monkeypatch.setattr(budget, "EVENTS_PER_S", 1)
    bye = b"said in the end"
    heard: dict[str, bytes] = {}

    async def server(stream: trio.SocketStream) -> None:
        heard["server"] = await stream.receive_some(len(opening))
        await stream.send_all(answer)
        if speaker == "server":
            await stream.send_all(flood + bye)
            await stream.send_eof()
        async for data in stream:
            heard["server"] += data

    async with lab(server) as proxy:
        client = await proxy.connect()
        await client.send_all(opening)
        if speaker == "client":
            while len(heard.setdefault("client", b"")) < len(answer):
                heard["client"] += await client.receive_some(len(answer))
            await client.send_all(flood + bye)
            await client.send_eof()
        heard["client"] = b"".join([data async for data in client])
        await client.aclose()
        closed = await proxy.wait_closed()
    assert heard[{"client": "server", "server": "client"}[speaker]].endswith(flood + bye)
    (error,) = proxy.of(FlowError)
    assert (error.stage, error.kind, error.reason) == ("relay", "protocol", TOO_MUCH)
    assert error.side == {"client": "client", "server": "server"}[speaker]
    said = [event for event in proxy.of(LayerEvent) if isinstance(event.content, kind)]
    most = max(map(weight, said))
    # What is shown at once may be beyond it; what is told before and behind it is not.
    assert 100 * 512 / most - 1 <= len(said) <= 100 * 512 / most + 64
    assert closed.reason in ("closed", "reset")


async def test_a_flow_within_its_budget_is_seen_to_its_end(lab) -> None:
    async def server(stream: trio.SocketStream) -> None:
        await stream.receive_some(len(UPGRADE))
        await stream.send_all(SWITCH)
        async for _ in stream:
            pass

    async with lab(server) as proxy:
        client = await proxy.connect()
        await client.send_all(UPGRADE)
        await client.receive_some(len(SWITCH))
        await client.send_all(b"\x82\x80\0\0\0\0" * 10_000)
        await client.aclose()
        await proxy.wait_closed()
    assert len(proxy.of(WebSocketMessage)) == 10_000
    assert not proxy.of(FlowError)
