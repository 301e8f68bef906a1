"""What is held back for a layer that may begin is released in the end."""

from __future__ import annotations

import math
import socket
import struct

import pytest
import trio
import trio.testing

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
        await trio.testing.wait_all_tasks_blocked(0.02)
        await client.send_all(more)
        await client.send_eof()
        with trio.fail_after(5):
            answer = b"".join([chunk async for chunk in client])
        await proxy.wait_closed()
    assert answer == b"HTTP/1.1 200 OK\r\n\r\n" + CONNECT + more


UPGRADE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"
SSL_REQUEST = b"\0\0\0\x08\x04\xd2\x16\x2f"
HELD = {
    "upgrade": (UPGRADE, b"eager"),
    "connect": (CONNECT, b"eager"),
    "connect, and more than may be held": (CONNECT, b"\0" * 100_000),
    "socks5": (b"\x05\x01\x00", b"\x05\x01\x00\x03\x05a.net\x00\x50"),
    "ssl request": (SSL_REQUEST, b"\0\0\0\x09\0\3\0\0\0"),
    "starttls": (b"EHLO a\r\nSTARTTLS\r\n", b"NOOP\r\n"),
    "half a head": (b"", b"GET / HTTP/1.1\r\nHost: "),
    "the beginning of a hello": (b"", b"\x16\x03\x01"),
}
HALF_A_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(20)


@pytest.mark.parametrize("what", HELD)
async def test_a_server_that_waits_for_what_is_held_gets_it_in_the_end(lab, what: str) -> None:
    """No message of a protocol is over before its answer has come, and none will."""
    head, held = HELD[what]

    async def server(stream: trio.SocketStream) -> None:
        heard = b""
        while len(heard) < len(head + held):
            heard += await stream.receive_some()
        await stream.send_all(b"heard it all")
        await stream.send_eof()

    async with lab(server, hold_s=0.05) as proxy:
        client = await proxy.connect()
        with trio.fail_after(5):
            await client.send_all(head + held)
            answer = b"".join([chunk async for chunk in client])
        await client.aclose()
        close = await proxy.wait_closed()
    assert answer == b"heard it all"
    assert close.bytes_up == len(head + held)


@pytest.mark.parametrize("head", [b"GET / HTTP/1.1\r\nX: ", CONNECT, HALF_A_HELLO])
async def test_bytes_that_keep_coming_are_held_no_longer(lab, monkeypatch, head: bytes) -> None:
    monkeypatch.setattr("mitml4.layers.tls._HELLO_S", 0.1)
    heard = trio.Event()

    async def server(stream: trio.SocketStream) -> None:
        count = 0
        while count <= len(head):
            count += len(await stream.receive_some())
        heard.set()

    async with lab(server, hold_s=0.1) as proxy:
        client = await proxy.connect()
        await client.send_all(head)
        with trio.fail_after(5):
            while not heard.is_set():
                await client.send_all(b"x")
                await trio.sleep(0.01)
        await client.aclose()
        await proxy.wait_closed()


async def talk_on(client: trio.SocketStream) -> None:
    while True:
        await client.receive_some()
        await client.send_all(b"x")
        await trio.sleep(0.005)


@pytest.mark.parametrize("what", [*HELD, "half a hello"])
@pytest.mark.parametrize("first", ["server", "client"])
async def test_what_is_held_moves_once_the_other_side_has_ended(lab, what: str, first: str) -> None:
    """Nothing can come of it any more. A server that has gone answers with a reset."""
    head, held = HELD.get(what, (b"", HALF_A_HELLO))
    end = trio.Event()

    async def server(stream: trio.SocketStream) -> None:
        await end.wait()
        await stream.send_eof()
        heard = b""
        while len(heard) < len(head + held):
            heard += await stream.receive_some()
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        stream.socket.close()

    async with lab(server, hold_s=math.inf) as proxy:
        client = await proxy.connect()
        with trio.fail_after(5):
            if first == "server":
                end.set()
                assert await client.receive_some() == b""
                await client.send_all(head + held)
            else:
                await client.send_all(head + held)
                await trio.testing.wait_all_tasks_blocked(0.02)
                end.set()
            with pytest.raises(trio.BrokenResourceError):
                await talk_on(client)
        await client.aclose()
        assert (await proxy.wait_closed()).reason == "reset"


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
