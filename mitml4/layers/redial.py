"""A second connection to the server, for a flow that is passed through after all.

The client has not been answered yet, and its ClientHello is unread, so the server gets it as it is.
Some servers accept a connection once only (FTP's data connections). So the first connection may
have to be kept until the second one is answered.
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Final

import trio

from mitml4.dataclass import dataclass
from mitml4.errors import ProtocolError
from mitml4.net.stream import Stream, StreamTruncated
from mitml4.protocols.conversation import MAX_PEEK, SWITCH, Conversation, Direction, Prelude
from mitml4.tasks import first_of

__all__ = ["Redial"]

_CONNECT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Redial:
    """How a flow connects again, if the layer below is the plain connection, or one whose prelude
    can be repeated."""

    dial: Callable[[], Awaitable[Stream]]
    """Make another connection to the server; raises OSError. The flow closes it in the end."""
    adopt: Callable[[Stream], None]
    """Make it the server side, in place of the first one, which the caller has closed."""
    depth: int = 0
    """The depth at which the connection is plain: 1 inside a tunnel that we have opened."""

    async def connect(self) -> Stream | None:
        """Another connection; None if the server does not accept one."""
        with trio.move_on_after(_CONNECT_S):
            try:  # `suppress` would keep what a nursery raises alive
                return await self.dial()
            except (OSError, trio.TooSlowError):
                pass
        return None

    def behind(self, prelude: Prelude) -> Redial:
        """The same, where a conversation has led to this point."""
        return replace(self, dial=partial(_dial_and_repeat, self.dial, prelude))

    async def connect_with(
        self, hello: bytes, first: Stream, answer_s: float, spoken_s: float
    ) -> Stream | None:
        """Another connection, on which the server has answered this hello within `answer_s`; None
        if it has not.

        A server that sends data on the first connection may serve no other one meanwhile, and is
        waited for no longer than `spoken_s` from then on. It may as well send the first message of
        each connection, as servers of HTTP/2 do.
        """
        server_side = await self.connect()
        answered = False
        if server_side is None:
            return None
        try:
            with trio.move_on_after(answer_s) as wait:
                await server_side.send_all(memoryview(hello))
                await first_of(partial(server_side.peek, 0, 1), partial(_wait_spoken, first))
                wait.deadline = min(wait.deadline, trio.current_time() + spoken_s)
                answered = bool(await server_side.peek(0, 1))
        except (OSError, StreamTruncated):  # `suppress` would keep what a nursery raises alive
            pass
        finally:
            if not answered:
                server_side.abort()
        return server_side if answered else None


async def _dial_and_repeat(dial: Callable[[], Awaitable[Stream]], prelude: Prelude) -> Stream:
    """Raises OSError, also if the server does not come to the same point again."""
    stream = await dial()
    try:
        await _repeat(stream, prelude)
    except (ProtocolError, StreamTruncated) as error:
        stream.abort()
        raise ConnectionAbortedError(errno.ECONNABORTED, str(error)) from None
    except BaseException:
        stream.abort()
        raise
    return stream


async def _repeat(stream: Stream, prelude: Prelude) -> None:
    """Say what the client has said, a message after each answer. Raises OSError, StreamTruncated,
    ProtocolError."""
    conversation = prelude.begin()
    conversation.start()
    for message in prelude.messages:
        await _hear_answer(stream, conversation)
        conversation.receive(Direction.UP, message)
        await stream.send_all(memoryview(message))
    await _hear_answer(stream, conversation)
    if conversation.up is not SWITCH:
        raise ProtocolError("the server answers otherwise than before")


async def _hear_answer(stream: Stream, conversation: Conversation) -> None:
    seen = 0
    while conversation.awaits_answer:
        data = await stream.peek(seen, MAX_PEEK + 1)
        if len(data) <= seen:
            raise StreamTruncated("the server has ended")
        taken = conversation.receive(Direction.DOWN, data).taken
        stream.discard(taken)
        seen = len(data) - taken


async def _wait_spoken(stream: Stream) -> None:
    """Wait for the first byte of plaintext; for ever if the stream ends without one."""
    try:
        spoken = await stream.peek(0, 1)
    except (StreamTruncated, OSError):
        spoken = b""
    if not spoken:
        await trio.sleep_forever()
