"""A flow of the report: its row in the waterfall, and what opens below it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any, Final

from mitml4.dataclass import dataclass
from mitml4.events import FAILURES
from mitml4.model.flow import Body, Exchange, Flow, Layer
from mitml4.view.markup import Child, Markup, block, tag

__all__ = ["Scale", "flow_row", "outline", "size_text", "table", "time_text"]

_MAX_EXCHANGES: Final = 200
"""Of one flow; so many messages and pieces of data, too."""
_MAX_BODY: Final = 8192
"""Characters of a body."""


@dataclass(frozen=True, slots=True)
class Scale:
    """The time that the width of the waterfall stands for."""

    first: datetime
    last: datetime

    def bar(self, kind: str, start: datetime, duration_s: float, *, part: bool = False) -> Markup:
        whole_s = max((self.last - self.first).total_seconds(), 1e-6)
        begin = min(max((start - self.first).total_seconds() / whole_s, 0), 1)
        length = min(max(duration_s / whole_s, 0), 1 - begin)
        style = f"--from:{begin * 100:.3f};--for:{length * 100:.3f}"
        return tag("div", class_=f"bar {kind}{' part' if part else ''}", style=style)


def flow_row(flow: Flow, scale: Scale) -> Markup:
    kind = _kind(flow)
    head = tag(
        "summary",
        tag("span", flow.number, class_="number dim"),
        tag("span", str(flow.server), title=str(flow.server)),
        tag("span", _stack(flow), title=_stack(flow)),
        tag("span", outline(flow), class_="bad" if kind == "failed" else None),
        tag("span", f"↑ {size_text(flow.bytes_up)} ↓ {size_text(flow.bytes_down)}"),
        tag("div", _bars(flow, kind, scale), class_="track"),
    )
    return tag("details", head, tag("div", *_detail(flow)), class_="flow")


def table(head: Iterable[str], rows: Iterable[Iterable[Child]]) -> Markup:
    """A table; columns whose heading begins with `#` are numbers."""
    heads = list(head)
    classes = ["number" if each.startswith("#") else None for each in heads]
    cells = [
        tag("th", each.lstrip("#"), class_=kind) for each, kind in zip(heads, classes, strict=True)
    ]
    body = [
        tag("tr", [tag("td", cell, class_=kind) for cell, kind in zip(row, classes, strict=True)])
        for row in rows
    ]
    return tag(
        "div", tag("table", tag("thead", tag("tr", cells)), tag("tbody", body)), class_="scroll"
    )


def size_text(count: int | None) -> str:
    """A number of bytes: `999 B`, `1.2 kB`, `34 MB`."""
    if count is None:
        return ""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.1f} {unit}" if value < 9.95 and unit != "B" else f"{value:.0f} {unit}"
        value /= 1000
    return f"{value:,.1f} TB"


def time_text(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S}.{time.microsecond // 1000:03}"


def _kind(flow: Flow) -> str:
    """Which colour it has."""
    if flow.problems or flow.reason in FAILURES or flow.reason == "blocked":
        return "failed"
    if flow.passthrough:
        return "passthrough"
    return "intercepted" if any(each.action == "intercepted" for each in flow.layers) else "relayed"


def _stack(flow: Flow) -> str:
    return " › ".join(flow.stack) or "–"


def outline(flow: Flow) -> str:
    """The most important of it in a few words."""
    if flow.problems:
        return f"{flow.problems[0].side}: {flow.problems[0].reason}"
    if flow.reason in FAILURES or flow.reason == "blocked":
        return str(flow.reason)
    if flow.passthrough:
        return f"passed through: {flow.passthrough}"
    innermost = max((each.depth for each in flow.exchanges), default=0)
    exchanges = [each for each in flow.exchanges if each.depth == innermost]
    if not exchanges:
        return ""
    first, more = exchanges[0], len(exchanges) - 1
    status = first.response.status if first.response else "–"
    text = f"{status} {first.request.method} {first.request.url}"
    return f"{text} and {more} more" if more else text


def _bars(flow: Flow, kind: str, scale: Scale) -> list[Markup]:
    """The flow, and its exchanges within it."""
    return [
        scale.bar(kind, flow.opened_at, flow.duration_s or 0),
        *(
            scale.bar(kind, each.request.time, each.duration_s or 0, part=True)
            for each in flow.exchanges[:_MAX_EXCHANGES]
        ),
    ]


def _detail(flow: Flow) -> Iterator[Markup]:
    yield tag(
        "p",
        f"{flow.client} to {flow.destination}, {time_text(flow.opened_at)}",
        f", {flow.duration_s:.3f} s" if flow.duration_s is not None else "",
        f", {flow.reason}" if flow.reason else ", open when the file ended",
        class_="dim",
    )
    for problem in flow.problems:
        text = f"{problem.side}, {problem.stage}, {problem.kind}: {problem.reason}"
        yield tag("p", text, class_="bad")
    for layer in flow.layers:
        yield from _layer(layer)
    yield from _some(flow.exchanges, "exchanges", _exchange)
    yield from _some(flow.messages, "messages", _piece)
    yield from _some(flow.data, "pieces of data", _piece)


def _some(items: list[Any], what: str, shown: Any) -> Iterator[Markup]:
    for item in items[:_MAX_EXCHANGES]:
        yield from shown(item)
    if len(items) > _MAX_EXCHANGES:
        yield tag("p", f"{len(items) - _MAX_EXCHANGES:,} more {what} are left out", class_="dim")


def _layer(layer: Layer) -> Iterator[Markup]:
    action = "" if layer.action == "relayed" else f", {layer.action}"
    yield tag("h3", f"{layer.protocol}{action}")
    known = [(name, _fact(value)) for name, value in layer.details.items()]
    facts = [(tag("dt", name), tag("dd", fact)) for name, fact in known if fact]
    if facts:
        yield tag("dl", facts)


def _fact(value: Any) -> Child:
    """A detail as text; nested ones one per line."""
    match value:
        case None | [] | "":
            return None
        case {"host": host, "port": port, **others} if not others:
            return f"{host}:{port}"
        case dict():
            facts = [(name, _fact(each)) for name, each in value.items()]
            return [
                tag("div", tag("span", f"{name}: ", class_="dim"), fact)
                for name, fact in facts
                if fact
            ]
        case bool():
            return "yes" if value else "no"
        case list():
            return ", ".join(map(str, value))
    return str(value)


def _exchange(exchange: Exchange) -> Iterator[Markup]:
    request, response = exchange.request, exchange.response
    yield tag("h3", f"{request.method} {request.url}", class_="mono")
    facts = [
        f"{response.status}" if response else "no response",
        response.content_type if response else None,
        f"↑ {size_text(request.body_bytes)}" if request.body_bytes else None,
        f"↓ {size_text(response.body_bytes)}" if response and response.body_bytes else None,
        f"{exchange.duration_s * 1000:.1f} ms" if exchange.duration_s is not None else None,
        None if exchange.outcome == "complete" else exchange.outcome or "no end was seen",
    ]
    yield tag("p", ", ".join(filter(None, facts)), class_="dim")
    for title, part in (("request", request), ("response", response)):
        if part and part.headers:
            lines = "\n".join(f"{name}: {value}" for name, value in part.headers)
            yield tag("p", f"{title} headers", class_="dim")
            yield block(lines)
        if part and part.body:
            yield from _body(title, part.body)


def _body(title: str, body: Body) -> Iterator[Markup]:
    codings = f", {', '.join(body.encoding)} undone" if body.encoding else ""
    cut = ", cut off" if body.truncated else ""
    yield tag("p", f"{title} body, {size_text(body.size)}{codings}{cut}", class_="dim")
    if body.text is not None:
        yield block(_shortened(_pretty(body.text)))
    elif body.base64:
        yield tag("p", "It is no text.", class_="dim")


def _pretty(text: str) -> str:
    """JSON with indentation; other text as it is."""
    if text[:1] not in ("{", "["):
        return text
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return text


def _shortened(text: str) -> str:
    return text if len(text) <= _MAX_BODY else f"{text[:_MAX_BODY]}…"


def _piece(piece: Any) -> Iterator[Markup]:
    """A message, or a piece of data."""
    arrow = "↑" if piece.direction == "up" else "↓"
    opcode = getattr(piece, "opcode", None) or getattr(piece, "protocol", "data")
    content = piece.content
    size = getattr(piece, "size", len(content or b""))
    yield tag("p", f"{arrow} {opcode}, {size_text(size)}", class_="dim")
    if piece.text is not None:
        yield block(_shortened(_pretty(piece.text)))
