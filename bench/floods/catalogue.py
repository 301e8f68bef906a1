"""The floods: what each end of a flooding flow does.

To add one, write the function of the client or the server, and add it to `FLOODS`. The default for
an end is to read and drop everything.
"""

from __future__ import annotations

import gzip
import socket
import struct
import time
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from itertools import count, repeat
from pathlib import Path
from typing import Final, TypeAlias

__all__ = ["FLOODS", "Connect", "Flood", "drain"]

Connect: TypeAlias = Callable[[], socket.socket]
"""Opens one more connection to the flood's server, through mitml4."""

CHUNK: Final = 64 * 1024
"""Approximate number of bytes per send."""


def drain(connection: socket.socket, _where: Path) -> None:
    """Read and drop everything up to the end."""
    buffer = bytearray(CHUNK)
    while connection.recv_into(buffer):
        pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Flood:
    """One kind of flood."""

    name: str
    title: str
    client: Callable[[Connect, Path], None]
    """Opens its connections and floods, until it is ended. The path is the lab's directory."""
    server: Callable[[socket.socket, Path], None] = drain
    """Called for each accepted connection in a new thread. The path is the lab's directory, which
    contains `server.pem` and `server.key`."""


def pour(connection: socket.socket, opening: bytes, unit: bytes) -> None:
    """Send the opening, then the unit repeatedly."""
    connection.sendall(opening)
    chunk = unit * max(1, CHUNK // len(unit))
    for each in repeat(chunk):
        connection.sendall(each)


def pour_all(connection: socket.socket, opening: bytes, units: Iterable[bytes]) -> None:
    """Send the opening and all the units, many at a time."""
    chunk = bytearray(opening)
    for unit in units:
        chunk += unit
        if len(chunk) >= CHUNK:
            connection.sendall(chunk)
            chunk.clear()
    connection.sendall(chunk)


def client_pours(opening: bytes, unit: bytes) -> Callable[[Connect, Path], None]:
    def run(connect: Connect, _where: Path) -> None:
        pour(connect(), opening, unit)

    return run


def client_pours_all(
    opening: bytes, units: Callable[[], Iterable[bytes]]
) -> Callable[[Connect, Path], None]:
    def run(connect: Connect, _where: Path) -> None:
        pour_all(connect(), opening, units())

    return run


def client_asks(opening: bytes) -> Callable[[Connect, Path], None]:
    """The server does the flooding."""

    def run(connect: Connect, where: Path) -> None:
        connection = connect()
        connection.sendall(opening)
        drain(connection, where)

    return run


def server_pours(opening: bytes, unit: bytes) -> Callable[[socket.socket, Path], None]:
    def run(connection: socket.socket, _where: Path) -> None:
        connection.recv(CHUNK)
        pour(connection, opening, unit)

    return run


def holds(connections: int, opening: bytes) -> Callable[[Connect, Path], None]:
    """Open this number of connections, send the opening on each, and keep them open."""

    def run(connect: Connect, _where: Path) -> None:
        held = []
        for _ in range(connections):
            held.append(connect())
            held[-1].sendall(opening)
        time.sleep(3600)

    return run


# HTTP/1

_GET: Final = b"GET / HTTP/1.1\r\nHost: flood.bench.test\r\n\r\n"
_CHUNKED: Final = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
_OK: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
_HINTS: Final = b"HTTP/1.1 103 Early Hints\r\n\r\n"


def _answer_each(connection: socket.socket, _where: Path) -> None:
    """Send an empty response for each request line."""
    kept = b""
    while data := connection.recv(CHUNK):
        data = kept + data
        connection.sendall(_OK * data.count(b"GET "))
        kept = next((data[-size:] for size in (3, 2, 1) if data.endswith(b"GET "[:size])), b"")


def _answer_each_post(connection: socket.socket, _where: Path) -> None:
    """Send an empty response for each request."""
    kept = b""
    while data := connection.recv(CHUNK):
        data = kept + data
        connection.sendall(_OK * data.count(b"POST / HTTP"))
        kept = data[-10:] if not data.endswith(b"POST / HTTP") else b""


def _ask_pipelined(connect: Connect, _where: Path) -> None:
    """Send tiny requests, many per segment; the responses are read, so that the server
    continues."""
    connection = connect()
    batch = 500
    while True:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n" * batch)
        left = len(_OK) * batch
        while left:
            if not (data := connection.recv(left)):
                return
            left -= len(data)


# HTTP/2 (RFC 9113)

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_END_STREAM, _END_HEADERS = 0x1, 0x4


def frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    head = struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream)
    return head + payload


_SETTINGS: Final = frame(4)
_H2_OPENING: Final = _PREFACE + _SETTINGS


def literal(name: bytes, value: bytes) -> bytes:
    """A field that is added to the dynamic table (RFC 7541 §6.2.1), with a length below 127 +
    2^14."""
    return b"\x40" + _hpack_text(name) + _hpack_text(value)


def _hpack_text(text: bytes) -> bytes:
    if len(text) < 127:
        return bytes([len(text)]) + text
    rest, size = len(text) - 127, b"\x7f"
    while rest >= 128:
        size += bytes([rest & 127 | 128])
        rest >>= 7
    return size + bytes([rest]) + text


# :method GET, :scheme http (RFC 7541, appendix A)
_GET_FIELDS: Final = b"\x82\x86"
_FIRST_INSERTED: Final = b"\xbe"
"""The newest field of the dynamic table: index 62."""


def _requests(fields: bytes, *, first: bytes) -> Iterable[bytes]:
    """Consecutive requests, each on a new stream."""
    yield frame(1, first, flags=_END_STREAM | _END_HEADERS, stream=1)
    for stream in count(3, 2):
        flags = _END_STREAM | _END_HEADERS
        yield frame(1, fields, flags=flags, stream=stream & 0x7FFFFFFF)


def _hpack_bomb(path: bytes) -> Callable[[], Iterable[bytes]]:
    """A long :path is added to the table once, and each request refers to it with one byte."""
    return lambda: _requests(
        _GET_FIELDS + _FIRST_INSERTED, first=_GET_FIELDS + literal(b":path", path)
    )


def _continuations() -> Iterable[bytes]:
    yield frame(1, _GET_FIELDS, stream=1)
    for _ in count():
        yield frame(9, stream=1)


# WebSocket (RFC 6455)

_UPGRADE: Final = (
    b"GET /chat HTTP/1.1\r\nHost: flood.bench.test\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
_SWITCHING: Final = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


def _upgrade(connection: socket.socket, where: Path) -> None:
    connection.recv(CHUNK)
    connection.sendall(_SWITCHING)
    drain(connection, where)


def _pour_websocket(unit: bytes) -> Callable[[Connect, Path], None]:
    def run(connect: Connect, _where: Path) -> None:
        connection = connect()
        connection.sendall(_UPGRADE)
        connection.recv(CHUNK)
        pour(connection, b"", unit)

    return run


def _upgrade_with_deflate(connection: socket.socket, where: Path) -> None:
    connection.recv(CHUNK)
    extension = b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
    connection.sendall(_SWITCHING.removesuffix(b"\r\n") + extension)
    drain(connection, where)


@cache
def _message_of_zeros(size: int) -> bytes:
    """A masked binary message, compressed by itself (RFC 7692)."""
    compressor = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    packed = compressor.compress(bytes(size)) + compressor.flush(zlib.Z_FULL_FLUSH)
    packed = packed.removesuffix(b"\0\0\xff\xff")
    return b"\xc2\xfe" + struct.pack(">H", len(packed)) + bytes(4) + packed


def _pour_messages_of_zeros(connect: Connect, where: Path) -> None:
    _pour_websocket(_message_of_zeros(8 << 20))(connect, where)


@cache
def _gzip_bombs(coding: str, size: int) -> bytes:
    """A request whose small body decodes to so many zeros."""
    body = gzip.compress(bytes(size), 9)
    for _ in range(coding.count("gzip") - 1):
        body = gzip.compress(body, 9)
    head = f"POST / HTTP/1.1\r\nHost: h\r\nContent-Encoding: {coding}\r\n"
    return head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body


def _pour_gzip_bombs(coding: str, size: int) -> Callable[[Connect, Path], None]:
    """They are made when they are sent: to compress that much takes a third of a second."""

    def run(connect: Connect, _where: Path) -> None:
        pour(connect(), b"", _gzip_bombs(coding, size))

    return run


_MASKED_EMPTY: Final = b"\x82\x80\0\0\0\0"

FLOODS: Final[tuple[Flood, ...]] = (
    Flood(
        name="ws-deflate-bomb",
        title="WebSocket: messages of 8 KB that inflate to 8 MB (for --payload)",
        client=_pour_messages_of_zeros,
        server=_upgrade_with_deflate,
    ),
    Flood(
        name="gzip-bomb",
        title="HTTP/1: requests of 1 KB whose bodies decode to 1 MB (for --payload)",
        client=_pour_gzip_bombs("gzip", 1 << 20),
        server=_answer_each_post,
    ),
    Flood(
        name="gzip-gzip-bomb",
        title="HTTP/1: tiny requests whose bodies decode to 100 MB in two steps (for --payload)",
        client=_pour_gzip_bombs("gzip, gzip", 100 << 20),
        server=_answer_each_post,
    ),
    Flood(
        name="hpack-bomb",
        title="HTTP/2: 12-byte requests for a :path of 3.9 KB",
        client=client_pours_all(_H2_OPENING, _hpack_bomb(b"/" + b"p" * 3900)),
    ),
    Flood(
        name="hpack-bomb-bytes",
        title="the same, of bytes that are no text",
        client=client_pours_all(_H2_OPENING, _hpack_bomb(b"/" + b"\x80" * 3900)),
    ),
    Flood(
        name="h2-headers",
        title="HTTP/2: small requests",
        client=client_pours_all(
            _H2_OPENING, lambda: _requests(_GET_FIELDS + b"\x84", first=_GET_FIELDS + b"\x84")
        ),
    ),
    Flood(
        name="h2-continuation",
        title="HTTP/2: empty CONTINUATION frames",
        client=client_pours_all(_H2_OPENING, _continuations),
    ),
    Flood(
        name="h2-settings",
        title="HTTP/2: empty SETTINGS",
        client=client_pours(_H2_OPENING, _SETTINGS),
    ),
    Flood(
        name="h2-ping",
        title="HTTP/2: PING",
        client=client_pours(_H2_OPENING, frame(6, bytes(8))),
    ),
    Flood(
        name="h2-rst",
        title="HTTP/2: a request and its RST_STREAM, again and again",
        client=client_pours_all(
            _H2_OPENING,
            lambda: (
                frame(1, _GET_FIELDS + b"\x84", flags=_END_HEADERS, stream=stream)
                + frame(3, bytes(4), stream=stream)
                for stream in count(1, 2)
            ),
        ),
    ),
    Flood(
        name="h2-window",
        title="HTTP/2: WINDOW_UPDATE",
        client=client_pours(_H2_OPENING, frame(8, b"\0\0\0\1")),
    ),
    Flood(
        name="h2-priority",
        title="HTTP/2: PRIORITY",
        client=client_pours(_H2_OPENING, frame(2, b"\0\0\0\0\1", stream=3)),
    ),
    Flood(
        name="h2-data",
        title="HTTP/2: empty DATA frames",
        client=client_pours(
            _H2_OPENING + frame(1, b"\x83\x86\x84", flags=_END_HEADERS, stream=1),
            frame(0, stream=1),
        ),
    ),
    Flood(
        name="early-hints",
        title="HTTP/1: a server that repeats 103",
        client=client_asks(_GET),
        server=server_pours(b"", _HINTS),
    ),
    Flood(
        name="pipelined",
        title="HTTP/1: tiny requests, pipelined and answered",
        client=_ask_pipelined,
        server=_answer_each,
    ),
    Flood(
        name="blank-lines",
        title="HTTP/1: a request, then empty lines without end",
        client=client_pours(_GET, b"\r\n"),
    ),
    Flood(
        name="trailers",
        title="HTTP/1: trailers without end",
        client=client_pours(_CHUNKED + b"0\r\n", b"a:b\r\n"),
    ),
    Flood(
        name="chunks",
        title="HTTP/1: chunks of one byte",
        client=client_pours(_CHUNKED, b"1\r\na\r\n"),
    ),
    Flood(
        name="ws-empty",
        title="WebSocket: empty frames of the client",
        client=_pour_websocket(_MASKED_EMPTY),
        server=_upgrade,
    ),
    Flood(
        name="ws-empty-down",
        title="WebSocket: empty frames of the server",
        client=client_asks(_UPGRADE),
        server=server_pours(_SWITCHING, b"\x82\0"),
    ),
    Flood(
        name="ws-fragments",
        title="WebSocket: empty fragments of one message",
        client=_pour_websocket(b"\x00\x80\0\0\0\0"),
        server=_upgrade,
    ),
    Flood(
        name="half-heads",
        title="3,000 connections with half a request head each",
        client=holds(3000, b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"x" * 8000),
    ),
    Flood(
        name="long-half-heads",
        title="3,000 connections with 60 KB of a request head each",
        client=holds(3000, b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"x" * 60_000),
    ),
    Flood(
        name="half-hellos",
        title="3,000 connections with half a ClientHello each",
        client=holds(3000, bytes.fromhex("1603010700010006fc0303") + bytes(600)),
    ),
    Flood(
        name="idle",
        title="3,000 connections that say nothing",
        client=holds(3000, b""),
    ),
    Flood(
        name="opaque",
        title="one connection with as many bytes as go through (no flood: for comparison)",
        client=client_pours(b"\xf5\xe1bench\x9c\r\n", b"\0" * CHUNK),
    ),
)
