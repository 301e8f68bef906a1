"""A second connection to the server, for what is passed through after the first one was opened.

The client has not been answered by then, and its ClientHello is unread: the server gets it as it
is. A server may take a connection once (FTP's for data), so the first one may have to be kept until
the second one is answered.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

import trio

from mitml4.layers.bridge import first_of
from mitml4.net.stream import StreamTruncated, Transport
from mitml4.tls.stream import TlsStream

__all__ = ["Redial"]

_CONNECT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Redial:
    """How a flow connects again, where the layer below is the plain connection."""

    dial: Callable[[], Awaitable[Transport]]
    """Another connection to the server, which the caller closes; raises OSError."""
    adopt: Callable[[Transport], None]
    """It takes the place of the first one, which the caller has closed."""

    async def connect(self) -> Transport | None:
        """Another connection; None if the server does not take one."""
        with suppress(OSError, trio.TooSlowError), trio.move_on_after(_CONNECT_S):
            return await self.dial()
        return None

    async def connect_with(
        self, hello: bytes, first: TlsStream, answer_s: float
    ) -> Transport | None:
        """Another connection, on which the server has answered this hello within so long; None if
        it has not, or goes on with the first one, by what it says there."""
        server_side = await self.connect()
        answered = False
        if server_side is None:
            return None
        try:
            with trio.move_on_after(answer_s), suppress(OSError):
                await server_side.send_all(memoryview(hello))
                await first_of(partial(server_side.peek, 0, 1), partial(_wait_spoken, first))
                answered = bool(server_side.peek_nowait(1))
        finally:
            if not answered:
                server_side.abort()
        return server_side if answered else None


async def _wait_spoken(stream: TlsStream) -> None:
    """Wait for the first byte inside a TLS, which may have ended without."""
    try:
        spoken = await stream.peek(0, 1)
    except (StreamTruncated, OSError):
        spoken = b""
    if not spoken:
        await trio.sleep_forever()
