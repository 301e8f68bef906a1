"""A flow as the objects of its events: what FlowBuilder makes flows of, the other way round."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from heapq import merge
from typing import Any, TypeAlias

from mitml4.events import VERSION
from mitml4.model.flow import Body, Data, Exchange, Flow, Layer, Message, Problem, Response

__all__ = ["objects_of"]

_Timed: TypeAlias = tuple[datetime, dict[str, Any]]


def objects_of(flow: Flow) -> Iterator[dict[str, Any]]:
    """The events of a flow in the order of their times, as docs/events.md describes them.

    FlowBuilder makes the same flow of them. The times of `http.body` and `http.end` are computed
    from the durations. Fields that the model lacks, which a later version may have written, are
    missing.
    """
    number = flow.number
    yield _object("flow.open", flow.opened_at, number, _opening(flow))
    chains: list[Iterable[_Timed]] = [
        map(_layer, flow.layers),
        *map(_exchange, flow.exchanges),
        map(_message, flow.messages),
        map(_data, flow.data),
        ((each.time, {"type": each.type, "depth": each.depth, **each.details})
         for each in flow.others),
        map(_problem, flow.problems),
    ]  # fmt: skip
    for time, said in merge(*chains, key=_time_of):
        yield _object(said.pop("type"), time, number, said)
    if flow.reason is not None:
        yield _object("flow.close", flow.closed_at or flow.opened_at, number, _closing(flow))


def _time_of(timed: _Timed) -> datetime:
    return timed[0]


def _object(kind: str, time: datetime, flow: int, said: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": kind, "time": time, "v": VERSION, "flow": flow, **said}


def _opening(flow: Flow) -> dict[str, Any]:
    return {
        "transport": flow.transport,
        "client": flow.client,
        "destination": flow.destination,
        "interface": flow.interface,
        "name": flow.name,
        "side": flow.side,
        "session_flow": flow.session_flow,
        "container": flow.container,
        "process": flow.process,
    }


def _closing(flow: Flow) -> dict[str, Any]:
    return {
        "stack": flow.stack,
        "reason": flow.reason,
        "bytes_up": flow.bytes_up,
        "bytes_down": flow.bytes_down,
        "duration_s": flow.duration_s or 0.0,
    }


def _layer(layer: Layer) -> _Timed:
    said = asdict(layer)
    said["details"] = said["details"] or None
    return said.pop("time"), {"type": "flow.layer", **said}


def _problem(problem: Problem) -> _Timed:
    said = asdict(problem)
    return said.pop("time"), {"type": "flow.error", **said}


def _exchange(exchange: Exchange) -> Iterator[_Timed]:
    request, response = exchange.request, exchange.response
    where = {"depth": exchange.depth, "stream": exchange.stream}
    yield (
        request.time,
        {
            "type": "http.request",
            **where,
            "method": request.method,
            "url": request.url,
            "version": request.version,
            "content_type": request.content_type,
            "headers": request.headers,
        },
    )
    sent_at = _after(request.time, exchange.request_s)
    ended_at = _after(request.time, exchange.duration_s)
    if request.body:
        yield sent_at, {"type": "http.body", **where, **_body("request", request.body)}
    for each in (*exchange.informational, *([response] if response else [])):
        yield each.time, {"type": "http.response", **where, **_head(each)}
    if response and response.body:
        yield ended_at, {"type": "http.body", **where, **_body("response", response.body)}
    if exchange.ended:
        yield ended_at, {"type": "http.end", **where, **_end(exchange)}


def _after(time: datetime, duration_s: float | None) -> datetime:
    try:
        return time + timedelta(seconds=duration_s or 0.0)
    except OverflowError:
        return time


def _head(response: Response) -> dict[str, Any]:
    return {
        "status": response.status,
        "version": response.version,
        "content_type": response.content_type,
        "headers": response.headers,
    }


def _end(exchange: Exchange) -> dict[str, Any]:
    request, response = exchange.request, exchange.response
    return {
        "request_bytes": request.body_bytes or 0,
        "response_bytes": (response.body_bytes if response else None) or 0,
        "duration_s": exchange.duration_s or 0.0,
        "outcome": exchange.outcome,
        "reset_code": exchange.reset_code,
        "request_trailers": request.trailers,
        "trailers": response.trailers if response else None,
        "request_s": exchange.request_s,
    }


def _body(side: str, body: Body) -> dict[str, Any]:
    return {"side": side, **asdict(body)}


def _message(message: Message) -> _Timed:
    said = asdict(message)
    kind, time = f"{said.pop('protocol')}.message", said.pop("time")
    others: tuple[str, ...] = ("opcode", "text")
    if message.protocol == "websocket":
        others = ("compressed", "decoded_size", "encoding")
        if message.content is None:
            said["truncated"] = None
    for name in others:
        del said[name]
    return time, {"type": kind, **said}


def _data(data: Data) -> _Timed:
    said = asdict(data)
    return said.pop("time"), {"type": "flow.data", **said}
