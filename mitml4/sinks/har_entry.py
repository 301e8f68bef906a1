"""An HTTP exchange as an entry of an HTTP archive.

Names that begin with `_` are extensions; of these, `_webSocketMessages`, `_resourceType` and
`_connectionId` are those of Chromium's developer tools. Times are in milliseconds.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterator
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any, Final

from mitml4.protocols.conversation import Direction
from mitml4.protocols.http.events import GrpcMessage, HttpBody, HttpResponse, Pairs
from mitml4.protocols.http.websocket import WebSocketMessage
from mitml4.sinks.har_cookies import request_cookies, response_cookies
from mitml4.sinks.har_exchange import Exchange, values
from mitml4.sinks.har_forms import form_parameters, query_parameters

__all__ = ["entry_of"]

_OPCODES: Final = {"text": 1, "binary": 2, "close": 8, "ping": 9, "pong": 10}
"""RFC 6455 §5.2"""
_UNKNOWN: Final = -1


def entry_of(exchange: Exchange) -> dict[str, Any]:
    timings = _timings(exchange)
    entry: dict[str, Any] = {
        "startedDateTime": exchange.began_at - timedelta(seconds=exchange.connect_s or 0),
        "time": _total(timings),
        "request": _request(exchange),
        "response": _response(exchange),
        "cache": {},
        "timings": timings,
        "connection": str(exchange.flow.flow),
        "_connectionId": str(exchange.flow.flow),
        "_client": exchange.flow.client,
        "_stack": exchange.stack,
        "_stream": exchange.request.stream,
    }
    if process := exchange.flow.process:
        entry["_process"] = process
    if exchange.flow.container is not None:
        entry["_container"] = exchange.flow.container
    if not exchange.is_through_proxy:
        entry["serverIPAddress"] = exchange.flow.destination.ip
    if exchange.is_websocket:
        entry["_resourceType"] = "websocket"
    if exchange.socket_messages:
        entry["_webSocketMessages"] = [_socket_message(*each) for each in exchange.socket_messages]
    if exchange.grpc_messages:
        entry["_grpcMessages"] = [_grpc_message(*each) for each in exchange.grpc_messages]
    if comment := "; ".join(_comments(exchange)):
        entry["comment"] = comment
    return entry


def _timings(exchange: Exchange) -> dict[str, float]:
    """The parts of the time that an exchange took. Where it was answered before its request was
    complete, all of that time is spent on sending."""
    end = exchange.end
    began_at, answered_at = exchange.began_at, exchange.answered_at
    answered_s = (answered_at - began_at).total_seconds() if answered_at else 0.0
    total_s = max(end.duration_s if end else answered_s, 0.0)
    answered_s = min(max(answered_s, 0.0), total_s)
    sent_s = min((end and end.request_s) or 0.0, total_s)
    return {
        "blocked": _UNKNOWN,
        "dns": _UNKNOWN,
        "connect": _milliseconds(exchange.connect_s),
        "ssl": _milliseconds(exchange.tls_s),
        "send": _milliseconds(sent_s),
        "wait": _milliseconds(max(answered_s - sent_s, 0.0)),
        "receive": _milliseconds(total_s - max(answered_s, sent_s)),
    }


def _total(timings: dict[str, float]) -> float:
    """ssl is a part of connect."""
    parts = (timings[name] for name in ("connect", "send", "wait", "receive"))
    return round(sum(part for part in parts if part != _UNKNOWN), 3)


def _milliseconds(seconds: float | None) -> float:
    return _UNKNOWN if seconds is None else round(seconds * 1000, 3)


def _comments(exchange: Exchange) -> Iterator[str]:
    end = exchange.end
    if end is None:
        yield "its end was not seen"
    elif end.outcome == "reset":
        yield f"the stream was reset: {end.reset_code or 'no code'}"
    elif end.outcome == "cut":
        yield "the connection ended before the exchange"
    if exchange.left_out:
        one = exchange.left_out == 1
        what = "1 body or message is" if one else f"{exchange.left_out} bodies or messages are"
        yield f"{what} left out for want of memory"


def _request(exchange: Exchange) -> dict[str, Any]:
    request, end = exchange.request, exchange.end
    found: dict[str, Any] = {
        "method": request.method,
        "url": request.url,
        "httpVersion": request.version,
        "cookies": request_cookies(request.headers),
        "headers": _named(request.headers),
        "queryString": query_parameters(request.url),
        "headersSize": _UNKNOWN,
        "bodySize": end.request_bytes if end else _UNKNOWN,
    }
    if exchange.request_body:
        found["postData"] = _post_data(exchange.request_body, request.content_type or "")
    if end and end.request_trailers:
        found["_trailers"] = _named(end.request_trailers)
    return found


def _post_data(body: HttpBody, content_type: str) -> dict[str, Any]:
    """As of browsers, which have both the parameters and the text of a form. HAR knows no base64
    here."""
    text = body.text
    content = b64decode(body.base64 or "") if text is None else text.encode("utf-8", "replace")
    found: dict[str, Any] = {"mimeType": content_type}
    if parameters := form_parameters(content_type, content):
        found["params"] = parameters
    if text is None:
        return found | {"text": body.base64, "_encoding": "base64"} | _comment(body)
    return found | {"text": text} | _comment(body)


def _response(exchange: Exchange) -> dict[str, Any]:
    """Without a response the status is 0, as in browsers' archives."""
    response, end = exchange.response, exchange.end
    headers = response.headers if response else None
    found = {
        "status": response.status if response else 0,
        "statusText": _phrase(response.status) if response else "",
        "httpVersion": response.version if response else "",
        "cookies": response_cookies(headers, exchange.answered_at),
        "headers": _named(headers),
        "content": _content(response, exchange.response_body, end.response_bytes if end else 0),
        "redirectURL": next(iter(values(headers, "location")), ""),
        "headersSize": _UNKNOWN,
        "bodySize": end.response_bytes if end else _UNKNOWN,
    }
    if end and end.trailers:
        found["_trailers"] = _named(end.trailers)
    return found


def _content(response: HttpResponse | None, body: HttpBody | None, sent: int) -> dict[str, Any]:
    """`size` is that of the decoded body where it is known, otherwise as sent."""
    found: dict[str, Any] = {"size": sent, "mimeType": (response and response.content_type) or ""}
    if body is None:
        return found
    if body.decoded_size is not None:
        found["size"] = body.decoded_size
        if body.encoding:
            found["compression"] = body.decoded_size - body.size
    if body.text is None:
        found |= {"text": body.base64, "encoding": "base64"}
    else:
        found["text"] = body.text
    return found | _comment(body)


def _comment(body: HttpBody) -> dict[str, str]:
    """Where the body is not shown as a whole, or not decoded."""
    said = ["truncated"] if body.truncated else []
    said += [body.coding_error] if body.coding_error else []
    return {"comment": "; ".join(said)} if said else {}


def _socket_message(time: datetime, message: WebSocketMessage) -> dict[str, Any]:
    found = {
        "type": _sender(message.direction),
        "time": round(time.timestamp(), 6),
        "opcode": _OPCODES[message.opcode],
        "data": message.base64 if message.text is None else message.text,
    }
    return found | ({"_encoding": "base64"} if message.text is None else {}) | _flags(message)


def _grpc_message(time: datetime, message: GrpcMessage) -> dict[str, Any]:
    """In the same form; the data is in base64."""
    return {
        "type": _sender(message.direction),
        "time": round(time.timestamp(), 6),
        "compressed": message.compressed,
        "data": message.base64,
    } | _flags(message)


def _flags(message: WebSocketMessage | GrpcMessage) -> dict[str, Any]:
    return {"_truncated": True, "_size": message.size} if message.truncated else {}


def _sender(direction: Direction) -> str:
    return "send" if direction is Direction.UP else "receive"


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _named(pairs: Pairs | None) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in pairs or ()]
