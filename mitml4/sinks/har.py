"""HTTP exchanges as an HTTP archive (HAR 1.2), which browsers' developer tools open.

http://www.softwareishard.com/blog/har-12-spec/: a JSON object with an entry for each exchange.
It contains heads, sizes and times, but no bodies. A regular file is a complete archive from the
start and after every write, however the session ends, and also if the disk is full.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import field
from datetime import datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from mitml4 import __version__
from mitml4.dataclass import dataclass
from mitml4.events import (
    FlowClose,
    FlowLayer,
    FlowOpen,
    LayerEvent,
    to_line,
    weight,
)
from mitml4.protocols.http.events import HttpEnd, HttpRequest, HttpResponse
from mitml4.protocols.payload import is_redacted
from mitml4.protocols.registry import PROTOCOLS
from mitml4.sinks.files import OutputFile, begin_file, write_all
from mitml4.sinks.format import Format, Weight
from mitml4.sinks.shares import Shares
from mitml4.sinks.updates import Published

__all__ = ["HttpArchive"]

_HEAD: Final = (
    b'{"log":{"version":"1.2","creator":{"name":"mitml4","version":"%s"},"entries":[\n'
    % __version__.encode()
)
_TAIL: Final = b"\n]}}\n"
_PROXIES: Final = frozenset(row.name for row in PROTOCOLS if row.is_proxy)
_MAX_UNFINISHED: Final = 32 << 20
"""Bytes of unfinished exchanges. Exchanges beyond a flow's share are not followed, and count as
dropped."""

Headers = tuple[tuple[str, str], ...]
Key = tuple[int, int]
"""Depth and stream."""


@dataclass(slots=True)
class _Exchange:
    """What is known of an exchange."""

    flow: _Flow
    key: Key
    asked_at: datetime
    request: HttpRequest
    stack: tuple[str, ...]
    request_size: int
    size: int
    """Of the request and its response together."""
    answered_at: datetime | None = None
    response: HttpResponse | None = None
    end: HttpEnd | None = None
    ended_at: datetime | None = None

    @property
    def began_at(self) -> datetime:
        """A request may be told later than it was sent: the end has its duration."""
        if self.end and self.ended_at:
            return self.ended_at - timedelta(seconds=self.end.duration_s)
        return self.asked_at


@dataclass(slots=True)
class _Flow:
    opened: FlowOpen
    stack: list[str] = field(default_factory=list)
    exchanges: dict[Key, _Exchange] = field(default_factory=dict)


class HttpArchive(Format[_Exchange]):
    """An entry for each exchange, when it is complete or its flow has ended."""

    wants = (FlowOpen, FlowLayer, HttpRequest, HttpResponse, HttpEnd, FlowClose)

    def __init__(self, file: OutputFile, *, has_head: bool = False) -> None:
        """`has_head`: the head has been written, and to a regular file also the tail."""
        super().__init__(file)
        self._flows: dict[int, _Flow] = {}
        self._unfinished = Shares(_MAX_UNFINISHED)
        self._has_head = has_head
        self._separator = b""
        self._can_rewrite = stat.S_ISREG(os.fstat(file.descriptor).st_mode)

    @classmethod
    def to_file(cls, path: Path) -> HttpArchive:
        """To a file, replacing its content. Raises MitmError."""
        return cls(OutputFile(begin_file(path, _HEAD, _TAIL), str(path)), has_head=True)

    def take(self, event: Published) -> Iterable[_Exchange]:
        match event:
            case FlowOpen():
                self._flows[event.flow] = _Flow(event)
            case FlowLayer():
                self._flows[event.flow].stack.append(event.protocol)
            case LayerEvent(content=HttpRequest() as request):
                self._begin(event, request)
            case LayerEvent(content=HttpResponse() as response):
                if exchange := self._exchange(event, response.stream):
                    self._answer(exchange, event, response)
            case LayerEvent(content=HttpEnd() as end):
                if exchange := self._exchange(event, end.stream):
                    exchange.end, exchange.ended_at = end, event.time
                    return (self._complete(exchange),)
            case FlowClose():
                flow = self._flows.pop(event.flow)
                return [self._complete(exchange) for exchange in list(flow.exchanges.values())]
        return ()

    def weight(self, item: _Exchange) -> Weight:
        return Weight(item.flow.opened.flow, item.size)

    def write(self, batch: Sequence[_Exchange]) -> None:
        entries = ",\n".join(to_line(_entry(exchange)) for exchange in batch)
        self._append(self._separator + entries.encode("utf-8", "backslashreplace"))
        self._separator = b",\n"

    def finish(self) -> None:
        self._write_head()
        if not self._can_rewrite:
            write_all(self.file.descriptor, _TAIL)

    def _begin(self, event: LayerEvent, request: HttpRequest) -> None:
        flow = self._flows[event.flow]
        size = weight(event)
        if not self._unfinished.take(event.flow, size):
            self.dropped += 1
            return
        key = event.depth, request.stream
        stack = tuple(flow.stack[: event.depth + 1])
        flow.exchanges[key] = _Exchange(flow, key, event.time, request, stack, size, size)

    def _answer(self, exchange: _Exchange, event: LayerEvent, response: HttpResponse) -> None:
        """Note a response head; it replaces an earlier one (1xx)."""
        size = exchange.request_size + weight(event)
        self._unfinished.give_back(event.flow, exchange.size)
        if self._unfinished.take(event.flow, size):
            exchange.response, exchange.answered_at, exchange.size = response, event.time, size
        else:
            self.dropped += 1
            del exchange.flow.exchanges[exchange.key]

    def _exchange(self, event: LayerEvent, stream: int) -> _Exchange | None:
        return self._flows[event.flow].exchanges.get((event.depth, stream))

    def _complete(self, exchange: _Exchange) -> _Exchange:
        del exchange.flow.exchanges[exchange.key]
        self._unfinished.give_back(exchange.flow.opened.flow, exchange.size)
        return exchange

    def _write_head(self) -> None:
        if not self._has_head:
            write_all(self.file.descriptor, _HEAD + _TAIL if self._can_rewrite else _HEAD)
            self._has_head = True

    def _append(self, data: bytes) -> None:
        """Write after the existing entries. Raises OSError."""
        self._write_head()
        if not self._can_rewrite:
            write_all(self.file.descriptor, data)
            return
        end = os.lseek(self.file.descriptor, -len(_TAIL), os.SEEK_CUR)
        try:
            write_all(self.file.descriptor, data + _TAIL, undo=False)
        except OSError:
            # At its previous position the tail needs no new space on the disk.
            os.pwrite(self.file.descriptor, _TAIL, end)
            os.ftruncate(self.file.descriptor, end + len(_TAIL))
            raise


def _entry(exchange: _Exchange) -> dict[str, Any]:
    """An exchange as an entry. Names that begin with `_` are extensions; times are in ms."""
    request, response, end = exchange.request, exchange.response, exchange.end
    wait = _between(exchange.began_at, exchange.answered_at) if exchange.answered_at else 0.0
    total = end.duration_s * 1000 if end else wait
    entry: dict[str, Any] = {
        "startedDateTime": exchange.began_at,
        "time": round(total, 3),
        "request": _request(request, end.request_bytes if end else -1),
        "response": _response(response, end.response_bytes if end else -1),
        "cache": {},
        "timings": {"send": 0, "wait": round(wait, 3), "receive": round(max(total - wait, 0), 3)},
        "connection": str(exchange.flow.opened.flow),
        "_client": exchange.flow.opened.client,
        "_stack": exchange.stack,
        "_stream": request.stream,
    }
    if _PROXIES.isdisjoint(exchange.stack):
        entry["serverIPAddress"] = exchange.flow.opened.destination.ip
    if not end:
        entry["comment"] = "its end was not seen"
    return entry


def _request(request: HttpRequest, size: int) -> dict[str, Any]:
    headers = request.headers or ()
    return {
        "method": request.method,
        "url": request.url,
        "httpVersion": request.version,
        "cookies": list(_pairs(_cookies(headers, "cookie"))),
        "headers": _named(headers),
        "queryString": _named(_query(request.url)),
        "headersSize": -1,
        "bodySize": size,
    }


def _response(response: HttpResponse | None, size: int) -> dict[str, Any]:
    """Without a response the status is 0, as in browsers' archives."""
    headers = (response and response.headers) or ()
    return {
        "status": response.status if response else 0,
        "statusText": _phrase(response.status) if response else "",
        "httpVersion": response.version if response else "",
        "cookies": [_set_cookie(value) for value in _cookies(headers, "set-cookie")],
        "headers": _named(headers),
        "content": {
            "size": max(size, 0),
            "mimeType": (response and response.content_type) or "",
        },
        "redirectURL": next(_values(headers, "location"), ""),
        "headersSize": -1,
        "bodySize": size,
    }


def _between(one: datetime, other: datetime) -> float:
    return max((other - one).total_seconds() * 1000, 0.0)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _query(url: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(urlsplit(url).query, keep_blank_values=True)
    except ValueError:  # such as an unclosed bracket
        return []


def _values(headers: Headers, name: str) -> Iterator[str]:
    return (value for other, value in headers if other.lower() == name)


def _named(pairs: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in pairs]


def _pairs(values: Iterable[str]) -> Iterator[dict[str, str]]:
    """`name=value; name=value` (RFC 6265 §4.2)."""
    for pair in (pair for value in values for pair in value.split(";") if pair.strip()):
        name, _, content = pair.strip().partition("=")
        yield {"name": name, "value": content}


def _cookies(headers: Headers, name: str) -> Iterator[str]:
    """The values of these header fields that are not redacted."""
    return (value for value in _values(headers, name) if not is_redacted(value))


def _set_cookie(value: str) -> dict[str, Any]:
    """`name=value; Path=/; Secure` (RFC 6265 §4.1), with the attributes that HAR has."""
    cookie: dict[str, Any]
    cookie, *attributes = list(_pairs([value])) or [{"name": "", "value": ""}]
    said = {attribute["name"].lower(): attribute["value"] for attribute in attributes}
    cookie.update({name: said[name] for name in ("path", "domain") if name in said})
    return {**cookie, "httpOnly": "httponly" in said, "secure": "secure" in said}
