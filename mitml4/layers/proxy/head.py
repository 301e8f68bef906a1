"""Heads of HTTP/1, read to their ends."""

from __future__ import annotations

from mitml4.edit.http1 import head_length
from mitml4.errors import ProtocolError
from mitml4.layers.editing.reader import Reader
from mitml4.tasks import fail_after

__all__ = ["next_head", "response_head"]


async def next_head(client: Reader, wait_s: float, whole_s: float) -> bytes:
    """The head of the next request; empty if there is none. It may take `wait_s` to begin, and
    `whole_s` to become whole. Raises ProtocolError, TooSlowError."""
    with fail_after(wait_s):
        while not client.data:
            if not await client.more():
                return b""
    with fail_after(whole_s):
        return await _whole(client)


async def response_head(server: Reader) -> bytes:
    """The head of a response; empty if the server has ended without one. Raises ProtocolError."""
    return await _whole(server)


async def _whole(source: Reader) -> bytes:
    while not (length := head_length(source.data)):
        if not await source.more():
            if source.data:
                raise ProtocolError("a message that is not whole")
            return b""
    return source.take(length)
