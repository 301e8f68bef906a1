"""Small servers for the demo: each implements as much of its protocol as a client needs.

They are trio handlers over any trio stream, so the same HTTP server works over plain TCP and inside
TLS. `Servers` runs all of them in the lab's server namespace.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from enum import IntEnum
from functools import partial
from typing import Final, TypeAlias

import hpack
import trio
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    SettingsFrame,
)

from mitml4.dataclass import dataclass
from mitml4.lab.network import SERVER_V4
from mitml4.net.netns import NetNamespace

__all__ = ["Port", "Servers"]

Handler: TypeAlias = Callable[[trio.abc.Stream], Awaitable[None]]
Connect: TypeAlias = Callable[[str, int], Awaitable[trio.SocketStream]]

_BODY: Final = b"hello from the lab\n"
_MAX_LINE: Final = 8192
_CHUNK: Final = 65536
_H2_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_WEBSOCKET_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3
_GONE: Final = (trio.BrokenResourceError, trio.ClosedResourceError, EOFError, OSError)


class Port(IntEnum):
    """The port of each server of the lab."""

    HTTP = 80
    HTTPS = 443
    EXPIRED = 8443
    SOCKS = 1080
    PROXY = 3128
    TLS_PROXY = 3129
    SSH = 22
    SMTP = 25
    UNKNOWN = 7777


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """All servers of the lab, on IPv4 and IPv6."""

    namespace: NetNamespace
    tls: ssl.SSLContext
    """For names below `.example`; ALPN h2 and http/1.1."""
    expired: ssl.SSLContext
    """The same with an expired certificate."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; `started` is called when every port listens."""
        proxy = partial(serve_connect, connect=self._connect)
        services: dict[int, Handler] = {
            Port.HTTP: serve_http,
            Port.HTTPS: partial(_inside_tls, context=self.tls, handler=serve_http),
            Port.EXPIRED: partial(_inside_tls, context=self.expired, handler=serve_http),
            Port.SOCKS: partial(serve_socks5, connect=self._connect),
            Port.PROXY: proxy,
            Port.TLS_PROXY: partial(_inside_tls, context=self.tls, handler=proxy),
            Port.SSH: serve_ssh,
            Port.SMTP: partial(serve_smtp, context=self.tls),
            Port.UNKNOWN: serve_echo,
        }
        async with trio.open_nursery() as nursery:
            for port, handler in services.items():
                listener = self._listen(port)
                nursery.start_soon(trio.serve_listeners, partial(_guarded, handler), [listener])
            task_status.started()

    def _listen(self, port: int) -> trio.SocketListener:
        sock = self.namespace.socket(socket.AF_INET6)
        try:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            sock.bind(("::", port))
            sock.listen()
            sock.setblocking(False)
        except BaseException:
            sock.close()
            raise
        return trio.SocketListener(trio.socket.from_stdlib_socket(sock))

    async def _connect(self, host: str, port: int) -> trio.SocketStream:
        """Every name is this machine: the lab has no resolver."""
        address = SERVER_V4 if host.endswith(".example") else host
        v6 = ipaddress.ip_address(address).version == 6
        family = socket.AF_INET6 if v6 else socket.AF_INET
        sock = trio.socket.from_stdlib_socket(self.namespace.socket(family))
        try:
            await sock.connect((address, port))
        except BaseException:
            sock.close()
            raise
        return trio.SocketStream(sock)


class _Reader:
    """Reads lines and exact counts from a stream. Raises EOFError if it ends before."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.buffer = bytearray()

    async def _more(self) -> None:
        data = await self.stream.receive_some(_CHUNK)
        if not data:
            raise EOFError
        self.buffer += data

    async def exactly(self, count: int) -> bytes:
        while len(self.buffer) < count:
            await self._more()
        return self._take(count)

    async def until(self, end: bytes) -> bytes:
        """Read up to and including `end`."""
        while (at := self.buffer.find(end)) < 0:
            if len(self.buffer) > _MAX_LINE:
                raise EOFError
            await self._more()
        return self._take(at + len(end))

    def _take(self, count: int) -> bytes:
        taken = bytes(self.buffer[:count])
        del self.buffer[:count]
        return taken


async def _guarded(handler: Handler, stream: trio.abc.Stream) -> None:
    """A client that disconnects ends only its own connection."""
    async with stream:
        try:
            await handler(stream)
        except* _GONE:
            pass


async def _inside_tls(
    stream: trio.abc.Stream, *, context: ssl.SSLContext, handler: Handler
) -> None:
    async with trio.SSLStream(
        stream, context, server_side=True, https_compatible=True
    ) as encrypted:
        await encrypted.do_handshake()
        await handler(encrypted)


async def serve_http(stream: trio.abc.Stream) -> None:
    """HTTP/1.1 with keep-alive and a WebSocket echo at /socket, or HTTP/2 by its preface."""
    reader = _Reader(stream)
    while True:
        head = await reader.until(b"\r\n\r\n")
        if head + b"SM\r\n\r\n" == _H2_PREFACE:
            await reader.exactly(len(b"SM\r\n\r\n"))
            return await _serve_http2(reader)
        headers = _headers(head)
        if headers.get(b"upgrade", b"").lower() == b"websocket":
            return await _serve_websocket(reader, headers[b"sec-websocket-key"])
        await stream.send_all(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%b"
            % (len(_BODY), _BODY)
        )


def _headers(head: bytes) -> dict[bytes, bytes]:
    pairs = (line.partition(b":") for line in head.split(b"\r\n")[1:])
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


async def _serve_http2(reader: _Reader) -> None:
    """Answer every request with the same response (RFC 9113); bodies stay far below any
    flow-control window."""
    encoder = hpack.Encoder()
    await reader.stream.send_all(SettingsFrame(0).serialize())
    while True:
        frame, length = Frame.parse_frame_header(memoryview(await reader.exactly(9)))
        frame.parse_body(memoryview(await reader.exactly(length)))
        answer: list[Frame] = []
        match frame:
            case SettingsFrame() if "ACK" not in frame.flags:
                answer = [SettingsFrame(0, flags=["ACK"])]
            case PingFrame() if "ACK" not in frame.flags:
                answer = [PingFrame(0, opaque_data=frame.opaque_data, flags=["ACK"])]
            case HeadersFrame():
                head = encoder.encode([(":status", "200"), ("content-type", "text/plain")])
                answer = [
                    HeadersFrame(frame.stream_id, data=head, flags=["END_HEADERS"]),
                    DataFrame(frame.stream_id, data=_BODY, flags=["END_STREAM"]),
                ]
            case GoAwayFrame():
                return
        await reader.stream.send_all(b"".join(item.serialize() for item in answer))


async def _serve_websocket(reader: _Reader, key: bytes) -> None:
    """Echo one short message unmasked, then close (RFC 6455 §5.2, §7.1.2)."""
    accept = base64.b64encode(hashlib.sha1(key + _WEBSOCKET_GUID).digest())
    await reader.stream.send_all(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n\r\n" % accept
    )
    opening, message = await _receive_frame(reader)
    await reader.stream.send_all(bytes([opening, len(message)]) + message)
    await reader.stream.send_all(b"\x88\x02\x03\xe8")  # close, 1000
    await _receive_frame(reader)  # the client's: if it were left unread, closing would send a reset


async def _receive_frame(reader: _Reader) -> tuple[int, bytes]:
    """A client's short frame: its first byte, and its unmasked payload."""
    opening, masked_length = await reader.exactly(2)
    mask = await reader.exactly(4)
    data = await reader.exactly(masked_length & 0x7F)
    return opening, bytes(byte ^ mask[index % 4] for index, byte in enumerate(data))


async def serve_socks5(stream: trio.abc.Stream, *, connect: Connect) -> None:
    """SOCKS5 without authentication, CONNECT only (RFC 1928)."""
    reader = _Reader(stream)
    _, method_count = await reader.exactly(2)
    await reader.exactly(method_count)
    await stream.send_all(b"\x05\x00")
    _, _, _, kind = await reader.exactly(4)
    match kind:
        case 1:
            host = socket.inet_ntop(socket.AF_INET, await reader.exactly(4))
        case 4:
            host = socket.inet_ntop(socket.AF_INET6, await reader.exactly(16))
        case _:
            (length,) = await reader.exactly(1)
            host = (await reader.exactly(length)).decode("ascii")
    (port,) = struct.unpack("!H", await reader.exactly(2))
    async with await connect(host, port) as target:
        await stream.send_all(b"\x05\x00\x00\x01" + bytes(6))
        await _tunnel(reader, target)


async def serve_connect(stream: trio.abc.Stream, *, connect: Connect) -> None:
    """An HTTP proxy that supports CONNECT (RFC 9110 §9.3.6)."""
    reader = _Reader(stream)
    head = await reader.until(b"\r\n\r\n")
    method, authority, _ = head.split(b" ", 2)
    if method != b"CONNECT":
        await stream.send_all(b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n")
        return
    host, _, port = authority.decode("ascii").rpartition(":")
    async with await connect(host.strip("[]"), int(port)) as target:
        await stream.send_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await _tunnel(reader, target)


async def _tunnel(reader: _Reader, target: trio.SocketStream) -> None:
    """Relay both directions until each has ended; a half-close is forwarded if the stream supports
    it."""

    async def up() -> None:
        await target.send_all(bytes(reader.buffer))
        async for data in reader.stream:
            await target.send_all(data)
        await target.send_eof()

    async def down() -> None:
        async for data in target:
            await reader.stream.send_all(data)
        if isinstance(reader.stream, trio.abc.HalfCloseableStream):
            await reader.stream.send_eof()
        else:
            await reader.stream.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(up)
        await down()


async def serve_ssh(stream: trio.abc.Stream) -> None:
    """The identification exchange, server first (RFC 4253 §4.2), then close."""
    await stream.send_all(b"SSH-2.0-Lab_1.0\r\n")
    await _Reader(stream).until(b"\n")


async def serve_smtp(stream: trio.abc.Stream, *, context: ssl.SSLContext) -> None:
    """A mail server that accepts no mail, but supports STARTTLS (RFC 3207)."""
    await stream.send_all(b"220 mail.example ESMTP lab\r\n")
    reader = _Reader(stream)
    while True:
        line = (await reader.until(b"\r\n")).upper()
        if line.startswith(b"EHLO"):
            await stream.send_all(b"250-mail.example\r\n250 STARTTLS\r\n")
        elif line.startswith(b"STARTTLS"):
            await stream.send_all(b"220 go ahead\r\n")
            stream = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
            reader = _Reader(stream)
        elif line.startswith(b"QUIT"):
            await stream.send_all(b"221 bye\r\n")
            return
        else:
            await stream.send_all(b"250 ok\r\n")


async def serve_echo(stream: trio.abc.Stream) -> None:
    """Send back all data."""
    async for data in stream:
        await stream.send_all(data)
