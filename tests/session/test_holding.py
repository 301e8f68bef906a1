"""What is held back for a layer that may begin never waits for good."""

from __future__ import annotations

import pytest
import trio

from mitml4.events import FlowLayer

CONNECT = b"CONNECT b.test:443 HTTP/1.1\r\nHost: b.test\r\n\r\n"


@pytest.mark.parametrize("more", [b"", b"said early"])
async def test_an_end_goes_through_a_hold(lab, more: bytes) -> None:
    async def server(stream: trio.SocketStream) -> None:
        heard = b"".join([chunk async for chunk in stream])
        await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\n" + heard)
        await stream.send_eof()

    async with lab(server) as proxy:
        client = await proxy.connect()
        await client.send_all(CONNECT)
        await trio.sleep(0.02)
        await client.send_all(more)
        await client.send_eof()
        with trio.fail_after(5):
            answer = b"".join([chunk async for chunk in client])
        await proxy.wait_closed()
    assert answer == b"HTTP/1.1 200 OK\r\n\r\n" + CONNECT + more


@pytest.mark.parametrize("size", [10, 100_000])
async def test_a_server_that_waits_for_what_is_held_gets_it_in_the_end(
    lab, monkeypatch, size: int
) -> None:
    monkeypatch.setattr("mitml4.layers.converse._HELD_S", 0.05)

    async def server(stream: trio.SocketStream) -> None:
        count = 0
        while count < len(CONNECT) + size:
            count += len(await stream.receive_some())
        await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\ninside")
        await stream.send_eof()

    async with lab(server) as proxy:
        client = await proxy.connect()
        with trio.fail_after(5):
            await client.send_all(CONNECT + b"\x00" * size)
            answer = b"".join([chunk async for chunk in client])
        await client.aclose()
        close = await proxy.wait_closed()
    assert answer == b"HTTP/1.1 200 OK\r\n\r\ninside"
    assert close.bytes_up == len(CONNECT) + size


async def test_a_hello_of_ciphers_we_do_not_have_is_left_to_the_server(lab) -> None:
    body = b"\x03\x03" + bytes(32) + b"\0" + b"\0\2\0\x81" + b"\1\0"  # a GOST suite alone
    hello = b"\x16\3\1\0\x2d\1\0\0\x29" + body

    async def server(stream: trio.SocketStream) -> None:
        await stream.send_all(b"".join([chunk async for chunk in stream]))
        await stream.send_eof()

    async with lab(server) as proxy:
        client = await proxy.connect()
        await client.send_all(hello)
        await client.send_eof()
        with trio.fail_after(5):
            assert b"".join([chunk async for chunk in client]) == hello
        await client.aclose()
        await proxy.wait_closed()
    assert [layer.details.passthrough for layer in proxy.of(FlowLayer)] == ["cipher"]
