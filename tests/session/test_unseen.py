"""Flows that nobody looks at, because there are too many: relayed as they are, unless a block could
concern them."""

from __future__ import annotations

import math

import trio

from mitml4.events import FlowLayer
from mitml4.protocols.conversation import Unreadable

TOO_MANY = "too many connections"


async def test_nothing_is_looked_at_and_nothing_held(lab) -> None:
    piece = b"GET / HTTP/1.1\r\nHost: "

    async def server(stream: trio.SocketStream) -> None:
        assert await stream.receive_some() == piece
        await stream.send_all(b"heard")
        await stream.send_eof()

    async with lab(server, unseen=TOO_MANY, hold_s=math.inf) as proxy:
        client = await proxy.connect()
        with trio.fail_after(5):
            await client.send_all(piece)
            assert await client.receive_some() == b"heard"
        await client.aclose()
        close = await proxy.wait_closed()
    assert (close.stack, close.bytes_up, close.bytes_down) == (("unknown",), len(piece), 5)
    (layer,) = proxy.of(FlowLayer)
    assert (layer.action, layer.details.passthrough) == ("passthrough", TOO_MANY)


async def test_a_block_holds_all_the_same(lab) -> None:
    def policy(ends) -> tuple[str, str]:
        hosts = [getattr(end, "host", None) for end in ends]
        blocked = "blocked.test" in hosts or any(isinstance(end, Unreadable) for end in ends)
        return ("block", "--block") if blocked else ("passthrough", TOO_MANY)

    async def server(stream: trio.SocketStream) -> None:
        assert not [chunk async for chunk in stream], "it heard of a request that is blocked"

    async with lab(server, unseen=TOO_MANY, policy=policy) as proxy:
        client = await proxy.connect()
        with trio.fail_after(5):
            await client.send_all(b"GET / HTTP/1.1\r\nHost: blocked.test\r\n\r\n")
            close = await proxy.wait_closed()
    assert close.reason == "blocked"
