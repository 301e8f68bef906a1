"""A second connection to the server, for a flow that is passed through after all.

The client has not been answered yet, and its ClientHello is unread, so the server gets it as it is.
Some servers accept a connection once only (FTP's data connections). So the first connection may
have to be kept until the second one is answered.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Final

import trio

from mitml4.dataclass import dataclass
from mitml4.net.stream import Stream, StreamTruncated
from mitml4.tasks import first_of

__all__ = ["Redial"]

_CONNECT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Redial:
    """How a flow connects again, if the layer below is the plain connection."""

    dial: Callable[[], Awaitable[Stream]]
    """Make another connection to the server; raises OSError. The flow closes it in the end."""
    adopt: Callable[[Stream], None]
    """Make it the server side, in place of the first one, which the caller has closed."""

    async def connect(self) -> Stream | None:
        """Another connection; None if the server does not accept one."""
        with suppress(OSError, trio.TooSlowError), trio.move_on_after(_CONNECT_S):
            return await self.dial()
        return None

    async def connect_with(self, hello: bytes, first: Stream, answer_s: float) -> Stream | None:
        """Another connection, on which the server has answered this hello within `answer_s`.

        None if it has not, or if it has sent data on the first connection.
        """
        server_side = await self.connect()
        answered = False
        if server_side is None:
            return None
        try:
            with trio.move_on_after(answer_s), suppress(OSError, StreamTruncated):
                await server_side.send_all(memoryview(hello))
                await first_of(partial(server_side.peek, 0, 1), partial(_wait_spoken, first))
                answered = bool(server_side.peek_nowait(1))
        finally:
            if not answered:
                server_side.abort()
        return server_side if answered else None


async def _wait_spoken(stream: Stream) -> None:
    """Wait for the first byte of plaintext; for ever if the stream ends without one."""
    try:
        spoken = await stream.peek(0, 1)
    except (StreamTruncated, OSError):
        spoken = b""
    if not spoken:
        await trio.sleep_forever()
