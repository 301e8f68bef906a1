"""One flow, as lines: its layers with their details, then what was said in it, by time."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import chain, groupby, zip_longest
from operator import itemgetter
from typing import Any, Final, NamedTuple

from rich.cells import cell_len, get_character_cell_size

from mitml4.model.content import shown
from mitml4.model.flow import Body, Data, Exchange, Flow, Headers, Layer, Message, Request
from mitml4.printable import printable
from mitml4.screen.columns import fit, join_stack, short_size

__all__ = ["REQUESTS", "Detail", "DetailLine", "detail", "exchange_at", "next_request"]

REQUESTS: Final = {b"n": 1, b"N": -1}
"""Keys, and the direction in which they go from request to request."""
_MAX_LINES: Final = 2000
"""Of one body, message or direction."""
_ARROWS: Final = {"up": "↑", "down": "↓"}
_CERTIFICATE: Final = "certificate"
_MIRRORED: Final = ("mirrored", "not_mirrored")
_FOREMOST: Final = ("passthrough", "sni", "version", "alpn", "cipher")
"""Details of a layer that stand above its certificates; the others stand below."""
_LABEL: Final = 14
_BY_US: Final = "mitml4"
_NO_PROPERTY: Final = "verify"
"""Of the certificate that the server sent: a result, which no other certificate has."""


class DetailLine(NamedTuple):
    """Text that fits into the width, the name of its style, and the exchange that it belongs to."""

    text: str
    style: str = ""
    exchange: Exchange | None = None
    is_first: bool = False
    """Whether it is the first line of its exchange."""


_Part = tuple[Hashable, Iterator[DetailLine]]
"""Lines, and what they depend on."""


class Detail:
    """The lines of a flow, of which only those are made again that have changed."""

    def __init__(self) -> None:
        self._flow: Flow | None = None
        self._width = 0
        self._parts: dict[Hashable, list[DetailLine]] = {}
        """By the identities of what they show, which are its own while the flow is held."""
        self._state: Hashable = None
        self._lines: list[DetailLine] = []

    def lines(
        self,
        flow: Flow,
        width: int,
        *,
        version: Hashable = None,
        moved: tuple[int, int] | None = None,
        missing: int = 0,
    ) -> list[DetailLine]:
        """All lines of a flow, for a width in cells. Everything from the network is printable.

        The first line is the title. `version` is another value when the flow has changed. `moved`
        are the bytes in both directions of a flow that is still open. `missing` is the number of
        its events that were forgotten.
        """
        if self._flow is not flow or self._width != width:
            self._flow, self._width, self._parts, self._state = flow, width, {}, None
        if self._state == (state := (version, moved, missing)) and version is not None:
            return self._lines
        parts: dict[Hashable, list[DetailLine]] = {}
        for key, made in _said(flow):
            known = self._parts.get(key)
            parts[key] = known if known is not None else list(_wrapped_lines(made, width))
        top = list(_wrapped_lines(_head(flow, width, moved, missing), width))
        title = printable(f"#{flow.number}  {flow.server}  {join_stack(flow.stack)}")
        self._lines = [DetailLine(fit(title, width), "title"), *top]
        self._lines += chain.from_iterable(parts.values())
        self._parts, self._state = parts, state
        return self._lines


def detail(flow: Flow, width: int) -> list[DetailLine]:
    """All lines of a flow that does not change any more: see `Detail.lines`."""
    return Detail().lines(flow, width)


def _wrapped_lines(lines: Iterable[DetailLine], width: int) -> Iterator[DetailLine]:
    for line in lines:
        for at, text in enumerate(_wrapped(printable(line.text), max(width, 20))):
            yield line._replace(text=text, is_first=line.is_first and not at)


def _head(
    flow: Flow, width: int, moved: tuple[int, int] | None, missing: int
) -> Iterator[DetailLine]:
    yield from _summary(flow, moved)
    for layer in flow.layers:
        yield DetailLine("")
        yield from _layer(layer, width)
    if len(flow.exchanges) > 1:
        yield DetailLine("")
        yield from _requests(flow.exchanges)
    if missing:
        yield DetailLine("")
        yield DetailLine(f"{missing} earlier events are not kept here; -o writes them", "closed")


def _said(flow: Flow) -> Iterator[_Part]:
    """What was said, in the order in which it began. Data of one direction belong together."""
    parts = [
        *((exchange.request.time, _of_exchange(exchange)) for exchange in flow.exchanges),
        *((message.time, (id(message), _message(message))) for message in flow.messages),
    ]
    for (_, direction), group in groupby(flow.data, lambda data: (data.depth, data.direction)):
        pieces = list(group)
        key = id(pieces[0]), len(pieces)
        parts.append((pieces[0].time, (key, _data(direction, pieces))))
    parts.sort(key=itemgetter(0))
    yield from (part for _, part in parts)


def _of_exchange(exchange: Exchange) -> _Part:
    response = exchange.response
    key = (
        *(id(exchange), exchange.outcome, id(response), id(exchange.request.body)),
        *(id(response.body) if response else None, len(exchange.informational)),
    )
    return key, _exchange(exchange)


def _requests(exchanges: list[Exchange]) -> Iterator[DetailLine]:
    """A line for each request."""
    yield DetailLine(f"{len(exchanges)} requests", "name")
    for exchange in exchanges:
        request, response = exchange.request, exchange.response
        status = f"{response.status}" if response else "–"
        size = response.body_bytes if response else None
        columns = (
            f"{exchange.stream:>4}",
            f"{status:>3}",
            f"{'' if size is None else short_size(size):>4}",
            f"{'' if exchange.duration_s is None else _seconds(exchange.duration_s):>8}",
        )
        is_bad = exchange.outcome not in (None, "complete") or (response and response.status >= 500)
        style = "failed" if is_bad else ""
        yield DetailLine("  ".join((*columns, f"{request.method} {request.url}")), style)


def _seconds(duration: float) -> str:
    """In at most eight characters, for less than a quarter of an hour."""
    if duration < 0.9995:
        return f"{duration * 1000:.3g} ms"
    return f"{duration:.3g} s" if duration < 999.5 else f"{duration:.0f} s"


def _summary(flow: Flow, moved: tuple[int, int] | None) -> Iterator[DetailLine]:
    where = f" by {flow.interface}" if flow.interface else ""
    yield DetailLine(f"{flow.client} to {flow.destination}{where}")
    state = "open" if flow.reason is None else flow.reason
    lasted = f", {_seconds(flow.duration_s)}" if flow.duration_s is not None else ""
    up, down = moved if moved and flow.is_open else (flow.bytes_up, flow.bytes_down)
    yield DetailLine(
        f"{_clock(flow.opened_at)}  {state}{lasted}  ↑ {short_size(up)} ↓ {short_size(down)}"
    )
    if flow.process:
        yield DetailLine("  ".join(f"{name}: {value}" for name, value in flow.process.items()))
    if flow.passthrough:
        yield DetailLine(f"TLS was passed through: {flow.passthrough}", "passed")
    for problem in flow.problems:
        what = f"{problem.side}, {problem.stage}: {problem.reason} ({problem.kind})"
        yield DetailLine(what, "failed")
    for probe in flow.probes:
        yield DetailLine(probe.text, "failed" if probe.is_finding else "name")
    for text, count in Counter(edit.text for edit in flow.edits).items():
        yield DetailLine(f"{text}{f', {count} times' if count > 1 else ''}", "name")


def _layer(layer: Layer, width: int) -> Iterator[DetailLine]:
    yield DetailLine(f"{layer.protocol}  {layer.action}, the {layer.speaker} began", "name")
    certificate = layer.details.get(_CERTIFICATE)
    hidden = (_CERTIFICATE, *_MIRRORED) if isinstance(certificate, Mapping) else ()
    details = {name: value for name, value in layer.details.items() if name not in hidden}
    for name in _FOREMOST:
        yield from _detail(name, details.pop(name, None))
    if isinstance(certificate, Mapping):
        yield from _certificates(layer, certificate, width)
    for name, value in details.items():
        yield from _detail(name, value)


def _detail(name: str, value: Any) -> Iterator[DetailLine]:
    """Nothing, for what is unknown, empty or false."""
    if value is None or value is False or value in ([], {}):
        return
    if isinstance(value, Mapping):
        for inner, inside in value.items():
            yield from _detail(f"{name}.{inner}", inside)
        return
    yield DetailLine(f"  {name}: {_value_text(value)}")


def _value_text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return "yes" if value is True else str(value)


def _certificates(layer: Layer, certificate: Mapping[str, Any], width: int) -> Iterator[DetailLine]:
    """The server's certificate, and beside it the one that the client was shown. In a capture
    there is only one."""
    mirrored = layer.details.get("mirrored")
    if not isinstance(mirrored, list | tuple):  # in a file from somebody else
        mirrored = ()
    is_ours = any(layer.details.get(name) for name in _MIRRORED)
    is_shown = layer.action == "intercepted" and is_ours
    heads = ("of the server", "shown to the client" if is_shown else "")
    yield from _side_by_side("certificate", *heads, width, "closed")
    for name, value in certificate.items():
        text = _value_text(value)
        other = _BY_US if name == "issuer" else "" if name == _NO_PROPERTY else "differs"
        like = text if name in mirrored else other
        yield from _side_by_side(name, text, like if is_shown else "", width)
    if missing := layer.details.get("not_mirrored"):
        yield DetailLine(f"  not mirrored: {_value_text(missing)}")


def _side_by_side(
    name: str, left: str, right: str, width: int, style: str = ""
) -> Iterator[DetailLine]:
    column = max(12, (width - _LABEL - 6) // 2)
    texts = (_wrapped_words(printable(text), column) for text in (left, right))
    for at, (first, second) in enumerate(zip_longest(*texts, fillvalue="")):
        line = f"  {'' if at else name:<{_LABEL}}  {fit(first, column)}  {second}"
        yield DetailLine(line.rstrip(), style)


def _exchange(exchange: Exchange) -> Iterator[DetailLine]:
    yield DetailLine("", exchange=exchange)
    for at, line in enumerate(_exchange_lines(exchange)):
        yield line._replace(exchange=exchange, is_first=at == 0)


def _exchange_lines(exchange: Exchange) -> Iterator[DetailLine]:
    request, response = exchange.request, exchange.response
    head = f"{exchange.stream}  {request.method} {request.url}  {_clock(request.time)}"
    yield DetailLine(head, "name")
    yield from _message_part(request.headers, request.body, request.content_type)
    for early in exchange.informational:
        yield DetailLine(f"{early.status}", "closed")
    if response is None:
        yield DetailLine("no response" if exchange.ended else "no response yet", "closed")
    else:
        size = "" if response.body_bytes is None else f"  {short_size(response.body_bytes)}B"
        took = "" if exchange.duration_s is None else f"  {_seconds(exchange.duration_s)}"
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
        head = DetailLine("    ", "closed")
        yield from _content(body, body.content, content_type, head, _undone(body))


def _undone(part: Body | Message) -> str:
    return f", {', '.join(part.encoding)} undone" if part.encoding else ""


def _content(
    part: Body | Message | Data,
    content: bytes,
    content_type: str | None,
    head: DetailLine,
    more: str = "",
) -> Iterator[DetailLine]:
    """`head` and what the content is, and its lines."""
    kind, lines = shown(content, content_type, is_cut=part.truncated)
    cut = ", cut" if part.truncated else ""
    yield head._replace(text=f"{head.text}[{kind}, {len(content)} bytes{more}{cut}]")
    yield from _bounded(lines)


def _bounded(lines: list[str]) -> Iterator[DetailLine]:
    for line in lines[:_MAX_LINES]:
        yield DetailLine(f"    {line}")
    if len(lines) > _MAX_LINES:
        yield DetailLine(f"    … {len(lines) - _MAX_LINES} more lines", "closed")


def _message(message: Message) -> Iterator[DetailLine]:
    """A message. A close has a code and a reason (RFC 6455 §5.5.1)."""
    what = message.opcode or message.protocol
    on = "" if message.stream is None else f" on {message.stream}"
    text = f"{_ARROWS[message.direction]} {what}{on}, {message.size} bytes  {_clock(message.time)}"
    head = DetailLine(text, "name")
    yield DetailLine("")
    if message.opcode == "close" and message.content and len(message.content) > 1:
        code, reason = message.content[:2], message.content[2:].decode("utf-8", "replace")
        yield head._replace(text=f"{text}  {int.from_bytes(code, 'big')} {reason}".rstrip())
    elif message.content:
        head = head._replace(text=f"{text}  ")
        yield from _content(message, message.content, message.protocol, head, _undone(message))
    else:
        yield head


def _data(direction: str, pieces: list[Data]) -> Iterator[DetailLine]:
    content = b"".join(piece.content or b"" for piece in pieces)
    yield DetailLine("")
    head = f"{_ARROWS[direction]} {direction}  {_clock(pieces[0].time)}  "
    yield from _content(pieces[-1], content, None, DetailLine(head, "name"))


def _clock(time: datetime) -> str:
    with suppress(OverflowError):  # the first and the last day of the calendar stay in UTC
        time = time.astimezone()
    return f"{time:%H:%M:%S.%f}"[:-3]


def _wrapped(text: str, width: int) -> list[str]:
    """The text in pieces that fit; later pieces are indented like the first."""
    rest = text.lstrip()
    indent = " " * min(len(text) - len(rest), width // 2)
    room = width - len(indent)
    if text.isascii():  # and printable: each character takes one cell
        if len(text) <= width:
            return [text]
        return [indent + rest[at : at + room] for at in range(0, len(rest), room)] or [""]
    return [indent + piece for piece in _pieces(rest, room)]


def _wrapped_words(text: str, width: int) -> list[str]:
    """The same, broken at blanks where possible."""
    lines = [""]
    for word in text.split(" "):
        if lines[-1] and cell_len(lines[-1]) + 1 + cell_len(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines += _wrapped(word, width)
    return lines[1:]


def _pieces(text: str, room: int) -> Iterator[str]:
    start = used = 0
    for at, char in enumerate(text):
        cells = get_character_cell_size(char)
        if used + cells > room and at > start:
            yield text[start:at]
            start, used = at, 0
        used += cells
    yield text[start:]


def exchange_at(lines: list[DetailLine], top: int) -> Request | None:
    """The request at a line, or the next one after it; the last one if there is none."""
    places = chain(range(top, len(lines)), range(min(top, len(lines)) - 1, -1, -1))
    found = next((exchange for at in places if (exchange := lines[at].exchange)), None)
    return found.request if found else None


def next_request(starts: Sequence[int], top: int, step: int) -> int:
    """The first line of the next request, or with a negative step of the one before; `top` if
    there is none."""
    at = bisect_right(starts, top) if step > 0 else bisect_left(starts, top) - 1
    return starts[at] if 0 <= at < len(starts) else top
