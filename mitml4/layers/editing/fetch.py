"""Requests of HTTP/2 that a rule sends to another server: over HTTP/1, whole."""

from __future__ import annotations

import errno
from typing import Final

from mitml4.edit.headers import Headers
from mitml4.edit.http1 import BodyReader, head_length, read_response
from mitml4.edit.messages import Request, Response
from mitml4.errors import ProtocolError
from mitml4.layers.editing.flow import FlowEditing
from mitml4.layers.editing.reader import Reader, send

__all__ = ["bad_gateway", "fetch", "misdirected"]

_OF_CONNECTION: Final = (
    "connection",
    "keep-alive",
    "proxy-connection",
    "transfer-encoding",
    "upgrade",
    "te",
)
"""Fields that HTTP/2 has not (RFC 9113 §8.2.2)."""
_WITH_BODY: Final = ("POST", "PUT", "PATCH")


def bad_gateway(text: str) -> Response:
    """The answer where another server gives none."""
    return _plain(502, text)


def misdirected(text: str) -> Response:
    """The answer to a request for a host that is not allowed (RFC 9110 §15.5.20)."""
    return _plain(421, text)


def _plain(status: int, text: str) -> Response:
    plain = Headers.of([("Content-Type", "text/plain; charset=utf-8")])
    return Response(status=status, headers=plain, body=f"mitml4: {text}\n".encode())


async def fetch(editing: FlowEditing, request: Request, body: bytes) -> Response:
    """Send a request to `request.server`. Its response has its body as it was sent, coded as it
    is."""
    assert request.server
    authority = request.server.authority
    try:
        stream = await editing.connect(request.server)
    except OSError as error:
        return bad_gateway(f"{authority}: {error.strerror or error}")
    try:
        await send(stream, _head(request, len(body)) + body, request.rate)
        return await _response(Reader(stream), request.method, editing.limit)
    except OSError as error:
        return bad_gateway(f"{authority}: {error.strerror or error}")
    except ProtocolError as error:
        return bad_gateway(f"{authority}: {error.message}")
    finally:
        stream.close()


def _head(request: Request, length: int) -> bytes:
    assert request.server
    target = request.server.prefix + request.path
    lines = [f"{request.method} {target} HTTP/1.1", f"Host: {request.server.authority}"]
    for name, value in request.headers.items():
        if name.lower() not in ("host", "content-length", *_OF_CONNECTION):
            lines.append(f"{name}: {value}")
    if length or request.method in _WITH_BODY:
        lines.append(f"Content-Length: {length}")
    return "\r\n".join([*lines, "Connection: close", "\r\n"]).encode("latin-1")


async def _response(server: Reader, method: str, limit: int) -> Response:
    """Raises OSError, ProtocolError."""
    while True:
        while not (length := head_length(server.data)):
            if not await server.more():
                raise OSError(errno.ECONNRESET, "the server has ended without an answer")
        head, response = read_response(server.take(length), method)
        if response.status >= 200:
            break
    reader, body = BodyReader(head.part, head.length), bytearray()
    while not reader.is_done:
        taken, pieces = reader.feed(server.data)
        server.take(taken)
        body += b"".join(pieces)
        if len(body) > limit:
            raise OSError(errno.EFBIG, f"a response above {limit} bytes")
        if not reader.is_done and not await server.more() and not reader.end():
            raise OSError(errno.ECONNRESET, "the server has ended within its answer")
    for name in _OF_CONNECTION:
        response.headers.discard(name)
    response.body = bytes(body)
    return response
