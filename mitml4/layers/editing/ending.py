"""How an editor delays and ends a connection."""

from __future__ import annotations

from typing import Final

import trio

from mitml4.edit.messages import Ending
from mitml4.layers.editing.reader import Reader
from mitml4.net.memory import MemoryStream

__all__ = ["end", "sleep"]

_MAX_DELAY_S: Final = 600.0
_CLOSE_S: Final = 2.0
"""How long a client may take to end after the connection was closed."""


async def sleep(delay_s: float) -> None:
    if delay_s:
        await trio.sleep(min(delay_s, _MAX_DELAY_S))


async def end(ending: Ending, client: Reader, far: MemoryStream) -> None:
    """End the connection to the client in this way."""
    match ending:
        case Ending.RESET:
            far.abort()
            return
        case Ending.CLOSE:
            await far.send_eof()
            with trio.move_on_after(_CLOSE_S):
                while await client.more():
                    client.take()
        case Ending.HANG:
            while await client.more():
                client.take()
    client.take()
    far.close()
