"""The archive: whole after every write, an entry for each exchange, in the form of HAR 1.2."""

from __future__ import annotations

import json
import os
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from mitml4.address import Address
from mitml4.events import (
    FlowClose,
    FlowLayer,
    FlowOpen,
    LayerEvent,
    weight,
)
from mitml4.protocols.http.events import HttpEnd, HttpRequest, HttpResponse
from mitml4.protocols.payload import redacted
from mitml4.sinks.background import Background
from mitml4.sinks.files import OutputFile
from mitml4.sinks.har import HttpArchive

START = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)
SERVER = Address("192.0.2.1", 443)
LATER = START + timedelta(milliseconds=40)
END = START + timedelta(milliseconds=100)


@asynccontextmanager
async def archive(path: Path):
    """The sink at work with a flow open in it; closed, and waited for, afterwards."""
    sink = Background(HttpArchive.to_file(path))
    async with trio.open_nursery() as nursery:
        await nursery.start(sink.run)
        sink.publish(FlowOpen(flow=1, client=Address("::1", 9), destination=SERVER))
        yield sink
        await sink.aclose()


def layer(depth: int, protocol: str) -> FlowLayer:
    return FlowLayer(flow=1, depth=depth, protocol=protocol, speaker="client", action="relayed")


def request(
    stream: int = 1,
    depth: int = 0,
    url: str = "https://a.test/",
    *,
    time: datetime = START,
    **headers: str,
):
    pairs = tuple(headers.items())
    content = HttpRequest(stream=stream, method="GET", url=url, version="HTTP/1.1", headers=pairs)
    return LayerEvent(time=time, flow=1, depth=depth, content=content)


def response(stream: int = 1, status: int = 200, *headers: tuple[str, str]) -> LayerEvent:
    content = HttpResponse(
        stream=stream,
        status=status,
        version="HTTP/1.1",
        content_type="text/html",
        headers=headers,
    )
    return LayerEvent(time=LATER, flow=1, depth=0, content=content)


def end(stream: int = 1) -> LayerEvent:
    content = HttpEnd(stream=stream, request_bytes=7, response_bytes=1234, duration_s=0.1)
    return LayerEvent(time=END, flow=1, depth=0, content=content)


def close() -> FlowClose:
    return FlowClose(
        flow=1, stack=("http/1",), reason="closed", bytes_up=1, bytes_down=1, duration_s=1.0
    )


def entries(path: Path) -> list[dict[str, Any]]:
    log = json.loads(path.read_bytes())["log"]
    assert log["version"] == "1.2"
    assert log["creator"]["name"] == "mitml4"
    return log["entries"]


def is_written(path: Path, count: int) -> bool:
    """So many entries, and not just half of the last one."""
    data = path.read_bytes()
    return data.count(b"startedDateTime") == count and data.endswith(b"}\n")


async def test_an_exchange_is_an_entry(tmp_path) -> None:
    path = tmp_path / "har"
    async with archive(path) as sink:
        sink.publish(layer(0, "http/1"))
        late = LATER  # a request may be told with its answer
        url = "https://a.test/x?q=1&empty="
        sink.publish(request(url=url, time=late, Cookie="a=1; b=2"))
        sink.publish(response(1, 100))
        sink.publish(response(1, 302, ("Location", "/y"), ("Set-Cookie", "s=t; Path=/; HttpOnly")))
        sink.publish(end())
    (entry,) = entries(path)
    assert entry["startedDateTime"] == "2026-11-24T10:00:00.000000Z"
    assert entry["time"] == 100
    assert entry["timings"] == {"send": 0, "wait": 40, "receive": 60}
    assert entry["request"] == {
        "method": "GET",
        "url": "https://a.test/x?q=1&empty=",
        "httpVersion": "HTTP/1.1",
        "cookies": [{"name": "a", "value": "1"}, {"name": "b", "value": "2"}],
        "headers": [{"name": "Cookie", "value": "a=1; b=2"}],
        "queryString": [{"name": "q", "value": "1"}, {"name": "empty", "value": ""}],
        "headersSize": -1,
        "bodySize": 7,
    }
    assert entry["response"] == {
        "status": 302,
        "statusText": "Found",
        "httpVersion": "HTTP/1.1",
        "cookies": [{"name": "s", "value": "t", "path": "/", "httpOnly": True, "secure": False}],
        "headers": [
            {"name": "Location", "value": "/y"},
            {"name": "Set-Cookie", "value": "s=t; Path=/; HttpOnly"},
        ],
        "content": {"size": 1234, "mimeType": "text/html"},
        "redirectURL": "/y",
        "headersSize": -1,
        "bodySize": 1234,
    }
    assert entry["cache"] == {}
    assert entry["serverIPAddress"] == "192.0.2.1"
    assert entry["connection"] == "1"
    assert entry["_client"] == {"ip": "::1", "port": 9}
    assert entry["_stack"] == ["http/1"]


async def test_a_redacted_cookie_is_none(tmp_path) -> None:
    path = tmp_path / "har"
    async with archive(path) as sink:
        sink.publish(layer(0, "http/1"))
        sink.publish(request(url="https://a.test/", Cookie=redacted(3)))
        sink.publish(response(1, 200, ("Set-Cookie", redacted(12)), ("set-cookie", "a=<redacted")))
        sink.publish(end())
    (entry,) = entries(path)
    assert entry["request"]["cookies"] == []
    assert [cookie["name"] for cookie in entry["response"]["cookies"]] == ["a"]


async def test_the_address_of_a_proxy_is_not_the_servers(tmp_path) -> None:
    path = tmp_path / "har"
    async with archive(path) as sink:
        for depth, protocol in enumerate(("socks5", "tls", "http/1")):
            sink.publish(layer(depth, protocol))
        sink.publish(request(depth=2))
        sink.publish(close())
    (entry,) = entries(path)
    assert "serverIPAddress" not in entry
    assert entry["_stack"] == ["socks5", "tls", "http/1"]


async def test_an_exchange_without_an_end_is_written_when_its_flow_ends(tmp_path) -> None:
    path = tmp_path / "har"
    async with archive(path) as sink:
        sink.publish(layer(0, "http/2"))
        sink.publish(request(1))
        sink.publish(request(3))
        sink.publish(response(3))
        sink.publish(close())
    unanswered, unfinished = entries(path)
    assert unanswered["response"]["status"] == 0
    assert unanswered["comment"] == unfinished["comment"] == "its end was not seen"
    assert unfinished["response"]["status"] == 200


async def test_the_file_is_whole_after_every_write(tmp_path) -> None:
    path = tmp_path / "har"
    async with archive(path) as sink:
        sink.publish(layer(0, "http/1"))
        for stream in range(1, 4):
            sink.publish(request(stream))
            sink.publish(end(stream))
            with trio.fail_after(5):
                while not is_written(path, stream):  # noqa: ASYNC110 - the file tells nobody
                    await trio.sleep(0.01)
            assert len(entries(path)) == stream


async def test_without_an_exchange_it_is_empty(tmp_path) -> None:
    path = tmp_path / "har"
    async with archive(path):
        pass
    assert entries(path) == []


async def test_a_pipe_gets_it_once_over() -> None:
    read_end, write_end = os.pipe()
    sink = Background(HttpArchive(OutputFile(write_end, "a pipe")))
    async with trio.lowlevel.FdStream(read_end) as reader:
        async with trio.open_nursery() as nursery:
            await nursery.start(sink.run)
            sink.publish(FlowOpen(flow=1, client=Address("::1", 9), destination=SERVER))
            sink.publish(layer(0, "http/1"))
            for stream in (1, 2):
                sink.publish(request(stream))
                sink.publish(end(stream))
                await wait_all_tasks_blocked()
            await sink.aclose()
        archived = b"".join([part async for part in reader])
    assert len(json.loads(archived)["log"]["entries"]) == 2


@pytest.mark.parametrize(
    ("url", "headers"),
    [
        ("https://[broken/?a=1", {"Cookie": ";;="}),
        ("https://a.test/\ud800", {"Cookie": "\udcff"}),
        ("", {"": ""}),
    ],
)
async def test_odd_values_do_no_harm(tmp_path, url: str, headers: dict[str, str]) -> None:
    path = tmp_path / "har"
    async with archive(path) as sink:
        sink.publish(layer(0, "http/1"))
        sink.publish(request(url=url, **headers))
        sink.publish(response(1, 999, ("Set-Cookie", ""), ("Set-Cookie", ";")))
        sink.publish(end())
    (entry,) = entries(path)
    assert entry["response"]["statusText"] == ""


async def test_more_unfinished_exchanges_than_it_follows_are_counted(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("mitml4.sinks.har._MAX_UNFINISHED", 4 * weight(request()))
    path = tmp_path / "har"
    async with archive(path) as sink:
        sink.publish(layer(0, "http/2"))
        for stream in (1, 3, 5):
            sink.publish(request(stream))
        sink.publish(end(1))
        sink.publish(request(7))
        sink.publish(close())
    assert sink.dropped == 1
    assert [entry["_stream"] for entry in entries(path)] == [1, 3, 7]


async def test_what_a_terminal_would_obey_is_escaped_as_in_the_events(tmp_path) -> None:
    obeyed = "\x9b31m\x85\u061c\u200e\u200f\u2028\u2029\u202a\u202e\u2066\u2069"
    path = tmp_path / "har"
    async with archive(path) as sink:
        sink.publish(layer(0, "http/1"))
        sink.publish(request(url=f"https://a.test/{obeyed}ä", Cookie=f"a={obeyed}"))
        sink.publish(response(1, 200, (f"X-{obeyed}", obeyed)))
        sink.publish(end())
    text = path.read_text()
    assert not set(obeyed) - set("31m") & set(text)
    assert "ä" in text
    (entry,) = entries(path)
    assert entry["request"]["url"] == f"https://a.test/{obeyed}ä"
    assert entry["response"]["headers"] == [{"name": f"X-{obeyed}", "value": obeyed}]
