"""Header blocks of HTTP/2 as messages, and messages as header blocks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from hpack import Encoder, HeaderTuple, NeverIndexedHeaderTuple

from mitml4.edit.headers import Field, Headers
from mitml4.edit.http2.state import OUR_TABLE, Block, Half
from mitml4.edit.messages import Request, Response
from mitml4.errors import ProtocolError

__all__ = [
    "changed_fields",
    "fields_of",
    "fresh_encoder",
    "half_headers",
    "request_of",
    "response_of",
]

_OF_HTTP_1: Final = (b"connection", b"keep-alive", b"proxy-connection", b"upgrade")
"""§8.2.2: a message with one of these is malformed."""


def half_headers(half: Half) -> Headers:
    """The fields of a head as it came."""
    return Headers(fields_of(half.head.headers)) if half.head else Headers()


def fields_of(headers: Iterable[HeaderTuple]) -> list[Field]:
    return [
        Field(bytes(each[0]), bytes(each[1]), is_sensitive=not each.indexable)
        for each in headers
        if not each[0].startswith(b":")
    ]


def request_of(number: int, block: Block) -> Request:
    named = {bytes(name): bytes(value).decode("latin-1") for name, value in block.headers}
    return Request(
        method=named.get(b":method", ""),
        scheme=named.get(b":scheme", "https"),
        authority=named.get(b":authority") or named.get(b"host", ""),
        target=named.get(b":path", ""),
        version="HTTP/2",
        headers=Headers(fields_of(block.headers)),
        stream=number,
    )


def response_of(block: Block) -> Response:
    status = dict(block.headers).get(b":status", b"")
    if not (status.isdigit() and len(status) == 3):
        raise ProtocolError("HTTP/2: a response without a status")
    return Response(version="HTTP/2", headers=Headers(fields_of(block.headers)), status=int(status))


def changed_fields(block: Block, message: Request | Response) -> list[HeaderTuple] | None:
    """The fields of a changed head; None: it is as it came."""
    if isinstance(message, Request):
        line = {b":method": message.method, b":path": message.target}
    else:
        line = {b":status": str(message.status)}
    came = [each for each in block.headers if each[0].startswith(b":")]
    pseudo = [
        each
        if (wanted := line.get(bytes(each[0]))) is None or wanted.encode("latin-1") == each[1]
        else type(each)(each[0], wanted.encode("latin-1"))
        for each in came
    ]
    if pseudo == came and not message.headers.is_changed:
        return None
    fields = [each for each in message.headers.fields if each.name.lower() not in _OF_HTTP_1]
    host = next((each.value for each in fields if each.name.lower() == b"host"), None)
    named = [bytes(name) for name, _ in pseudo]
    if host is not None and b":authority" in named:  # they have to be the same (§8.3.1)
        pseudo[named.index(b":authority")] = HeaderTuple(b":authority", host)
        if all(name != b"host" for name, _ in block.headers):
            fields = [each for each in fields if each.name.lower() != b"host"]
    return [*pseudo, *map(_tuple, fields)]


def _tuple(each: Field) -> HeaderTuple:
    kind = NeverIndexedHeaderTuple if each.is_sensitive else HeaderTuple
    return kind(each.name.lower(), each.value)


def fresh_encoder(limit: int) -> Encoder:
    """An encoder whose first block empties the receiver's table."""
    encoder = Encoder()
    size = min(OUR_TABLE, limit)
    encoder.header_table_size = size
    encoder.table_size_changes = [0, size]
    encoder.header_table.resized = True
    return encoder
