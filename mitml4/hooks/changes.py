"""What a script is told of messages, and what its answers make of them.

An answer is checked before anything is changed. What is the same stays as it came: a field of
HTTP/1 keeps its bytes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, Final

from mitml4.edit.headers import Field, Headers, check_field
from mitml4.edit.messages import Request, Response, Server
from mitml4.hooks.wire import Contents
from mitml4.model import flow as model
from mitml4.regex import regex

__all__ = [
    "an_object",
    "bounded",
    "change_request",
    "change_response",
    "flow_told",
    "request_told",
    "response_told",
]

_MAX_FIELDS: Final = 10_000
_FRAMING: Final = (b"content-length", b"transfer-encoding")
_CONNECTION: Final = (b"connection", b"keep-alive", b"proxy-connection", b"upgrade")
"""Fields that HTTP/2 does not have (RFC 9113 §8.2.2)."""
_TOKEN: Final = regex(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_TARGET: Final = regex(r"[!-~]+")


# --- to a script ---------------------------------------------------------------------------------


def flow_told(flow: model.Flow) -> dict[str, Any]:
    return {
        "number": flow.number,
        "client": [flow.client.ip, flow.client.port],
        "destination": [flow.destination.ip, flow.destination.port],
        "name": flow.name,
        "interface": flow.interface,
        "process": flow.process,
        "container": flow.container,
        "layers": [{"protocol": each.protocol, "details": each.details} for each in flow.layers],
    }


def request_told(request: Request, sent: Contents) -> dict[str, Any]:
    return {
        "method": request.method,
        "scheme": request.scheme,
        "authority": request.authority,
        "target": request.target,
        "version": request.version,
        "stream": request.stream,
        "headers": request.headers.items(),
        "streams": request.streams,
        "length": sent.put(request.body),
    }


def response_told(response: Response, sent: Contents) -> dict[str, Any]:
    return {
        "status": response.status,
        "reason": response.reason,
        "version": response.version,
        "headers": response.headers.items(),
        "streams": response.streams,
        "length": sent.put(response.body),
    }


# --- from a script: all of these raise ValueError -----------------------------------------------


def an_object(found: object) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise ValueError("its answer is nonsense")
    return found


def change_request(request: Request, told: Mapping[str, Any], content: bytes | None) -> list[str]:
    """Change a request. Returns what has changed."""
    method, target = request.method, request.target
    if "line" in told:
        method, target = _line(told["line"])
        if method != request.method and {method, request.method} & {"HEAD", "CONNECT"}:
            raise ValueError(f"{request.method} cannot become {method}")
    server = _server(told["server"]) if "server" in told else None
    if server and request.method == "CONNECT":
        raise ValueError("a request with CONNECT cannot be sent elsewhere")
    _check_content(request, content)
    changed = _set_headers(request, told.get("headers"))
    line = [
        *(["method"] if method != request.method else []),
        *(["server"] if server else []),
        *(["target"] if target != request.target else []),
    ]
    request.method, request.target = method, target
    request.server = server or request.server
    if content is not None:
        request.body = content
    return [*line, *changed, *_named(content)]


def change_response(
    request: Request,
    response: Response,
    told: Mapping[str, Any],
    content: bytes | None,
    *,
    is_ours: bool = False,
) -> list[str]:
    """Change the response to a request. `is_ours`: it answers instead of the server. Returns what
    has changed."""
    status, reason = response.status, response.reason
    if "line" in told:
        status, reason = _status(told["line"])
        if not is_ours and {status, response.status} & {204, 304} and status != response.status:
            raise ValueError(f"status {response.status} cannot become {status}")
        if status != response.status and reason == response.reason:
            reason = None
    is_bodiless = request.method == "HEAD" or status in (204, 304)
    if content and not is_ours and is_bodiless:
        raise ValueError("this response has no content")
    _check_content(response, content)
    changed = _set_headers(response, told.get("headers"), is_ours=is_ours)
    response.status, response.reason = status, reason
    if content is not None:
        response.body = content
    return [*(["status"] if "line" in told else []), *changed, *_named(content)]


def bounded(content: bytes | None, limit: int) -> bytes | None:
    if content is not None and len(content) > limit:
        raise ValueError(f"content above {limit} bytes (--edit-limit)")
    return content


def _check_content(message: Request | Response, content: bytes | None) -> None:
    if content is not None and message.streams:
        raise ValueError("the content is not held")


def _named(content: bytes | None) -> list[str]:
    return [] if content is None else ["content"]


def _line(said: object) -> tuple[str, str]:
    match said:
        case [str(method), str(target)]:
            if _TOKEN.fullmatch(method) and _TARGET.fullmatch(target):
                return method, target
    raise ValueError("no request line")


def _status(said: object) -> tuple[int, str | None]:
    match said:
        case [int(status), None]:
            reason = None
        case [int(status), str(reason)] if reason.isprintable() and reason.isascii():
            pass
        case _:
            raise ValueError("no status line")
    if not 200 <= status <= 599:
        raise ValueError(f"{status} is no status of a final response")
    return status, reason


def _server(said: object) -> Server:
    match said:
        case ["http" | "https" as scheme, str(host), int(port)] if 0 < port < 65536:
            if _TARGET.fullmatch(host) and not set(host) & set("/?#@"):
                return Server(scheme, host, port)
    raise ValueError("no server that a request could be sent to")


def _set_headers(message: Request | Response, said: object, *, is_ours: bool = False) -> list[str]:
    """Set the fields of a message. Those that are the same stay as they came. How the content ends
    is not the script's to say, nor what HTTP/2 has no fields for."""
    if said is None:
        return []
    if not isinstance(said, list) or len(said) > _MAX_FIELDS:
        raise ValueError("no header fields")
    old = list(message.headers.fields)
    framing = [] if is_ours else [each for each in old if each.name.lower() in _FRAMING]
    same: dict[tuple[bytes, bytes], deque[Field]] = {}
    for each in old:
        same.setdefault((each.name, each.value), deque()).append(each)
    sensitive = {each.name.lower() for each in old if each.is_sensitive}
    fields: list[Field] = []
    for pair in said:
        name, value = _field(pair)
        if name.lower() in _FRAMING:
            if framing:
                fields.append(framing.pop(0))
        elif kept := same.get((name, value)):
            fields.append(kept.popleft())
        else:
            check_field(name, value)
            if name.startswith(b":") or (
                message.version == "HTTP/2" and name.lower() in _CONNECTION
            ):
                raise ValueError(f"{name.decode()} cannot be a header field here")
            fields.append(Field(name, value, is_sensitive=name.lower() in sensitive))
    fields += framing
    if fields == old:
        return []
    message.headers = Headers(fields)
    message.headers.is_changed = True
    return ["headers"]


def _field(said: object) -> tuple[bytes, bytes]:
    match said:
        case [str(name), str(value)]:
            return name.encode("latin-1"), value.encode("latin-1")
    raise ValueError("no header field")
