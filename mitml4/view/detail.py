"""What the report shows of a flow below its row: its layers, requests and messages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

from mitml4.model.content import shown
from mitml4.model.flow import Body, Data, Exchange, Flow, Layer, Message
from mitml4.view.markup import Child, Markup, block, tag
from mitml4.view.outline import size_text, time_text

__all__ = ["MAX_EXCHANGES", "detail_of"]

T = TypeVar("T")

MAX_EXCHANGES: Final = 200
"""Of one flow; so many messages and pieces of data, too."""
_MAX_BODY: Final = 8192
"""Characters of a body."""
_ARROWS: Final = {"up": "↑", "down": "↓"}


def detail_of(flow: Flow) -> Iterator[Markup]:
    yield tag(
        "p",
        f"{flow.client} to {flow.destination}, {time_text(flow.opened_at)}",
        f", {flow.duration_s:.3f} s" if flow.duration_s is not None else "",
        f", {flow.reason}" if flow.reason else ", open when the file ended",
        class_="dim",
    )
    if flow.process:
        process = ", ".join(f"{name}: {value}" for name, value in flow.process.items())
        yield tag("p", f"process {process}", class_="dim")
    for problem in flow.problems:
        text = f"{problem.side}, {problem.stage}, {problem.kind}: {problem.reason}"
        yield tag("p", text, class_="bad")
    for probe in flow.probes:
        yield tag("p", probe.text, class_="bad" if probe.is_finding else None)
    for text, count in Counter(edit.text for edit in flow.edits).items():
        yield tag("p", f"{text}{f', {count} times' if count > 1 else ''}")
    for layer in flow.layers:
        yield from _layer(layer)
    yield from _some(flow.exchanges, "exchanges", _exchange)
    yield from _some(flow.messages, "messages", _message)
    yield from _some(flow.data, "pieces of data", _data)


def _some(items: list[T], what: str, shown: Callable[[T], Iterator[Markup]]) -> Iterator[Markup]:
    for item in items[:MAX_EXCHANGES]:
        yield from shown(item)
    if len(items) > MAX_EXCHANGES:
        yield tag("p", f"{len(items) - MAX_EXCHANGES:,} more {what} are left out", class_="dim")


def _layer(layer: Layer) -> Iterator[Markup]:
    action = "" if layer.action == "relayed" else f", {layer.action}"
    yield tag("h3", f"{layer.protocol}{action}")
    known = [(name, _value_of(value)) for name, value in layer.details.items()]
    rows = [(tag("dt", name), tag("dd", text)) for name, text in known if text]
    if rows:
        yield tag("dl", rows)


def _value_of(value: Any) -> Child:
    """A detail as text; nested ones one per line."""
    match value:
        case None | [] | "":
            return None
        case {"host": host, "port": port, **others} if not others:
            return f"{host}:{port}"
        case dict():
            rows = [(name, _value_of(each)) for name, each in value.items()]
            return [
                tag("div", tag("span", f"{name}: ", class_="dim"), text)
                for name, text in rows
                if text
            ]
        case bool():
            return "yes" if value else "no"
        case list():
            return ", ".join(map(str, value))
    return str(value)


def _exchange(exchange: Exchange) -> Iterator[Markup]:
    request, response = exchange.request, exchange.response
    yield tag("h3", f"{request.method} {request.url}", class_="mono")
    rows = [
        f"{response.status}" if response else "no response",
        response.content_type if response else None,
        f"↑ {size_text(request.body_bytes)}" if request.body_bytes else None,
        f"↓ {size_text(response.body_bytes)}" if response and response.body_bytes else None,
        f"{exchange.duration_s * 1000:.1f} ms" if exchange.duration_s is not None else None,
        None if exchange.outcome == "complete" else exchange.outcome or "no end was seen",
    ]
    yield tag("p", ", ".join(filter(None, rows)), class_="dim")
    for title, part in (("request", request), ("response", response)):
        if part and part.headers:
            lines = "\n".join(f"{name}: {value}" for name, value in part.headers)
            yield tag("p", f"{title} headers", class_="dim")
            yield block(lines)
        if part and part.body:
            yield from _body(title, part.body, part.content_type)


def _body(title: str, body: Body, content_type: str | None) -> Iterator[Markup]:
    codings = f", {', '.join(body.encoding)} undone" if body.encoding else ""
    codings += f", {body.coding_error}" if body.coding_error else ""
    yield from _content(body, f"{title} body, {size_text(body.size)}{codings}", content_type)


def _message(message: Message) -> Iterator[Markup]:
    what = f"{message.opcode or message.protocol}, {size_text(message.size)}"
    yield from _content(message, f"{_ARROWS[message.direction]} {what}", message.protocol)


def _data(data: Data) -> Iterator[Markup]:
    yield from _content(data, f"{_ARROWS[data.direction]} from byte {data.offset:,}", None)


def _content(part: Body | Message | Data, title: str, content_type: str | None) -> Iterator[Markup]:
    kind, lines = shown(part.content or b"", content_type)
    cut = ", cut off" if part.truncated else ""
    kept = f", {kind}" if part.content else ""
    yield tag("p", f"{title}{kept}{cut}", class_="dim")
    text = "\n".join(lines)
    if text:
        yield block(text if len(text) <= _MAX_BODY else f"{text[:_MAX_BODY]}…")
