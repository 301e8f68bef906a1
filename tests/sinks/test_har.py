"""The archive: whole after every write, an entry for each exchange, in the form of HAR 1.2."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from mitml4.address import Address
from mitml4.events import (
    FlowClose,
    FlowLayer,
    FlowOpen,
    LayerEvent,
    weight,
)
from mitml4.payload.text import PayloadText, base64_of
from mitml4.process import Process
from mitml4.protocols.conversation import Details, Direction
from mitml4.protocols.http.events import (
    GrpcMessage,
    HttpBody,
    HttpEnd,
    HttpRequest,
    HttpResponse,
    Pairs,
)
from mitml4.protocols.http.websocket import WebSocketMessage
from mitml4.protocols.payload import redacted
from mitml4.protocols.tls.protocol import TlsDetails
from mitml4.sinks.background import Background
from mitml4.sinks.files import OutputFile
from mitml4.sinks.har import HttpArchive

SCHEMA = jsonschema_rs.Draft202012Validator(
    json.loads(Path(__file__).with_name("har-1.2.schema.json").read_text())
)
START = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)
SERVER = Address("192.0.2.1", 443)
LATER = START + timedelta(milliseconds=40)
END = START + timedelta(milliseconds=100)
PROCESS = Process(pid=7, uid=0, name="curl", command=("curl", "-v"), cgroup=None)


@asynccontextmanager
async def archive(path: Path):
    """The sink at work with a flow open in it; closed, and waited for, afterwards."""
    sink = Background(HttpArchive.to_file(path))
    async with trio.open_nursery() as nursery:
        await nursery.start(sink.run)
        ends: dict[str, Any] = {"client": Address("::1", 9), "destination": SERVER}
        sink.publish(FlowOpen(flow=1, container="web", process=PROCESS, **ends))
        yield sink
        await sink.aclose()


def layer(
    depth: int, protocol: str, details: Details | None = None, *, connect_s: float | None = None
) -> FlowLayer:
    return FlowLayer(
        flow=1,
        depth=depth,
        protocol=protocol,
        speaker="client",
        action="relayed",
        details=details,
        connect_s=connect_s,
    )


def request(
    stream: int = 1,
    depth: int = 0,
    url: str = "https://a.test/",
    *,
    time: datetime = START,
    content_type: str | None = None,
    **headers: Any,
):
    content = HttpRequest(
        stream=stream,
        method="GET",
        url=url,
        version="HTTP/1.1",
        content_type=content_type,
        headers=tuple(headers.items()),
    )
    return LayerEvent(time=time, flow=1, depth=depth, content=content)


def response(
    stream: int = 1, status: int = 200, *headers: tuple[str, str], depth: int = 0
) -> LayerEvent:
    content = HttpResponse(
        stream=stream,
        status=status,
        version="HTTP/1.1",
        content_type="text/html",
        headers=headers,
    )
    return LayerEvent(time=LATER, flow=1, depth=depth, content=content)


def end(
    stream: int = 1,
    depth: int = 0,
    *,
    request_s: float | None = None,
    trailers: Pairs | None = None,
    **others: Any,
) -> LayerEvent:
    content = HttpEnd(
        stream=stream,
        request_bytes=7,
        response_bytes=1234,
        duration_s=0.1,
        request_s=request_s,
        trailers=trailers,
        **others,
    )
    return LayerEvent(time=END, flow=1, depth=depth, content=content)


def body(side: Any, shown: Any, stream: int = 1, **others: Any) -> LayerEvent:
    is_text = isinstance(shown, str)
    given: dict[str, Any] = {
        "size": len(shown),
        "decoded_size": len(shown),
        "encoding": (),
        "coding_error": None,
        "charset": "utf-8" if is_text else None,
        "text": PayloadText(shown) if is_text else None,
        "base64": None if is_text else base64_of(shown),
        "truncated": False,
    }
    content = HttpBody(stream=stream, side=side, **given | others)
    return LayerEvent(time=LATER, flow=1, depth=0, content=content)


def close() -> FlowClose:
    return FlowClose(
        flow=1, stack=("http/1",), reason="closed", bytes_up=1, bytes_down=1, duration_s=1.0
    )


def entries(path: Path) -> list[dict[str, Any]]:
    archive = json.loads(path.read_bytes())
    SCHEMA.validate(archive)
    log = archive["log"]
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
    unknown = dict.fromkeys(("blocked", "dns", "connect", "ssl"), -1)
    assert entry["timings"] == unknown | {"send": 0, "wait": 40, "receive": 60}
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
    assert entry["_container"] == "web"
    assert entry["_process"] == {
        "pid": 7,
        "uid": 0,
        "name": "curl",
        "command": ["curl", "-v"],
        "cgroup": None,
    }
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
async def test_odd_values_do_no_harm(tmp_path, url: str, headers: dict[str, Any]) -> None:
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


async def test_bodies_are_in_the_archive(tmp_path) -> None:
    path = tmp_path / "har"
    async with archive(path) as sink:
        sink.publish(layer(0, "http/2"))
        sink.publish(request(1, content_type="application/json"))
        sink.publish(request(3, content_type="application/octet-stream"))
        sink.publish(body("request", '{"ä": "\u2028"}'))
        sink.publish(body("request", b"\xff\0", 3))
        sink.publish(response(1))
        sink.publish(response(3))
        sink.publish(body("response", "x" * 100, size=30, encoding=("gzip",)))
        broken = {"truncated": True, "decoded_size": None, "coding_error": "gzip: broken"}
        sink.publish(body("response", b"\0", 3, **broken))
        sink.publish(end(1))
        sink.publish(end(3))
    text, binary = entries(path)
    posted = {"mimeType": "application/json", "text": '{"ä": "\u2028"}'}
    assert text["request"]["postData"] == posted
    shown = {"size": 100, "compression": 70, "mimeType": "text/html", "text": "x" * 100}
    assert text["response"]["content"] == shown
    assert binary["request"]["postData"] == {
        "mimeType": "application/octet-stream",
        "text": "/wA=",
        "_encoding": "base64",
    }
    assert binary["response"]["content"] == {
        "size": 1234,
        "mimeType": "text/html",
        "text": "AA==",
        "encoding": "base64",
        "comment": "truncated; gzip: broken",
    }


FORM = "application/x-www-form-urlencoded"
MULTIPART = (
    b"a preamble\r\n"
    b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\none\r\n--but\r\n'
    b'--b \r\ncontent-disposition: form-data;name=k; filename="f;1.bin"\r\n'
    b"Content-Type: image/png\r\n\r\n\0\xff\r\n"
    b"--b\r\nX-Other: no name\r\n\r\n\r\n"
    b'--b\r\nContent-Disposition: form-data; name="\xc3\xa4"\r\n\r\n\r\n'
    b"--b--\r\nan epilogue"
)


@pytest.mark.parametrize(
    ("content_type", "shown", "expected"),
    [
        (FORM, "a=1&b=%C3%A4+x&c", [("a", "1"), ("b", "ä x"), ("c", "")]),
        (f"{FORM.upper()}; charset=utf-8", "a=b", [("a", "b")]),
        ("multipart/form-data; boundary=b", MULTIPART, [("a", "one\r\n--but"), ("k",), ("ä", "")]),
        ('multipart/form-data; boundary="b"', MULTIPART[:90], [("a", "one\r\n--but")]),
        ("multipart/form-data", MULTIPART, []),
        ("text/plain", "a=1", []),
    ],
)
async def test_forms_have_parameters(tmp_path, content_type, shown, expected) -> None:
    path = tmp_path / "har"
    async with archive(path) as sink:
        sink.publish(layer(0, "http/1"))
        sink.publish(request(content_type=content_type))
        sink.publish(body("request", shown))
        sink.publish(end())
    (entry,) = entries(path)
    posted = entry["request"]["postData"]
    found = posted.get("params", [])
    assert [(each["name"], *filter(None, [each.get("value")])) for each in found] == [
        tuple(filter(None, each)) for each in expected
    ]
    files = [each for each in found if "fileName" in each]
    assert files in (
        [],
        [{"name": "k", "fileName": "f;1.bin", "contentType": "image/png"}],
    )
    assert bool(files) == (("k",) in expected)
    assert posted["text"] == (shown if isinstance(shown, str) else base64_of(shown))


@given(st.text(), st.text(), st.binary(), st.booleans())
def test_whatever_is_said_an_entry_keeps_to_the_schema(
    one: str, other: str, posted: bytes, is_form: bool
) -> None:
    kind = "multipart/form-data; boundary=b" if is_form else f"multipart/form-data; {one}"
    cookies = (one, f"a=b; expires={one}", f"a=b; max-age={other}; samesite={one}; path={other}")
    file = OutputFile(os.memfd_create("har"), "memory")
    output = HttpArchive(file)
    output.take(FlowOpen(flow=1, client=Address("::1", 9), destination=SERVER))
    output.take(layer(0, "http/1"))
    output.take(request(url=f"http://{one}/?{other}", content_type=kind, Cookie=one))
    output.take(body("request", b"--b\r\nContent-Disposition: form-data; " + posted))
    output.take(response(1, 200, *(("Set-Cookie", each) for each in cookies)))
    output.write(list(output.take(end())))
    output.finish()
    with os.fdopen(file.descriptor, "rb") as written:
        written.seek(0)
        SCHEMA.validate(json.load(written))


async def test_cookies_have_the_attributes_that_browsers_would_note(tmp_path) -> None:
    cases: dict[str, dict[str, Any]] = {
        "a=1; Path=/x; Domain=b.test; Secure; HttpOnly; SameSite=lax": {
            "name": "a",
            "value": "1",
            "path": "/x",
            "domain": "b.test",
            "secure": True,
            "httpOnly": True,
            "sameSite": "Lax",
        },
        "a=b=c; Expires=Wed, 21 Oct 2026 07:28:00 GMT": {
            "value": "b=c",
            "expires": "2026-10-21T07:28:00.000000Z",
        },
        "a=; expires=Wednesday, 21-Oct-26 07:28:00 GMT": {
            "value": "",
            "expires": "2026-10-21T07:28:00.000000Z",
        },
        "a=1; Max-Age=60; Expires=Wed, 21 Oct 2026 07:28:00 GMT": {
            "expires": "2026-11-24T10:01:00.040000Z"
        },
        "a=1; Max-Age=soon": {},
        f"a=1; Max-Age={'9' * 30}": {},
        "a=1; Expires=Thu, 99 Xyz 2026": {},
        "a=1; Expires=; SameSite=odd; path=/1; Path=/2": {"path": "/2"},
    }
    path = tmp_path / "har"
    async with archive(path) as sink:
        sink.publish(layer(0, "http/1"))
        sink.publish(request())
        sink.publish(response(1, 200, *(("Set-Cookie", said) for said in cases)))
        sink.publish(end())
    (entry,) = entries(path)
    usual = {"name": "a", "value": "1", "httpOnly": False, "secure": False}
    assert entry["response"]["cookies"] == [usual | each for each in cases.values()]


def said(
    opcode: str, shown: str | bytes | None, *, time: datetime, up: bool, **others: Any
) -> LayerEvent:
    content = WebSocketMessage(
        direction=Direction.UP if up else Direction.DOWN,
        opcode=opcode,
        size=5,
        text=PayloadText(shown) if isinstance(shown, str) else None,
        base64=base64_of(shown) if isinstance(shown, bytes) else None,
        **others,
    )
    return LayerEvent(time=time, flow=1, depth=1, content=content)


MESSAGES = [
    {"type": "send", "time": LATER.timestamp(), "opcode": 1, "data": "grüße"},
    {
        "type": "receive",
        "time": END.timestamp(),
        "opcode": 2,
        "data": "/wA=",
        "_encoding": "base64",
        "_truncated": True,
        "_size": 5,
    },
]


async def test_a_websocket_has_its_messages_once_its_connection_has_closed(tmp_path) -> None:
    path = tmp_path / "har"
    async with archive(path) as sink:
        sink.publish(layer(0, "http/1"))
        sink.publish(request(1))
        sink.publish(response(1))
        sink.publish(end(1))
        sink.publish(request(2))
        sink.publish(response(2, 101, ("Upgrade", "WebSocket")))
        sink.publish(end(2))
        sink.publish(layer(1, "websocket"))
        sink.publish(said("text", "grüße", time=LATER, up=True))
        sink.publish(said("binary", b"\xff\0", time=END, up=False, truncated=True))
        sink.publish(close())
    plain, socket = entries(path)
    assert "_webSocketMessages" not in plain
    assert "_resourceType" not in plain
    assert socket["_webSocketMessages"] == MESSAGES
    assert socket["_resourceType"] == "websocket"
    assert socket["response"]["status"] == 101


async def test_a_websocket_in_a_stream_has_its_own_messages(tmp_path) -> None:
    path = tmp_path / "har"
    over_http2: dict[str, Any] = {":protocol": "websocket"}
    async with archive(path) as sink:
        sink.publish(layer(0, "http/2"))
        sink.publish(request(1, **over_http2))
        sink.publish(request(3, **over_http2))
        sink.publish(response(1))
        sink.publish(response(3))
        sink.publish(said("text", "grüße", time=LATER, up=True, stream=1))
        sink.publish(said("ping", None, time=END, up=False, stream=3))
        sink.publish(end(1))
        sink.publish(end(3))
    with_payload, without = entries(path)
    assert with_payload["_webSocketMessages"] == MESSAGES[:1]
    assert "_webSocketMessages" not in without
    assert with_payload["_resourceType"] == without["_resourceType"] == "websocket"


async def test_a_call_of_grpc_has_its_messages_and_trailers(tmp_path) -> None:
    message = GrpcMessage(
        stream=1,
        direction=Direction.UP,
        size=3,
        compressed=True,
        decoded_size=2,
        encoding=("gzip",),
        coding_error=None,
        base64=base64_of(b"\xff\0"),
        truncated=False,
    )
    path = tmp_path / "har"
    async with archive(path) as sink:
        sink.publish(layer(0, "http/2"))
        sink.publish(request(1, content_type="application/grpc"))
        sink.publish(LayerEvent(time=LATER, flow=1, depth=0, content=message))
        sink.publish(response(1))
        sink.publish(end(1, trailers=(("grpc-status", "0"),)))
    (entry,) = entries(path)
    assert entry["_grpcMessages"] == [
        {"type": "send", "time": LATER.timestamp(), "compressed": True, "data": "/wA="}
    ]
    assert entry["response"]["_trailers"] == [{"name": "grpc-status", "value": "0"}]


async def test_the_first_exchange_has_the_time_of_the_connection(tmp_path) -> None:
    path = tmp_path / "har"
    tls = TlsDetails(handshake_s=0.03)
    async with archive(path) as sink:
        sink.publish(layer(0, "tls", tls, connect_s=0.02))
        sink.publish(layer(1, "http/1"))
        for stream in (1, 2):
            sink.publish(request(stream, 1))
            sink.publish(response(stream, depth=1))
            sink.publish(end(stream, 1, request_s=0.01))
        sink.publish(layer(2, "http/2"))  # an upgrade
        sink.publish(request(1, 2))
        sink.publish(end(1, 2, outcome="reset", reset_code="CANCEL", request_s=0.05))
    first, second, upgraded = entries(path)
    sent = {"send": 10, "wait": 30, "receive": 60}
    unknown = dict.fromkeys(("blocked", "dns", "connect", "ssl"), -1)
    assert first["timings"] == unknown | sent | {"connect": 50, "ssl": 30}
    assert first["time"] == 150
    assert first["startedDateTime"] == "2026-11-24T09:59:59.950000Z"
    assert second["timings"] == unknown | sent
    assert second["time"] == 100
    assert upgraded["timings"] == unknown | {"send": 50, "wait": 0, "receive": 50}
    assert upgraded["comment"] == "the stream was reset: CANCEL"


async def test_a_tunnel_and_what_is_inside_it_have_the_time_of_the_connection(tmp_path) -> None:
    path = tmp_path / "har"
    async with archive(path) as sink:
        sink.publish(layer(0, "http-connect", connect_s=0.02))
        sink.publish(request(1))
        sink.publish(end(1))
        sink.publish(layer(1, "tls", TlsDetails(handshake_s=0.03)))
        sink.publish(layer(2, "http/2"))
        sink.publish(request(1, 2))
        sink.publish(end(1, 2))
    tunnel, inside = entries(path)
    assert [tunnel["timings"][name] for name in ("connect", "ssl")] == [20, -1]
    assert [inside["timings"][name] for name in ("connect", "ssl")] == [50, 30]


async def test_a_body_without_room_is_left_out_and_counted(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("mitml4.sinks.har._MAX_UNFINISHED", 8 * weight(request()))
    path = tmp_path / "har"
    async with archive(path) as sink:
        sink.publish(layer(0, "http/1"))
        sink.publish(request())
        sink.publish(body("request", "x" * 100_000))
        sink.publish(response())
        sink.publish(end())
        sink.publish(request(2))
        sink.publish(body("request", "shown", 2))
        sink.publish(end(2))
    without, shown = entries(path)
    assert sink.dropped == 1
    assert "postData" not in without["request"]
    assert without["comment"] == "1 body or message is left out for want of memory"
    assert shown["request"]["postData"]["text"] == "shown"


def entry_events(stream: int, shown: str) -> list[LayerEvent]:
    return [request(stream), response(stream), body("response", shown, stream), end(stream)]


def written_to(path: Path) -> HttpArchive:
    """An archive with an entry."""
    sink = HttpArchive.to_file(path)
    sink.take(FlowOpen(flow=1, client=Address("::1", 9), destination=SERVER))
    sink.take(layer(0, "http/1"))
    sink.write(completed(sink, 1, "x"))
    return sink


def completed(sink: HttpArchive, stream: int, shown: str) -> list[Any]:
    return [item for event in entry_events(stream, shown) for item in sink.take(event)]


def test_a_session_that_is_killed_at_any_byte_leaves_an_archive(tmp_path: Path) -> None:
    """What it has sent to its writer, up to a byte."""
    path = tmp_path / "exchanges.har"
    lengths = set()
    sent = asked_to_write(path)
    end = len(sent)
    for size in sorted({*range(20), *range(20, end, 23), *range(end - 20, end + 1)}):
        sink = written_to(path)
        assert sink._writer
        channel = sink._writer._channel
        channel.sendall(sent[:size])
        channel.shutdown(socket.SHUT_WR)
        while channel.recv(100):
            pass
        lengths.add(len(json.loads(path.read_bytes())["log"]["entries"]))
        assert lengths == ({1} if size < end else {1, 2})
        sink.finish()
        sink.close()


def asked_to_write(path: Path) -> bytes:
    """The bytes of a session's request to write another entry."""
    sink = written_to(path)
    assert sink._writer
    channel = sink._writer._channel
    ours, sink._writer._channel = socket.socketpair()
    ours.sendall(b"\0" * 12)  # the answer
    sink.write(completed(sink, 3, "y"))
    sink.finish()
    sink.close()
    with ours, channel:
        sent = b""
        while piece := ours.recv(1 << 16):
            sent += piece
    return sent


KILLER = """
import os, signal, sys, time
from pathlib import Path
from mitml4.net.processes import become_subreaper
from tests.sinks.test_har import completed, written_to

become_subreaper()
for delay_s in 0.05, 0.08, 0.11, 0.14:  # at any moment
    begun, begins = os.pipe()
    if not (killed := os.fork()):
        sink, shown = written_to(Path(f"{sys.argv[1]}/{delay_s}")), "x" * 3_000_000
        os.write(begins, b"begun")
        for stream in range(3, 10_000):
            sink.write(completed(sink, stream, shown))
    os.read(begun, 5)
    time.sleep(delay_s)
    os.kill(killed, signal.SIGKILL)
    os.waitpid(killed, 0)
    os.wait()  # its writer
"""


def test_a_writer_completes_what_it_was_given_by_a_killed_process(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLER, str(tmp_path)], check=True, timeout=60)
    archives = list(tmp_path.iterdir())
    assert len(archives) == 4
    assert all(json.loads(path.read_bytes())["log"]["entries"] for path in archives)
