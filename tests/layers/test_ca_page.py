"""The server of the CA page, over a pair of streams in memory."""

from __future__ import annotations

import pytest
import trio

from mitml4.events import FlowLayer, LayerEvent
from mitml4.layers.bridge import Bridge
from mitml4.layers.ca_page import AnswerByPages, Page
from mitml4.layers.relay import Relay
from mitml4.layers.report import Report
from mitml4.net.memory import MemoryStream, memory_pair
from mitml4.protocols.context import LayerContext
from mitml4.protocols.http.events import HttpRequest, HttpResponse
from mitml4.protocols.policy import FlowPolicy, intercept_all

PAGES = {
    b"/": Page(content_type="text/html", body=b"<p>hello", headers=(("X-Own", "1"),)),
    b"/file": Page(content_type="application/octet-stream", body=bytes(200_000)),
}


async def talk(*pieces: bytes, end: bool = True) -> tuple[bytes, list]:
    """What a client gets that sends these pieces, and the events of its flow."""
    events: list = []
    client, client_side = memory_pair()
    unused, _ = memory_pair()
    report = Report(1, events.append)
    policy = FlowPolicy(intercept_all, ())
    bridge = Bridge.between(client_side, unused, relay=Relay(), report=report, policy=policy)
    context = LayerContext(clock=trio.current_time, policy=policy)
    got = bytearray()

    async def send() -> None:
        for piece in pieces:
            await client.send_all(memoryview(piece))
            await trio.testing.wait_all_tasks_blocked()
        if end:
            await client.send_eof()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        nursery.start_soon(receive, client, got)
        await AnswerByPages(PAGES).run(bridge, context)
        client_side.close()
    return bytes(got), events


async def receive(client: MemoryStream, got: bytearray) -> None:
    buffer = bytearray(65536)
    try:
        while True:
            await client.wait_receivable()
            count = client.receive_nowait(memoryview(buffer))
            if not count:
                return
            got += buffer[:count]
    except OSError:
        return


GET = b"GET / HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n"


async def test_a_page_is_answered_and_told_as_answered(autojump_clock) -> None:
    answer, events = await talk(GET)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert body == b"<p>hello"
    for line in (b"content-type: text/html", b"x-own: 1", b"x-content-type-options: nosniff"):
        assert line in head.lower()
    (layer,) = [event for event in events if isinstance(event, FlowLayer)]
    assert (layer.protocol, layer.action) == ("http/1", "answered")
    contents = [event.content for event in events if isinstance(event, LayerEvent)]
    assert [each.url for each in contents if isinstance(each, HttpRequest)] == ["http://192.0.2.1/"]
    assert [each.status for each in contents if isinstance(each, HttpResponse)] == [200]


async def test_requests_byte_by_byte_and_all_at_once_get_the_same_answers(autojump_clock) -> None:
    requests = GET + GET.replace(b"/ ", b"/file?x=1 ", 1) + GET.replace(b"/ ", b"/none ", 1)
    for pieces in ([requests], [bytes([each]) for each in requests]):
        answer, events = await talk(*pieces)
        statuses = [
            event.content.status
            for event in events
            if isinstance(event, LayerEvent) and isinstance(event.content, HttpResponse)
        ]
        assert statuses == [200, 200, 404]
        assert answer.count(bytes(200_000)) == 1


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        (b"GET / HTTP/1.0\r\n\r\n", 200),
        (b"GET /../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"GET //etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"DELETE / HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", 405),
        (b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n", 405),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + bytes(20_000) + b"\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 70_000 + b"\r\n\r\n", 400),
    ],
)
async def test_odd_requests(autojump_clock, request_bytes: bytes, status: int) -> None:
    answer, _ = await talk(request_bytes)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    if request_bytes.startswith(b"HEAD"):
        assert answer.endswith(b"\r\n\r\n")
        assert b"content-length: 8" in answer.lower()


@pytest.mark.parametrize(
    "data", [b"", b"\x16\x03\x01\x00\x05hello", b"\x00\x01\x02", b"GET / HT", b"PRI * HTTP/2.0\r\n"]
)
@pytest.mark.parametrize("end", [True, False])
async def test_what_is_no_request_ends(autojump_clock, data: bytes, end: bool) -> None:
    with trio.fail_after(200):
        await talk(data, end=end)


async def test_a_client_that_resets_ends_it(autojump_clock) -> None:
    for sent in (b"", GET[:7], GET, GET * 3):
        client, client_side = memory_pair()
        unused, _ = memory_pair()
        policy = FlowPolicy(intercept_all, ())
        report = Report(1, lambda _: None)
        bridge = Bridge.between(client_side, unused, relay=Relay(), report=report, policy=policy)
        context = LayerContext(clock=trio.current_time, policy=policy)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_send_and_reset, client, sent)
            with pytest.raises(ConnectionResetError):
                await AnswerByPages(PAGES).run(bridge, context)


async def _send_and_reset(client: MemoryStream, sent: bytes) -> None:
    await client.send_all(memoryview(sent))
    await trio.testing.wait_all_tasks_blocked()
    client.abort()


async def test_a_client_that_reads_nothing_is_waited_for_with_a_bound(autojump_clock) -> None:
    """Responses that nobody reads are not made."""
    client, client_side = memory_pair()
    unused, _ = memory_pair()
    policy = FlowPolicy(intercept_all, ())
    report = Report(1, lambda _: None)
    bridge = Bridge.between(client_side, unused, relay=Relay(), report=report, policy=policy)
    context = LayerContext(clock=trio.current_time, policy=policy)
    await client.send_all(memoryview(GET.replace(b"/ ", b"/file ", 1) * 100))
    with trio.fail_after(100):
        await AnswerByPages(PAGES).run(bridge, context)
