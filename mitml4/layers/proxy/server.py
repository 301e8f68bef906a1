"""Serves the client of a proxy on one connection. The first byte tells the protocol.

    client ⇄ Observe (layer, events) ⇄ near │ far ⇄ this server ⇄ servers of http:// URLs

A request for a tunnel (CONNECT, SOCKS) ends it: `tunnel` is then the connection to the server, and
what is inside goes on between the client and that one (`layers/proxy/onward.py`). Requests for URLs
are forwarded here, each to its server.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import Final, TypeVar

import trio

from mitml4.dataclass import dataclass
from mitml4.errors import ProtocolError
from mitml4.layers.editing.reader import Reader, send
from mitml4.layers.proxy.credentials import Credentials
from mitml4.layers.proxy.forwarding import Forwarding
from mitml4.layers.proxy.head import next_head
from mitml4.layers.proxy.http import Asked, read_asked
from mitml4.layers.proxy.refusal import CHALLENGE, Open, Refused, http_refusal, socks5_reply
from mitml4.layers.proxy.socks import method_for, read_greeting, read_password, read_request
from mitml4.net.memory import MemoryStream
from mitml4.net.stream import Stream
from mitml4.protocols.parts import fields
from mitml4.protocols.socks4 import COMMANDS, GRANTED
from mitml4.protocols.socks4 import read_request as read_socks4_request
from mitml4.protocols.socks5 import NONE_ACCEPTABLE, USERNAME_PASSWORD
from mitml4.tasks import fail_after

__all__ = ["ProxyServer"]

T = TypeVar("T")

_SPEAK_S: Final = 30.0
"""How long a client may take for a whole request, and for its first."""
_IDLE_S: Final = 300.0
"""How long a kept-alive connection may wait for the next request."""
_LINGER_S: Final = 2.0
"""How long the client may take to end its side after a last answer."""
_TAKEN_S: Final = 10.0
"""How long the client may take to read the answer that opens its tunnel."""

_CONNECTED: Final = b"HTTP/1.1 200 Connection established\r\n\r\n"
# RFC 8446 §6: what a client of TLS gets here is an alert, handshake_failure.
_TLS_ALERT: Final = b"\x15\x03\x01\x00\x02\x02\x28"
_SOCKS4_FAILED: Final = b"\x00\x5b" + bytes(6)
_SOCKS4_GRANTED: Final = bytes((0, GRANTED)) + bytes(6)
_NOT_SUPPORTED, _NO_SUCH_ADDRESS = 7, 8  # RFC 1928 §6


class _Gone(Exception):  # noqa: N818 - it is over
    """The client has ended."""


@dataclass(slots=True, kw_only=True)
class ProxyServer:
    """Serves one client."""

    far: MemoryStream
    """What the client is read from and answered by."""
    open: Open
    credentials: Credentials | None = None
    """None: everybody may use it."""
    tunnel: Stream | None = None
    """The connection to the server, once the client was told of it."""
    _client: Reader = None  # type: ignore[assignment] # from the beginning of `run`
    _is_onward: trio.Event = field(default_factory=trio.Event)

    def take_tunnel(self) -> tuple[Stream, bytes]:
        """The connection to the server, and what the client has sent here that is for it."""
        assert self.tunnel
        self._is_onward.set()
        unread = self.far.peek_nowait(self.far.unread_count())
        self.far.discard(len(unread))
        return self.tunnel, self._client.take() + unread

    async def run(self) -> None:
        """Serve the client to its end, or until what is in its tunnel goes onward. Raises OSError
        when a side breaks."""
        self._client = Reader(self.far)
        try:
            await self._serve()
            if self.tunnel:
                with trio.move_on_after(_TAKEN_S):
                    await self._is_onward.wait()
                    return
                self.far.abort()
                return
        except (_Gone, trio.TooSlowError, ProtocolError):
            pass
        except trio.ClosedResourceError:
            return
        await self._finish()

    async def _serve(self) -> None:
        with fail_after(_SPEAK_S):
            await self._more_than(0)
        match self._client.data[0]:
            case 4:
                await self._serve_socks4()
            case 5:
                await self._serve_socks5()
            case 0x16:
                await self._say(_TLS_ALERT)
            case _:
                await self._serve_http()

    async def _finish(self) -> None:
        """Nothing more is served: the client gets the end, and has a moment to take it."""
        with trio.move_on_after(_LINGER_S):
            try:
                await self.far.send_eof()
                self._client.take()
                while await self._client.more():
                    self._client.take()
                return
            except (OSError, trio.ClosedResourceError):
                return
        self.far.abort()

    # SOCKS

    async def _serve_socks4(self) -> None:
        try:
            request = await self._unit(read_socks4_request)
        except ProtocolError:
            await self._say(_SOCKS4_FAILED)
            return
        if self.credentials or COMMANDS[request.command] != "connect":
            await self._say(_SOCKS4_FAILED)
            return
        try:
            tunnel = await self.open(request.target)
        except Refused:
            await self._say(_SOCKS4_FAILED)
            return
        await self._begin_tunnel(tunnel, _SOCKS4_GRANTED)

    async def _serve_socks5(self) -> None:
        offered = await self._unit(read_greeting)
        method = method_for(offered, needs_password=self.credentials is not None)
        await self._say(bytes((5, method)))
        if method == NONE_ACCEPTABLE:
            return
        if method == USERNAME_PASSWORD:
            user, password = await self._unit(read_password)
            is_accepted = not self.credentials or self.credentials.accepts(user, password)
            await self._say(bytes((1, not is_accepted)))
            if not is_accepted:
                return
        request = await self._unit(read_request)
        if request.command != 1:
            await self._say(socks5_reply(_NOT_SUPPORTED))
            return
        if request.target is None or not request.target.port:
            await self._say(socks5_reply(_NO_SUCH_ADDRESS))
            return
        try:
            tunnel = await self.open(request.target)
        except Refused as refused:
            await self._say(socks5_reply(refused.why.value.socks5))
            return
        await self._begin_tunnel(tunnel, socks5_reply(0))

    async def _unit(self, read: Callable[[fields.Reader], T]) -> T:
        """The next unit of the client's. Raises ProtocolError, TooSlowError."""
        with fail_after(_SPEAK_S):
            while True:
                reader = fields.Reader(bytes(self._client.data))
                try:
                    unit = read(reader)
                except fields.Short:
                    await self._more_than(len(self._client.data))
                    continue
                self._client.take(reader.at)
                return unit

    # HTTP

    async def _serve_http(self) -> None:
        forwarding = Forwarding(self._client, self.far, self.open)
        wait_s = _SPEAK_S
        try:
            while True:
                try:
                    raw = await next_head(self._client, wait_s, _SPEAK_S)
                    asked = read_asked(raw) if raw else None
                except ProtocolError as error:
                    await self._say(http_refusal(400, error.message))
                    return
                if asked is None:
                    return
                if not await self._answer(asked, forwarding):
                    return
                wait_s = _IDLE_S
        finally:
            forwarding.close()

    async def _answer(self, asked: Asked, forwarding: Forwarding) -> bool:
        """Serve one request. Returns whether another may follow."""
        request, method = asked.request, asked.request.method
        if asked.target and self.credentials:
            given = request.headers.get("proxy-authorization")
            if not self.credentials.accepts_basic(given):
                text = "this proxy needs a user and a password"
                await self._say(http_refusal(407, text, CHALLENGE, method=method))
                return False
        if not asked.is_connect:
            return await forwarding.serve(asked)
        try:
            tunnel = await self.open(asked.target)
        except Refused as refused:
            told = refused.why.value
            await self._say(http_refusal(told.status, str(refused), error=told.error))
            return False
        await self._begin_tunnel(tunnel, _CONNECTED)
        return False

    # Both

    async def _begin_tunnel(self, tunnel: Stream, answer: bytes) -> None:
        self.tunnel = tunnel
        await self._say(answer)

    async def _more_than(self, count: int) -> None:
        while len(self._client.data) <= count:
            if not await self._client.more():
                raise _Gone

    async def _say(self, data: bytes) -> None:
        await send(self.far, data)
