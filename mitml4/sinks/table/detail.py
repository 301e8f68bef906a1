"""One flow, as lines: its layers with their facts, its requests, and what was said in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any, Final, NamedTuple

from rich.cells import cell_len

from mitml4.model.content import shown
from mitml4.model.flow import Body, Data, Exchange, Flow, Headers, Layer, Message, Request
from mitml4.printable import printable
from mitml4.sinks.table.grid import fit, join_stack, short_size

__all__ = ["DetailLine", "detail", "exchange_at"]

_MAX_LINES: Final = 200
"""Of one body, message or direction."""
_ARROWS: Final = {"up": "↑", "down": "↓"}
_CERTIFICATE: Final = "certificate"
_MIRRORED: Final = ("mirrored", "not_mirrored")
_BY_US: Final = "mitml4"


class DetailLine(NamedTuple):
    """Text that fits into the width, the name of its style, and the exchange that it belongs to."""

    text: str
    style: str = ""
    exchange: Exchange | None = None


def detail(flow: Flow, width: int) -> list[DetailLine]:
    """All lines of a flow, for a width in cells. Everything from the network is printable."""
    return [
        line._replace(text=text)
        for line in _lines(flow, width)
        for text in _wrapped(printable(line.text), max(width, 20))
    ]


def _lines(flow: Flow, width: int) -> Iterator[DetailLine]:
    yield DetailLine(f"#{flow.number}  {flow.server}  {join_stack(flow.stack)}", "title")
    yield from _summary(flow)
    for layer in flow.layers:
        yield DetailLine("")
        yield from _layer(layer, width)
    for exchange in flow.exchanges:
        yield DetailLine("", exchange=exchange)
        for line in _exchange(exchange):
            yield line._replace(exchange=exchange)
    for message in flow.messages:
        yield DetailLine("")
        yield from _message(message)
    for depth, direction in dict.fromkeys((data.depth, data.direction) for data in flow.data):
        yield DetailLine("")
        pieces = [each for each in flow.data if (each.depth, each.direction) == (depth, direction)]
        yield from _data(direction, pieces)


def _summary(flow: Flow) -> Iterator[DetailLine]:
    where = f" by {flow.interface}" if flow.interface else ""
    yield DetailLine(f"{flow.client} to {flow.destination}{where}")
    state = "open" if flow.reason is None else flow.reason
    lasted = f", {flow.duration_s:.3g} s" if flow.duration_s is not None else ""
    moved = f"↑ {short_size(flow.bytes_up)} ↓ {short_size(flow.bytes_down)}"
    yield DetailLine(f"{_clock(flow.opened_at)}  {state}{lasted}  {moved}")
    if flow.process:
        yield DetailLine("  ".join(f"{name}: {value}" for name, value in flow.process.items()))
    if flow.passthrough:
        yield DetailLine(f"TLS was passed through: {flow.passthrough}", "passed")
    for problem in flow.problems:
        what = f"{problem.side}, {problem.stage}: {problem.reason} ({problem.kind})"
        yield DetailLine(what, "failed")


def _layer(layer: Layer, width: int) -> Iterator[DetailLine]:
    yield DetailLine(f"{layer.protocol}  {layer.action}, the {layer.speaker} began", "name")
    certificate = layer.details.get(_CERTIFICATE)
    for name, value in layer.details.items():
        if name == _CERTIFICATE or (certificate and name in _MIRRORED):
            continue
        yield from _fact(name, value)
    if isinstance(certificate, Mapping):
        yield from _certificates(layer, certificate, width)


def _fact(name: str, value: Any) -> Iterator[DetailLine]:
    if value is None or value in ([], {}):
        return
    if isinstance(value, Mapping):
        for inner, inside in value.items():
            yield from _fact(f"{name}.{inner}", inside)
        return
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    yield DetailLine(f"  {name}: {text}")


def _certificates(layer: Layer, certificate: Mapping[str, Any], width: int) -> Iterator[DetailLine]:
    """The server's certificate, and beside it the one that the client was shown."""
    mirrored, column = layer.details.get("mirrored") or [], max(12, (width - 20) // 2)
    is_shown = layer.action == "intercepted"
    yield DetailLine(
        f"  {'certificate':<14}  {fit('of the server', column)}"
        + ("  shown to the client" if is_shown else ""),
        "closed",
    )
    for name, value in certificate.items():
        text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        like = text if name in mirrored else _BY_US if name == "issuer" else "–"
        left = fit(printable(text), column) if is_shown else printable(text)
        yield DetailLine(f"  {name:<14}  {left}" + (f"  {like}" if is_shown else ""))
    if missing := layer.details.get("not_mirrored"):
        yield DetailLine(f"  not mirrored: {', '.join(map(str, missing))}")


def _exchange(exchange: Exchange) -> Iterator[DetailLine]:
    request, response = exchange.request, exchange.response
    yield DetailLine(f"{exchange.stream}  {request.method} {request.url}", "name")
    yield from _message_part(request.headers, request.body, request.content_type)
    for early in exchange.informational:
        yield DetailLine(f"{early.status}", "closed")
    if response is None:
        yield DetailLine("no response" if exchange.ended else "no response yet", "closed")
    else:
        size = "" if response.body_bytes is None else f"  {short_size(response.body_bytes)}B"
        took = "" if exchange.duration_s is None else f"  {exchange.duration_s:.3g} s"
        yield DetailLine(f"{response.status}  {response.content_type or ''}{size}{took}", "name")
        yield from _message_part(response.headers, response.body, response.content_type)
        for name, value in response.trailers or ():
            yield DetailLine(f"  {name}: {value}")
    if exchange.outcome not in (None, "complete"):
        code = f" {exchange.reset_code}" if exchange.reset_code else ""
        yield DetailLine(f"{exchange.outcome}{code}", "failed")


def _message_part(
    headers: Headers | None, body: Body | None, content_type: str | None
) -> Iterator[DetailLine]:
    for name, value in headers or ():
        yield DetailLine(f"  {name}: {value}")
    if body and body.content is not None:
        undone = f", {', '.join(body.encoding)} undone" if body.encoding else ""
        yield from _content(body, body.content, content_type, undone)


def _content(
    part: Body | Message | Data, content: bytes, content_type: str | None, more: str = ""
) -> Iterator[DetailLine]:
    kind, lines = shown(content, content_type)
    cut = ", cut" if part.truncated else ""
    yield DetailLine(f"    [{kind}, {len(content)} bytes{more}{cut}]", "closed")
    yield from _bounded(lines)


def _bounded(lines: list[str]) -> Iterator[DetailLine]:
    for line in lines[:_MAX_LINES]:
        yield DetailLine(f"    {line}")
    if len(lines) > _MAX_LINES:
        yield DetailLine(f"    … {len(lines) - _MAX_LINES} more lines", "closed")


def _message(message: Message) -> Iterator[DetailLine]:
    what = message.opcode or message.protocol
    head = f"{_ARROWS[message.direction]} {what}, {message.size} bytes  {_clock(message.time)}"
    yield DetailLine(head, "name")
    if message.content:
        yield from _content(message, message.content, message.protocol)


def _data(direction: str, pieces: list[Data]) -> Iterator[DetailLine]:
    content = b"".join(piece.content or b"" for piece in pieces)
    yield DetailLine(f"{_ARROWS[direction]} {direction}", "name")
    yield from _content(pieces[-1], content, None)


def _clock(time: datetime) -> str:
    with suppress(OverflowError):  # the first and the last day of the calendar stay in UTC
        time = time.astimezone()
    return f"{time:%H:%M:%S.%f}"[:-3]


def _wrapped(text: str, width: int) -> Iterable[str]:
    """The text in pieces that fit; later pieces are indented like the first."""
    if cell_len(text) <= width:
        return (text,)
    rest = text.lstrip()
    indent = " " * min(len(text) - len(rest), width // 2)
    room = width - len(indent)
    pieces: list[str] = []
    while rest:
        taken = len(rest) if cell_len(rest) <= room else _fitting(rest, room)
        pieces.append(indent + rest[:taken])
        rest = rest[taken:]
    return pieces


def _fitting(text: str, room: int) -> int:
    """How many of its characters fit, one at least."""
    taken = min(len(text), room)
    while taken > 1 and cell_len(text[:taken]) > room:
        taken -= 1
    return taken


def exchange_at(lines: list[DetailLine], top: int) -> Request | None:
    """The request at a line, or the next one after it; the last one if there is none."""
    found = [line.exchange for line in lines[top:] if line.exchange]
    before = [line.exchange for line in lines[:top] if line.exchange]
    nearest = (found or before[-1:])[:1]
    return nearest[0].request if nearest else None
